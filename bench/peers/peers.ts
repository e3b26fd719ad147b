/** Servers to be measured beside, each a process of its own: started, asked until it answers, ended. */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface Peer {
  url: string;
  stop(): Promise<void>;
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

/** Waits until a URL answers, or fails after 20 s. */
export async function answering(url: string): Promise<void> {
  for (const until = Date.now() + 20_000; Date.now() < until; await new Promise((resolve) => setTimeout(resolve, 5)))
    if (
      await fetch(url).then(
        (answer) => answer.ok,
        () => false,
      )
    )
      return;
  throw new Error(`${url} does not answer`);
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

const PYTHON = '/usr/bin/python3';

/** The notes' own design; undefined where Debian's python3-fastapi is not installed. */
export async function fastapiKernel(): Promise<Peer | undefined> {
  if (!existsSync('/usr/lib/python3/dist-packages/fastapi')) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'hauki-peer-'));
  const port = await freePort();
  const child = spawn(PYTHON, [fileURLToPath(new URL('./fastapi_kernel.py', import.meta.url)), folder, String(port)], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const url = `http://127.0.0.1:${port}`;
  await answering(`${url}/api/status`);
  return {
    url,
    async stop() {
      await ended(child);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Caddy with one answer in its configuration; undefined where it is not installed. */
export async function caddy(): Promise<
  (Peer & { load(word: string): { url: string; headers: Record<string, string>; body: string } }) | undefined
> {
  if (!existsSync('/usr/bin/caddy')) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'hauki-caddy-'));
  const [port, admin] = [await freePort(), await freePort()];
  const config = (word: string) => ({
    admin: { listen: `127.0.0.1:${admin}` },
    apps: {
      http: {
        servers: {
          one: {
            listen: [`127.0.0.1:${port}`],
            automatic_https: { disable: true },
            routes: [{ handle: [{ handler: 'static_response', body: JSON.stringify({ hello: word }) }] }],
          },
        },
      },
    },
  });
  writeFileSync(join(folder, 'caddy.json'), JSON.stringify(config('first')));
  const child = spawn('/usr/bin/caddy', ['run', '--config', join(folder, 'caddy.json')], {
    stdio: 'ignore',
    env: { ...process.env, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder },
  });
  const url = `http://127.0.0.1:${port}`;
  await answering(url);
  return {
    url,
    /** What is posted to have it answer with this word. */
    load: (word) => ({ url: `http://127.0.0.1:${admin}/load`, headers: {}, body: JSON.stringify(config(word)) }),
    async stop() {
      await ended(child);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A Fastify server with one answer; a change is a restart. */
export async function fastifyServer(word: string, port: number): Promise<Peer> {
  const child = fork(fileURLToPath(new URL('./fastify-server.ts', import.meta.url)), [String(port), word], {
    execArgv: ['--disable-warning=ExperimentalWarning'],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  await once(child, 'message');
  return { url: `http://127.0.0.1:${port}`, stop: () => ended(child) };
}
