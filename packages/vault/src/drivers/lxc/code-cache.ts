/**
 * The guest's compiled code, made once when a root is staged, so that no vault parses and compiles the guest again.
 *
 * V8 keeps what had been compiled when it was asked, so it is asked after the guest has loaded a worker and a caller has
 * come in and called it: functions that a first result needs are in it, the rest is compiled when it is called. V8 refuses code that another build or other flags
 * made (the limit of the heap is not among them); then the guest is compiled as if there were none.
 */
import { spawn } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { encode, Session } from '@hauki/rpc';
import { dialTcp, streamTransport } from '@hauki/rpc/node';
import { NODE_GUEST_HEAD } from '../../guest/bundle.ts';
import { firstCall, rehearsalTicket } from '../../guest/rehearsal-caller.ts';
import { boundTo } from '../bound.ts';
import { listen } from './launcher.ts';

/** For one start of Node on a busy machine; nobody but the staging waits for it. */
const TIMEOUT_MS = 20_000;
const WORKER = 'export const add = (a, b) => a + b; export class Unused { async method() {} }';

/** The text of the function that is compiled must be the same when its code is made and when it is used. */
const SCRIPT = `
const { existsSync, readFileSync } = require('node:fs');
const { constants, Script } = require('node:vm');
const script = (folder, code) => new Script(\`(function () {\${readFileSync(folder + '/guest.mjs', 'latin1')}\n})\`, {
  filename: 'guest.mjs',
  cachedData: code,
  importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
});
`;

/** What runs first in a vault: the guest from its compiled code; a guest that is a module (in tests), as one. */
export const MAIN = `${SCRIPT}
const code = __dirname + '/guest.code';
if (existsSync(code)) script(__dirname, readFileSync(code)).runInThisContext()();
else import(__dirname + '/guest.mjs');
`;

/** Runs the guest, and when a byte comes on its standard input writes the compiled code to its standard output. */
const MAKER = `${SCRIPT}
const made = script(process.argv[1]);
made.runInThisContext()();
process.stdin.once('data', () => process.stdout.write(made.createCachedData(), () => process.exit(0)));
`;

/**
 * The compiled code of the guest in `folder`; undefined when it is a module, which cannot be kept so. `scratch`: a folder
 * that is made for it and removed again.
 */
export async function compiledCode(
  node: string,
  folder: string,
  guest: string,
  scratch: string,
): Promise<Buffer | undefined> {
  if (!guest.startsWith(NODE_GUEST_HEAD)) return undefined;
  // The guest is our own code, but it writes its worker's file: into a folder that nobody else can write.
  await mkdir(scratch, { mode: 0o700 });
  const server = await listen('127.0.0.1');
  const listener = (server as unknown as { _handle: { fd: number } })._handle.fd;
  const { port } = server.address() as AddressInfo;
  const [command, ...first] = boundTo(process.pid);
  const child = spawn(command!, [...first, node, '--disable-warning=ExperimentalWarning', '-e', MAKER, folder], {
    stdio: ['pipe', 'pipe', 'pipe', listener, 'pipe'],
    env: { TMPDIR: scratch },
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  child.on('error', () => {});
  server.close();
  try {
    if (child.pid === undefined) throw new Error(`${command} cannot be executed`);
    const chunks: Buffer[] = [];
    let said = '';
    child.stdout!.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.stderr!.on('data', (chunk: Buffer) => {
      said = (said + chunk).slice(-2_000);
    });
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    const session = new Session({
      transport: streamTransport(child.stdio[4] as Duplex),
      timeout_ms: TIMEOUT_MS,
      literal: encode,
    });
    const rehearsal = await rehearsalTicket();
    const { self, keys, expected: owner } = rehearsal;
    const setup = {
      ...self,
      source: WORKER,
      language: 'javascript',
      load_timeout_ms: TIMEOUT_MS,
      tls: false,
      keys,
      owner,
    };
    await session.call('load', [setup]);
    await firstCall(await dialTcp('127.0.0.1', port, TIMEOUT_MS), rehearsal);
    await session.call('sessions');
    child.stdin!.end('.');
    const code = await ended;
    if (code !== 0) throw new Error(`the guest could not be compiled: Node ended with ${code}\n${said}`);
    return Buffer.concat(chunks);
  } finally {
    child.kill('SIGKILL');
    await rm(scratch, { recursive: true, force: true });
  }
}
