/** A peer: bubblewrap and Node started by hand, with nothing of ours. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { realpathSync } from 'node:fs';
import { dirname } from 'node:path';

const SCRIPT = `process.stdout.write('ready'); setInterval(() => {}, 1 << 30);`;

/** Starts one; resolves when Node inside has spoken. */
export async function startBwrap(): Promise<ChildProcess> {
  const folder = dirname(realpathSync(process.execPath));
  const args = ['--unshare-all', '--die-with-parent', '--ro-bind', '/usr', '/usr', '--ro-bind', folder, '/node'];
  for (const name of ['bin', 'lib', 'lib64']) args.push('--symlink', `usr/${name}`, `/${name}`);
  args.push('--proc', '/proc', '--dev', '/dev', '--tmpfs', '/tmp', '--', '/node/node', '-e', SCRIPT);
  const child = spawn('bwrap', args, { stdio: ['ignore', 'pipe', 'ignore'] });
  await Promise.race([
    once(child.stdout!, 'data'),
    once(child, 'exit').then(([code]) => Promise.reject(new Error(`bwrap ended with ${code}`))),
  ]);
  return child;
}

/** Kills it; resolves when it is gone. */
export async function stopBwrap(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}
