/**
 * `npm test`: installs what the tests need of the system, where it may; checks style and types; runs all tests.
 * Arguments are names to look for in the paths of test files: `npm test -- ghost lxc`.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, globSync } from 'node:fs';

/** What tests need beyond Node: a command to look for, or a file's absolute path, and Debian's package for it. */
const NEEDED = [
  { command: 'lxc-start', packages: ['lxc'] },
  { command: 'bwrap', packages: ['bubblewrap'] },
  { command: 'chromium', packages: ['chromium'] },
  { command: 'python3', packages: ['python3'] },
  { command: 'ngircd', packages: ['ngircd'] },
  { command: 'ip', packages: ['iproute2'] },
  { command: '/usr/lib/python3/dist-packages/fastapi/__init__.py', packages: ['python3-fastapi'] },
  { command: '/usr/lib/python3/dist-packages/multipart/__init__.py', packages: ['python3-multipart'] },
];

/** Test files at once. They wait for processes more than they compute. */
const CONCURRENCY = 2;
/** For one test file, on a busy machine. */
const FILE_TIMEOUT_MS = 400_000;

const found = (command: string) =>
  command.startsWith('/')
    ? existsSync(command)
    : (process.env.PATH ?? '')
        .split(':')
        .concat('/usr/sbin', '/usr/bin')
        .some((folder) => existsSync(`${folder}/${command}`));

function run(command: string, args: string[], env: Record<string, string> = {}): number {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit', env: { ...process.env, ...env } });
  if (error) console.error(`${command}: ${error.message}`);
  return status ?? 1;
}

function install(): void {
  const missing = NEEDED.filter(({ command }) => !found(command)).flatMap(({ packages }) => packages);
  if (missing.length === 0) return;
  const may = process.getuid?.() === 0 && existsSync('/etc/debian_version') && process.env.HAUKI_NO_INSTALL !== '1';
  if (!may) {
    console.log(`Not installed, and not installed now: ${missing.join(', ')}. Tests that need them are skipped.`);
    return;
  }
  console.log(`Installing what tests need: apt-get install --no-install-recommends ${missing.join(' ')}`);
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const failed =
    run('apt-get', ['update', '-qq'], env) ||
    run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing], env);
  if (failed) console.error('The installation failed; tests that need it will say so.');
}

install();
const wanted = process.argv.slice(2);
if (wanted.length === 0) {
  // Biome colours each character by itself where it takes a log for a terminal.
  const colors = process.stdout.isTTY ? [] : ['--colors=off'];
  for (const [what, command, args] of [
    ['style', 'biome', ['ci', '--error-on-warnings', ...colors, '.']],
    ['types', 'tsc', ['-p', '.']],
  ] as const) {
    console.log(`Checking ${what}…`);
    if (run(command, [...args]) !== 0) process.exit(1);
  }
}
const files = globSync(['packages/*/test/**/*.test.ts', 'apps/*/test/**/*.test.ts', 'test/**/*.test.ts'])
  .filter((file) => wanted.length === 0 || wanted.some((name) => file.includes(name)))
  .sort();
if (files.length === 0) {
  console.error(`No test file matches ${wanted.join(', ')}`);
  process.exit(1);
}
process.exit(
  run(process.execPath, [
    '--disable-warning=ExperimentalWarning',
    '--test',
    `--test-concurrency=${CONCURRENCY}`,
    `--test-timeout=${FILE_TIMEOUT_MS}`,
    ...files,
  ]),
);
