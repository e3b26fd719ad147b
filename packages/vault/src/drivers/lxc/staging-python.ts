/**
 * Stages the read-only root that Python vaults share, beside Node's: the system's interpreter, its standard library with
 * what its extension modules link, time zones, and the guest. No pip, no site-packages, nothing else of the host.
 *
 * Like Node's it is made in a temporary folder and renamed into place, and never changes afterwards. It is named by the
 * identity of the library's files (size, times; a change time cannot be set) and by the guest's content. Compiled
 * modules are marked as needing no check, so that a start looks at no source. Where the host has FastAPI it comes along,
 * with what it imports and nothing more (`python-frameworks.ts`).
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import {
  chmod,
  copyFile,
  link,
  mkdir,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { pythonGuestFiles } from '../../guest/python/files.ts';
import { boundTo } from '../bound.ts';
import { findFrameworks } from './python-frameworks.ts';
import { assertTraversable, DEVICES, libraries, making, POLICY_FILE, SMALL_FILES, type Staged } from './staging.ts';

export interface PythonSet {
  /** The system's own interpreter, never one of a user's version manager. */
  interpreter: string;
  /** Further folders: from the host, to where inside. What they bring is found there by `main.py`. */
  folders: [string, string][];
  /** Packages of the host's that come along where they are installed, with what they import; FastAPI when left out. */
  frameworks?: string[];
}

export const SYSTEM_PYTHON: PythonSet = { interpreter: '/usr/bin/python3', folders: [] };

/** Written anew whenever a library of the machine changes. */
const LOADER_CACHE = '/etc/ld.so.cache';
const PYTHON_INSIDE = '/usr/bin/python3';
const GUEST_INSIDE = '/hauki/python';
const PACKAGES_INSIDE = '/usr/lib/python3/dist-packages';
const LEAST_VERSION = [3, 9];
/** Of the standard library: tests, installers, desktop things, and what the host's administrator put there. */
const LEFT_OUT = new Set(
  'test tests idlelib tkinter turtledemo turtle.py lib2to3 ensurepip venv pydoc_data site-packages dist-packages sitecustomize.py usercustomize.py'.split(
    ' ',
  ),
);
/** Extension modules that nobody needs in a vault; some would bring libraries of terminals and databases along. */
const NOT_EXTENSIONS = /^(?:_test|_xx|xx|_ctypes_test|readline|_curses|_dbm|_gdbm|nis|ossaudiodev|_tkinter)/;
/** A header of a compiled module: its flags say that it is never checked against its source (PEP 552). */
const PYC_HEADER_BYTES = 16;
const UNCHECKED = 1;
const COPIED_AT_ONCE = 32;
/** What `zoneinfo` reads; without its copies in other forms. */
const TIME_ZONES = '/usr/share/zoneinfo';
const NOT_ZONES = new Set(['posix', 'right', 'localtime', 'posixrules']);

/** What starts a Python guest, in a root that has one. */
export const PYTHON_COMMAND = [PYTHON_INSIDE, '-I', '-S', '-B', `${GUEST_INSIDE}/main.py`];

/** The same of a process whose own root should have been staged with it. */
export async function containedPythonObstacle(): Promise<string | undefined> {
  return (
    (await pythonObstacle()) ??
    (existsSync(`${GUEST_INSIDE}/main.py`) ? undefined : 'this sandbox was made without it; see the log of `swarm up`')
  );
}

/** Why Python workers cannot run here, or undefined. */
export async function pythonObstacle({ interpreter }: PythonSet = SYSTEM_PYTHON): Promise<string | undefined> {
  if (!existsSync(interpreter)) return `${interpreter} is missing; install it: apt-get install python3`;
  try {
    const { version } = await layoutOf(interpreter);
    const [major = 0, minor = 0] = version.split('.').map(Number);
    if (major === LEAST_VERSION[0] && minor >= LEAST_VERSION[1]!) return undefined;
    return `${interpreter} is Python ${version}; it takes ${LEAST_VERSION.join('.')} or later`;
  } catch (error) {
    return `${interpreter} cannot be run: ${(error as Error).message}`;
  }
}

/**
 * The policy for a guest that has no socket of the host's: nothing about listening and accepting. Event loops wake
 * themselves through a pair of sockets that leads nowhere else: it can be neither connected nor bound.
 */
