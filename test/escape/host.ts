/**
 * The host that is attacked: secrets of its own, and stand-ins for the world outside. It runs in a network namespace
 * with nothing but a loopback interface, which also carries the addresses of a metadata service, a name server and a
 * web host: so neither an attempt nor a control can send anything further, whatever it does.
 */
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { existsSync, mkdirSync, mkdtempSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttp } from 'node:http';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const METADATA = '169.254.169.254';
export const NAME_SERVER = '198.51.100.53';
export const WEB_HOST = '198.51.100.80';
const OWN_NAMESPACE = 'HAUKI_ESCAPE_NAMESPACE';
const PROOF = 'HAUKI_ESCAPE_SECRET';

/** What a probe is told: where the secrets are. Whoever brings `proof` back has got through. */
export interface Facts {
  proof: string;
  secret_file: string;
  /** A folder that unsandboxed code may write to; vaults have /tmp. */
  folder: string;
  pid: number;
  loopback_port: number;
  /** The same over HTTP. */
  loopback_http: number;
  unix_socket: string;
  abstract_socket: string;
  metadata: string;
  name_server: string;
  web_host: string;
  /** A file of the host's cgroups that sets a limit. */
  limit_file: string;
}

export interface Host {
  facts: Facts;
  close(): void;
}

/** Whether this process has left the machine's network; the runner starts itself again if not. */
export const isAlone = () => {
  const from = process.env[OWN_NAMESPACE];
  return from !== undefined && from !== readlinkSync('/proc/self/ns/net');
};

/** Why the suite cannot run here, or false. In CI there is no such excuse. */
export function cannotRun(): string | false {
  if (process.env.CI === 'true') return false;
  if (process.platform !== 'linux') return 'it attacks Linux';
  return process.getuid?.() === 0 ? false : 'a network namespace of its own, and lxc vaults, need root';
}

/** Runs `script` again in a network namespace with no interface but its own loopback. */
export function startAlone(script: string, args: string[]) {
  const proof = `proof-${randomBytes(12).toString('hex')}`;
  const env = { ...process.env, [PROOF]: proof, [OWN_NAMESPACE]: readlinkSync('/proc/self/ns/net') };
  const command = ['--net', '--', process.execPath, '--disable-warning=ExperimentalWarning', script, ...args];
  return spawn('unshare', command, { env, stdio: ['ignore', 'pipe', 'inherit'] });
}

const listening = (server: Server, ...where: [number, string] | [string]) =>
  new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    (server.listen as (...args: unknown[]) => void)(...where, resolve);
  });

/** Brings up the stand-ins. Call it in a namespace of its own only. */
export async function openHost(): Promise<Host> {
  if (!isAlone()) throw new Error('the escape suite runs in a network namespace of its own, and in no other');
  execFileSync('ip', ['link', 'set', 'lo', 'up']);
  for (const address of [METADATA, NAME_SERVER, WEB_HOST])
    execFileSync('ip', ['addr', 'add', `${address}/32`, 'dev', 'lo']);
  // In the environment since this process began, so that /proc tells it.
  const proof = process.env[PROOF]!;
  const root = mkdtempSync(join(tmpdir(), 'hauki-escape-'));
  const folder = join(root, 'free');
  mkdirSync(folder);
  const secret_file = join(root, 'secret');
  writeFileSync(secret_file, proof);

  const tell = () => createServer((socket) => socket.on('error', () => {}).end(`${proof}\n`));
  const web = (location?: string) =>
    createHttp((_request, response) => {
      if (location) response.writeHead(302, { location }).end();
      else response.end(proof);
    });
  const loopback = tell();
  const loopback_http = web();
  const unix = tell();
  const abstract = tell();
  const metadata = web();
  const web_host = web();
  const redirecting = web(`http://${METADATA}/latest/meta-data/`);
  const unix_socket = join(root, 'socket');
  const abstract_socket = `\0${proof.slice(0, 12)}-abstract`;
  const names = createSocket('udp4');
  // Answers every question with one TXT record that holds the proof.
  names.on('message', (question, { port, address }) => {
    const end = question.indexOf(0, 12) + 5;
    const text = Buffer.from(proof);
    const head = Buffer.from(question.subarray(0, 12));
    head.writeUInt16BE(0x8180, 2);
    head.writeUInt16BE(1, 6);
    head.writeUInt32BE(0, 8);
    const record = Buffer.from([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 1, 0, text.length + 1, text.length]);
    names.send(Buffer.concat([head, question.subarray(12, end), record, text]), port, address);
  });
  await Promise.all([
    listening(loopback, 0, '127.0.0.1'),
    listening(loopback_http, 0, '127.0.0.1'),
    listening(unix, unix_socket),
    listening(abstract, abstract_socket),
    listening(metadata, 80, METADATA),
    listening(web_host, 80, WEB_HOST),
    listening(redirecting, 8080, WEB_HOST),
    new Promise<void>((resolve) => names.bind(53, NAME_SERVER, resolve)),
  ]);
  const cgroup = limitedCgroup(`hauki-escape-${process.pid}`);
  return {
    facts: {
      ...{ proof, secret_file, folder, unix_socket, abstract_socket },
      pid: process.pid,
      loopback_port: (loopback.address() as AddressInfo).port,
      loopback_http: (loopback_http.address() as AddressInfo).port,
      ...{ metadata: METADATA, name_server: NAME_SERVER, web_host: WEB_HOST },
      limit_file: cgroup.file,
    },
    close() {
      for (const server of [loopback, loopback_http, unix, abstract, metadata, web_host, redirecting, names])
        server.close();
      cgroup.remove();
      rmSync(root, { recursive: true, force: true });
    },
  };
}

function limitedCgroup(name: string): { file: string; remove(): void } {
  for (const [base, file] of [
    ['/sys/fs/cgroup/pids', 'pids.max'],
    ['/sys/fs/cgroup', 'pids.max'],
  ] as const) {
    if (!existsSync(join(base, 'cgroup.procs'))) continue;
    const path = join(base, name);
    try {
      mkdirSync(path);
      writeFileSync(join(path, file), '1000', { flag: 'r+' });
      return { file: join(path, file), remove: () => execFileSync('rmdir', [path]) };
    } catch {
      execFileSync('rmdir', ['--ignore-fail-on-non-empty', path], { stdio: 'ignore' });
    }
  }
  throw new Error('no cgroup with a limit of processes can be made here');
}
