/**
 * Attempts by raw system calls: `packages/vault/test/lxc/escape.pl` and `steps.pl`, run by a Perl that is mounted into
 * a vault and started in Node's place, with a listening socket as fd 3 as every vault has it. The control runs the same
 * script by root's own Perl outside any vault, in namespaces that it may break.
 */
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, chownSync, closeSync, copyFileSync, existsSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createLxcDriver } from '../../packages/vault/src/drivers/lxc/lxc.ts';
import { createProcessDriver } from '../../packages/vault/src/drivers/process/process.ts';
import type { DriverName } from '../support/mesh.ts';
import type { Facts } from './host.ts';
import { PATIENCE } from './patience.ts';
import { type Attempt, blocked, judged, type Outcome, opened } from './table.ts';

export type Native = Extract<DriverName, 'lxc' | 'process'>;

const PERL = '/usr/bin/perl';
const LOADER = '/lib64/ld-linux-x86-64.so.2';
const ESCAPE = fileURLToPath(new URL('../../packages/vault/test/lxc/escape.pl', import.meta.url));
const LEAKY = fileURLToPath(new URL('./leaky.ts', import.meta.url));
const NO_WARNINGS = ['--disable-warning=ExperimentalWarning'];
export const STEPS = fileURLToPath(new URL('./steps.pl', import.meta.url));
const CONTROL_MS = 20_000 * PATIENCE;
const FILTER = { lxc: 'filter of system calls', process: 'filter of system calls' };

/** Why there can be no raw calls here, or false. */
export const noPerl = (): string | false =>
  process.arch !== 'x64' ? 'raw calls are numbered for x64' : existsSync(PERL) ? false : `${PERL} is missing`;

let serial = 0;

/** Host files to mount, by their names below /tmp. */
type Mounts = Record<string, string>;

/** Runs a script as the first process of a vault; gives what it wrote. */
export async function inVault(
  driver: Native,
  folder: string,
  script: string,
  args: string[],
  mounts: Mounts = {},
): Promise<string> {
  const libraries = execFileSync('/usr/bin/ldd', [PERL], { encoding: 'utf8' })
    .split('\n')
    .flatMap((line) => /(\/\S+) \(0x/.exec(line)?.[1] ?? [])
    .filter((path) => path !== LOADER);
  const init = [LOADER, '--library-path', '/tmp', '/tmp/perl', '/tmp/probe.pl', ...args];
  const node_id = `esc${process.pid}-${serial++}`;
  const data_dir = join(folder, node_id);
  mkdirSync(data_dir);
  const guest_file = join(data_dir, 'guest.mjs');
  // A checkout may lie where a vault's own root may not go.
  const probe = join(data_dir, 'probe.pl');
  copyFileSync(script, probe);
  const all: Mounts = { perl: PERL, 'probe.pl': probe, ...mounts };
  for (const path of libraries) all[path.slice(path.lastIndexOf('/') + 1)] = path;
  writeFileSync(guest_file, '');
  const mount = (name: string, source: string) => `${source} tmp/${name} none bind,ro,create=file 0 0`;
  const made =
    driver === 'lxc'
      ? createLxcDriver({
          ...{ node_id, data_dir, guest_file },
          trial: {
            extra_mounts: Object.entries(all).map(([name, source]) => mount(name, source)),
            init_cmd: init.join(' '),
          },
        })
      : createProcessDriver({
          ...{ node_id, data_dir, guest_file },
          trial: { binds: Object.entries(all).map(([name, source]) => [source, `/tmp/${name}`]), init },
        });
  try {
    const vault = await made.start({ id: 'v', owner: 'o', listen_host: '127.0.0.1', memory_mib: 96 });
    const callers = [1, 2].map(() => connect(vault.port, '127.0.0.1').on('error', () => {}));
    const exit = await vault.exited;
    for (const caller of callers) caller.destroy();
    return exit.log_tail;
  } finally {
    await made.close();
  }
}

/** The same outside: root's own Perl, with what it breaks in namespaces of its own. */
async function outside(script: string, args: string[]): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const listener = (server as unknown as { _handle: { fd: number } })._handle.fd;
  const command = [
    '--mount',
    '--ipc',
    '--uts',
    '--pid',
    '--fork',
    '--kill-child',
    '--mount-proc',
    PERL,
    script,
    ...args,
  ];
  const child = spawn('unshare', command, {
    stdio: ['ignore', 'pipe', 'ignore', listener],
    env: {},
    timeout: CONTROL_MS,
  });
  server.close();
  const callers = [1, 2].map(() => connect(port, '127.0.0.1').on('error', () => {}));
  let text = '';
  for await (const chunk of child.stdout!) text += chunk;
  for (const caller of callers) caller.destroy();
  return text;
}

const lines = (text: string) =>
  new Map(text.split('\n').map((line) => [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1)]));

/** What a line of `escape.pl` says inside a vault: blocked is only what the filter answers, and no secret. */
function heldBack(name: string, said: string | undefined): Outcome {
  if (said === undefined) return opened('the probe did not come so far');
  if (said === '1' || said === '38') return blocked(said === '1' ? 'EPERM' : 'ENOSYS');
  if (name.endsWith('-banner') && said === 'unread') return blocked('nothing was read');
  if (name === 'listener-moved' && said === 'no') return blocked('it stayed where it was');
  return opened(said);
}

