/** Runs a Perl script as a vault's first process: the host's perl, mounted in for the test only. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Trial } from '../../src/drivers/lxc/config.ts';

const LOADER = '/lib64/ld-linux-x86-64.so.2';

const IN_CI = process.env.CI === 'true';

/** Why there can be no raw calls here, or false. */
export const no_perl: string | false =
  process.arch !== 'x64'
    ? 'raw system calls are numbered for x64'
    : !IN_CI && !existsSync('/usr/bin/perl') && '/usr/bin/perl is missing';

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
      mount(fileURLToPath(new URL(script, import.meta.url)), 'probe.pl'),
      ...libraries.map((path) => mount(path, path.slice(path.lastIndexOf('/') + 1))),
    ],
    init_cmd: [LOADER, '--library-path', '/tmp', '/tmp/perl', '/tmp/probe.pl', ...args].join(' '),
    without_seccomp,
  };
}