export function pythonPolicy(policy: string): string {
  const lines = policy
    .split('\n')
    .filter((line) => !/^(?:listen|accept4?|getpeername|shutdown|setsockopt)\b/.test(line));
  const added = ['socketpair allow [0,1,SCMP_CMP_EQ]', 'sendto allow [3,0,SCMP_CMP_EQ][4,0,SCMP_CMP_EQ]', 'recvfrom'];
  return `${lines.join('\n').trimEnd()}\n${added.join('\n')}\n`;
}

/** Makes the root unless it is there; returns where it is, and what to run in it. */
export async function stagePython(stage_dir: string, set: PythonSet = SYSTEM_PYTHON): Promise<Staged> {
  await mkdir(stage_dir, { recursive: true, mode: 0o755 });
  if (process.getuid?.() === 0) assertTraversable(stage_dir);
  const interpreter = await realpath(set.interpreter);
  const { stdlib, suffix, sites } = await layoutOf(interpreter);
  const files = new Map<string, string>([[PYTHON_INSIDE, interpreter]]);
  await collect(stdlib, stdlib, files);
  for (const [name, path] of Object.entries(await findFrameworks(interpreter, sites, stage_dir, set.frameworks)))
    if ((await stat(path)).isDirectory()) await collect(path, join(PACKAGES_INSIDE, name), files);
    else await collectModule(path, suffix, files);
  for (const [from, inside] of set.folders) await collect(from, inside, files);
  if (existsSync(TIME_ZONES)) await collectZones(TIME_ZONES, files);
  const guest = await pythonGuestFiles();
  const policy = pythonPolicy(await readFile(POLICY_FILE, 'utf8'));
  const library = createHash('sha256').update('python library 2');
  // What the extension modules link is found by the loader; asking it takes a while, so its cache stands for it.
  const watched = existsSync(LOADER_CACHE) ? [...files, ['', LOADER_CACHE] as const] : [...files];
  for (const [inside, source] of watched.sort()) {
    const { size, mtimeNs, ctimeNs } = statSync(source, { bigint: true });
    library.update(`${inside}\n${size} ${mtimeNs} ${ctimeNs}\n`);
  }
  const store = join(stage_dir, `python-library-${library.digest('hex').slice(0, 24)}`);
  const digest = createHash('sha256').update(store).update(policy);
  for (const [name, content] of guest) digest.update(name).update(content);
  const home = join(stage_dir, `python-${digest.digest('hex').slice(0, 24)}`);
  const staged: Staged = {
    rootfs: join(home, 'rootfs'),
    seccomp_profile: join(home, 'seccomp.policy'),
    init: PYTHON_COMMAND.join(' '),
    gate_outside: true,
  };
  if (existsSync(home)) return staged;

  // The library is kept once, and linked into the root of each guest.
  await makeWhole(store, async (root) => {
    const linking = [...files].filter(([inside]) => inside.endsWith('.so')).map(([, source]) => source);
    for (const path of await libraries(interpreter, ...linking)) files.set(path, await realpath(path));
    for (const folder of new Set([...files.keys()].map(dirname))) await mkdir(join(root, folder), { recursive: true });
    const copy = async ([inside, source]: [string, string]) => {
      const target = join(root, inside);
      if (inside.endsWith('.pyc')) return writeFile(target, neverChecked(await readFile(source)), { mode: 0o644 });
      await copyFile(source, target);
      await chmod(target, inside === PYTHON_INSIDE || inside.includes('.so') ? 0o755 : 0o644);
    };
    const all = [...files];
    while (all.length > 0) await Promise.all(all.splice(0, COPIED_AT_ONCE).map(copy));
  });
  await makeWhole(home, async (temporary) => {
    const root = join(temporary, 'rootfs');
    for (const dir of ['proc', 'dev', 'tmp', 'etc', 'root', GUEST_INSIDE])
      await mkdir(join(root, dir), { recursive: true });
    for (const device of DEVICES) await writeFile(join(root, 'dev', device), '');
    for (const [path, text] of Object.entries(SMALL_FILES)) await writeFile(join(root, path), text);
    await linkAll(store, root);
    for (const [name, content] of guest) await writeFile(join(root, GUEST_INSIDE, name), content);
    await compileGuest(interpreter, root, [...guest.keys()], suffix);
    await writeFile(join(temporary, 'seccomp.policy'), policy);
  });
  return staged;
}