/** Outside the kernel must take the call: do it, or complain only of the arguments, which are made up. */
function takenUp(name: string, said: string | undefined): Outcome {
  if (said === undefined) return blocked('the probe did not come so far');
  if (/^(OPEN|READ)$/.test(said)) return opened(said === 'READ' ? 'the host’s secret was read' : 'done');
  if (/^(38|97)$/.test(said) || (name === 'raise-limit' && said === '1'))
    return { ...blocked(said === '1' ? 'root may not either on this machine' : 'not in this kernel'), absent: true };
  return /^(1|13|unread|no)$/.test(said) ? blocked(said) : opened(`taken up, errno ${said}`);
}

/** Names of what `escape.pl` tries, as it prints them, in its order. */
export async function callAttempts(facts: Facts, folder: string, drivers: Native[]): Promise<Attempt[]> {
  // One run of the script makes all of its attempts.
  const port = await secretService();
  const found = new Map<string, Map<string, string>>();
  for (const driver of drivers) found.set(driver, lines(await inVault(driver, folder, ESCAPE, [String(port.number)])));
  const free = lines(await outside(ESCAPE, [String(port.number)]));
  port.close();
  const names = [...free.keys()].filter((name) => !/^(accepted|don|done|)$/.test(name));
  const calls = names.map(
    (name): Attempt => ({
      name: `system call: ${name}`,
      by: FILTER,
      run: async (driver) => heldBack(name, found.get(driver)?.get(name)),
      control: { what: 'Perl as root outside', run: async () => takenUp(name, free.get(name)) },
    }),
  );
  return [...calls, ...steps(facts, folder)];
}

/** What the agent inherited, a setuid program, and a fork bomb. */
function steps(facts: Facts, folder: string): Attempt[] {
  const suid = join(folder, 'setuid-cat');
  copyFileSync('/bin/cat', suid);
  chmodSync(suid, 0o4755);
  const only_root = join(folder, 'only-root');
  writeFileSync(only_root, facts.proof, { mode: 0o600 });
  chownSync(only_root, 0, 0);
  const script = join(folder, 'steps.pl');
  copyFileSync(STEPS, script);
  const judge = (run: () => Promise<string>) => judged(facts.proof, run);
  return [
    {
      name: 'setuid exec',
      by: { lxc: 'no_new_privs, id map', process: 'no_new_privs, id map' },
      run: (driver) =>
        judge(() =>
          inVault(driver as Native, folder, STEPS, ['setuid', '/tmp/setuid-cat', '/tmp/only-root'], {
            'setuid-cat': suid,
            'only-root': only_root,
          }),
        ),
      control: {
        what: 'an ordinary user outside',
        run: () =>
          judge(async () =>
            execFileSync('setpriv', ['--reuid=65534', '--clear-groups', PERL, script, 'setuid', suid, only_root], {
              encoding: 'utf8',
            }),
          ),
      },
    },
    {
      name: 'the times of the host’s /dev/null',
      by: { lxc: 'mounted read-only', process: 'mounted read-only' },
      run: (driver) => judge(() => inVault(driver as Native, folder, STEPS, ['touch'])),
      control: { what: 'Perl outside', run: () => judge(() => outside(STEPS, ['touch'])) },
    },
    {
      name: 'fork bomb',
      by: { lxc: 'filter, limit of processes', process: 'filter, limit of processes' },
      run: (driver) => judge(() => inVault(driver as Native, folder, STEPS, ['bomb'])),
      control: { what: 'Perl outside', run: () => judge(() => outside(STEPS, ['bomb'])) },
    },
    {
      name: 'a descriptor that the agent inherited',
      by: { lxc: 'closed at the agent’s start', process: 'closed at the agent’s start' },
      run: (driver) => judge(() => leaky(driver as Native, facts, folder, true)),
      control: {
        what: 'the agent without that care',
        run: () => judge(() => leaky('process', facts, folder, false)),
      },
    },
  ];
}

/** Above 15, where Node's own care for what it inherited ends at the first gap. */
const LEAKED = 40;

/** An agent that inherited a descriptor of the secret; `care`: it closes such when it starts, as agents do. */
async function leaky(driver: Native, facts: Facts, folder: string, care: boolean): Promise<string> {
  const leak = openSync(facts.secret_file, 'r');
  const gap = Array.from({ length: LEAKED - 3 }, () => 'ignore' as const);
  const args = [...NO_WARNINGS, LEAKY, driver, folder, care ? 'care' : ''];
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'ignore', ...gap, leak],
    timeout: CONTROL_MS,
  });
  closeSync(leak);
  let text = '';
  for await (const chunk of child.stdout!) text += chunk;
  return text;
}

/** A service on the host's loopback with a banner that the scripts know. */
async function secretService(): Promise<{ number: number; close(): void }> {
  const service = createServer((socket) => socket.on('error', () => {}).end('SECRET of the host\n'));
  await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
  return { number: (service.address() as AddressInfo).port, close: () => service.close() };
}
