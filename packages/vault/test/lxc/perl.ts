/** Runs a Perl script as a vault's first process: the host's perl, mounted in for the test only. */
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Trial } from '../../src/drivers/lxc/config.ts';

const LOADER = '/lib64/ld-linux-x86-64.so.2';

const IN_CI = process.env.CI === 'true';

/** Why there can be no raw calls here, or false. */
export const no_perl: string | false =
  process.arch !== 'x64'
    ? 'raw system calls are numbered for x64'
    : !IN_CI && !existsSync('/usr/bin/perl') && '/usr/bin/perl is missing';

/** The script where the vault's mapped root may read it: this checkout may lie in a folder of somebody's own. */
function readable(script: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-perl-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  chmodSync(folder, 0o755);
  const copy = join(folder, 'script.pl');
  copyFileSync(fileURLToPath(new URL(script, import.meta.url)), copy);
  chmodSync(copy, 0o644);
  return copy;
}

/** Perl and its libraries are mounted below /tmp, where mount points can be made. */
export function perlTrial(script: string, args: (string | number)[] = [], without_seccomp = false): Trial {
  const libraries = execFileSync('/usr/bin/ldd', ['/usr/bin/perl'], { encoding: 'utf8' })
    .split('\n')
    .flatMap((line) => /(\/\S+) \(0x/.exec(line)?.[1] ?? [])
    .filter((path) => path !== LOADER);
  const mount = (source: string, name: string) => `${source} tmp/${name} none bind,ro,create=file 0 0`;
  return {
    extra_mounts: [
      mount('/usr/bin/perl', 'perl'),
      mount(readable(script), 'probe.pl'),
      ...libraries.map((path) => mount(path, path.slice(path.lastIndexOf('/') + 1))),
    ],
    init_cmd: [LOADER, '--library-path', '/tmp', '/tmp/perl', '/tmp/probe.pl', ...args].join(' '),
    without_seccomp,
  };
}