/** Links the files of one folder into another. */
async function linkAll(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await linkAll(source, target);
    else await link(source, target);
  }
}

/** Makes a folder whole or not at all; another agent may be faster, with the same content. */
async function makeWhole(home: string, make: (temporary: string) => Promise<void>): Promise<void> {
  if (existsSync(home)) return;
  const temporary = making(dirname(home));
  try {
    await mkdir(temporary);
    await make(temporary);
    await openFolders(temporary);
    await rename(temporary, home);
  } catch (error) {
    if (!existsSync(home)) throw error;
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** Where an interpreter has its library, and how it names compiled modules. */
async function layoutOf(
  interpreter: string,
): Promise<{ version: string; stdlib: string; suffix: string; sites: string[] }> {
  const program =
    'import sys, os, json, site; print(json.dumps({"version": "%d.%d" % sys.version_info[:2], "stdlib": os.path.dirname(os.__file__), "suffix": sys.implementation.cache_tag + ".pyc", "sites": [s for s in site.getsitepackages() if os.path.isdir(s)]}))';
  const { stdout } = await promisify(execFile)(interpreter, ['-I', '-S', '-c', program], { env: {}, timeout: 10_000 });
  return JSON.parse(stdout);
}

/** Files below a folder, by where they are inside. Links are followed: what they lead to is copied. */
async function collect(from: string, inside: string, files: Map<string, string>): Promise<void> {
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const { name } = entry;
    const source = join(from, name);
    if (LEFT_OUT.has(name) || name.startsWith('config-')) continue;
    if (basename(from) === 'lib-dynload' && NOT_EXTENSIONS.test(name)) continue;
    if (entry.isDirectory()) await collect(source, join(inside, name), files);
    // Modules, compiled modules, extensions, and the few data files of packages.
    else if (/\.(?:py|so|txt|json|toml)$|\.so\./.test(name) || /^[^.]*\.[a-z]+-\d+\.pyc$/.test(name))
      files.set(join(inside, name), entry.isSymbolicLink() ? await realpath(source) : source);
  }
}

/** The time zones of the host, which lie inside where they do outside. */
async function collectZones(folder: string, files: Map<string, string>): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (NOT_ZONES.has(entry.name)) continue;
    if (entry.isDirectory()) await collectZones(path, files);
    else if (existsSync(path)) files.set(path, await realpath(path));
  }
}

/** A module that is one file, and its compiled form where there is one. */
async function collectModule(path: string, suffix: string, files: Map<string, string>): Promise<void> {
  const name = basename(path);
  const compiled = join('__pycache__', `${name.slice(0, -'.py'.length)}.${suffix}`);
  files.set(join(PACKAGES_INSIDE, name), await realpath(path));
  if (existsSync(join(dirname(path), compiled)))
    files.set(join(PACKAGES_INSIDE, compiled), join(dirname(path), compiled));
}

/** A compiled module keeps its code and needs no source to be compared with. */
function neverChecked(content: Buffer): Buffer {
  if (content.length >= PYC_HEADER_BYTES) content.writeUInt32LE(UNCHECKED, 4);
  return content;
}

/** Compiles the guest as if it lay where it will be. */
async function compileGuest(interpreter: string, root: string, names: string[], suffix: string): Promise<void> {
  const folder = join(root, GUEST_INSIDE);
  const program =
    'import sys, py_compile\nfor n in sys.argv[3:]: py_compile.compile(f"{sys.argv[1]}/{n}", f"{sys.argv[1]}/__pycache__/{n[:-3]}.{sys.argv[2]}", f"/hauki/python/{n}", True, -1, py_compile.PycInvalidationMode.UNCHECKED_HASH)';
  // Left alone it would make folders anew that a reaper has just removed.
  const [command, ...first] = boundTo(process.pid);
  const args = ['-I', '-S', '-B', '-c', program, folder, suffix, ...names];
  await promisify(execFile)(command!, [...first, interpreter, ...args], {
    env: {},
    timeout: 60_000,
  });
}

/** The vault's own root is nobody here: it must be able to enter every folder. */
async function openFolders(dir: string): Promise<void> {
  await chmod(dir, 0o755);
  for (const entry of await readdir(dir, { withFileTypes: true }))
    if (entry.isDirectory()) await openFolders(join(dir, entry.name));
    else await chmod(join(dir, entry.name), ((await stat(join(dir, entry.name))).mode & 0o755) | 0o444);
}
