/** The peer: `lxc-execute` and Node started by hand, with a plain configuration and nothing of ours. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const READY = 'ready';
const SCRIPT = `process.stdout.write('${READY}'); setInterval(() => {}, 1 << 30);`;

export interface Bare {
  /** Starts one and resolves when Node inside has spoken. */
  start(name: string): Promise<ChildProcess>;
  /** Kills it and resolves when it is gone. */
  stop(name: string, child: ChildProcess): Promise<void>;
  close(): void;
}

export function bareLxc(): Bare {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-bare-'));
  chmodSync(folder, 0o755);
  const root = join(folder, 'root');
  for (const name of ['usr', 'proc', 'sys', 'dev', 'tmp', 'node', 'etc'])
    mkdirSync(join(root, name), { recursive: true });
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) symlinkSync(`usr/${name}`, join(root, name));
  const node = realpathSync(process.execPath);
  const config = join(folder, 'config');
  writeFileSync(
    config,
    `lxc.rootfs.path = dir:${root}
lxc.mount.entry = /usr usr none bind,ro 0 0
lxc.mount.entry = ${join(node, '..')} node none bind,ro 0 0
lxc.mount.auto = proc:mixed
lxc.autodev = 1
lxc.console.path = none
lxc.net.0.type = empty
`,
  );
  return {
    async start(name) {
      const child = spawn('lxc-execute', ['-n', name, '-P', folder, '-f', config, '--', '/node/node', '-e', SCRIPT], {
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      await Promise.race([
        once(child.stdout!, 'data'),
        once(child, 'exit').then(([code]) => Promise.reject(new Error(`lxc-execute ended with ${code}`))),
      ]);
      return child;
    },
    async stop(name, child) {
      const ended = once(child, 'exit');
      spawn('lxc-stop', ['-k', '-n', name, '-P', folder], { stdio: 'ignore' });
      await ended;
    },
    close: () => rmSync(folder, { recursive: true, force: true }),
  };
}
