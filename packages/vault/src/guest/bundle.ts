/**
 * Makes the guest's code into single files: one for Node (lxc, process), scripts for QuickJS. Node's can be run
 * as an ES module and as a plain script, because only a script's compiled code can be kept (`drivers/lxc/code-cache.ts`).
 * Built once per process, from this checkout; published packages carry the results instead.
 */
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Node's built-in modules come by this name whether a script runs as a module or as a plain one. */
const REQUIRE = 'var require = process.getBuiltinModule;';

/**
 * How Node's guest begins: what is withheld from a worker without the grant (`withheld-node.ts`) it goes on using itself.
 */
export const NODE_GUEST_HEAD = [
  REQUIRE,
  'var { Date } = globalThis;',
  // Node's own would have it load all of its perf_hooks, 2 ms in each vault.
  'var performance = ((hrtime) => ({ now() { const [s, ns] = hrtime(); return s * 1e3 + ns / 1e6; } }))(process.hrtime);',
  'var Math = Object.defineProperties({}, Object.getOwnPropertyDescriptors(globalThis.Math));',
].join('\n');

/** What the VM's guest goes on using so: our own clock, with which deadlines are reckoned. */
const VM_OWN = 'Date,performance';

/** What a quickjs vault's host is given, from the agent. */
export interface Scripts {
  guest: string;
  platform: string;
  forms: string;
  crypto: string;
  streams: string;
  console: string;
  english: string;
  thread: string;
}

interface Around {
  banner: string;
  footer?: string;
}

/**
 * How long esbuild's process waits for more to build. Left alone it would stay as long as ours, with 10 to 20 MiB, and be
 * asked each second whether it is there.
 */
const LINGERS_MS = 2_000;
/** Builds under way. */
let builds = 0;
/** Imported late: only agents build guests, and it costs tens of milliseconds to load. */
let esbuild: typeof import('esbuild') | undefined;
/** How many of esbuild's processes have died while they built. */
let deaths = 0;

/** The script. Where esbuild's process was killed meanwhile another one builds it. */
async function build(...what: Parameters<typeof buildOnce>): Promise<string> {
  const before = deaths;
  try {
    return await buildOnce(...what);
  } catch (error) {
    // What cannot be built says so in `errors`.
    if ('errors' in (error as object)) throw error;
    // The first of those that died with it lets go of it, so that the next gets a process of its own.
    if (deaths === before) {
      deaths++;
      esbuild?.stop();
    }
    return buildOnce(...what);
  }
}

async function buildOnce(entry: string, platform: 'node' | 'neutral', around?: Around): Promise<string> {
  esbuild ??= await import('esbuild');
  builds++;
  const { stop } = esbuild;
  const building = esbuild.build({
    entryPoints: [fileURLToPath(new URL(entry, import.meta.url))],
    bundle: true,
    write: false,
    format: 'iife',
    platform,
    target: platform === 'node' ? 'node26' : 'es2022',
    external: platform === 'neutral' ? ['wrapped.mjs'] : [],
    mainFields: ['module', 'main'],
    // Node's keeps its names: putting them back (`keepNames`) costs more at each start than reading them.
    ...(platform === 'node' ? { minifyWhitespace: true, minifySyntax: true } : { minify: true, keepNames: true }),
    // A global that is asked for by its full name is the guest's own too.
    define: { 'globalThis.performance': 'performance' },
    banner: { js: around?.banner ?? '' },
    footer: { js: around?.footer ?? '' },
    legalComments: 'none',
    logLevel: 'silent',
  });
  const result = await building.finally(() => {
    builds--;
    setTimeout(() => void (builds === 0 && stop()), LINGERS_MS).unref();
  });
  return result.outputFiles[0]!.text;
}

/**
 * The script that every QuickJS vault runs first, those that it loads when a worker touches what is in them, and the
 * one that the vaults' threads run: as a script a thread takes a third of the time and the memory that it takes from
 * source.
 */
export async function buildVmScripts(): Promise<Scripts> {
  const [guest, platform, forms, crypto, streams, console, english, thread] = await Promise.all([
    build('./vm-entry.ts', 'neutral', { banner: `((${VM_OWN})=>{`, footer: `})(${VM_OWN})` }),
    build('./vm-platform.ts', 'neutral'),
    build('./vm-forms.ts', 'neutral'),
    build('./vm-crypto.ts', 'neutral'),
    build('./vm-streams.ts', 'neutral'),
    build('./vm-console.ts', 'neutral'),
    build('./vm-english.ts', 'neutral'),
    build('../drivers/quickjs/thread.ts', 'node', { banner: REQUIRE }),
  ]);
  return { guest, platform, forms, crypto, streams, console, english, thread };
}

/** Writes what runs inside lxc and process vaults to `file`, whole or not at all. */
export async function writeNodeGuest(file: string): Promise<void> {
  const text = await build('./main-node.ts', 'node', { banner: NODE_GUEST_HEAD });
  await mkdir(dirname(file), { recursive: true });
  // One name for all: what a killed agent left is written over.
  const temporary = `${file}.tmp`;
  await writeFile(temporary, text, { mode: 0o644 });
  await rename(temporary, file);
}
