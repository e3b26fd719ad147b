/**
 * Makes the guest's code into single files: an ES module for the Node inside an lxc vault, two scripts for the QuickJS
 * VM. Built once per process, from this checkout; published packages carry the results instead.
 */
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

type Format = 'esm' | 'iife' | 'cjs';

async function build(entry: string, format: Format, platform: 'node' | 'neutral', around?: [string, string]) {
  // Imported late: only agents build guests, and esbuild costs tens of milliseconds to load.
  const { build: esbuild } = await import('esbuild');
  const result = await esbuild({
    entryPoints: [fileURLToPath(new URL(entry, import.meta.url))],
    bundle: true,
    write: false,
    format,
    platform,
    target: platform === 'node' ? 'node26' : 'es2022',
    external: platform === 'neutral' ? ['worker.mjs'] : [],
    mainFields: ['module', 'main'],
    minify: true,
    keepNames: true,
    legalComments: 'none',
    logLevel: 'silent',
    ...(around ? { banner: { js: around[0] }, footer: { js: around[1] } } : {}),
    ...(platform === 'neutral' ? { define: { 'globalThis.performance': 'performance' } } : {}),
  });
  return result.outputFiles[0]!.text;
}

/** What the guest's runtime goes on using when the worker finds something else under these names, or nothing. */
const OWN = 'Date,performance';

/**
 * The script that every QuickJS vault runs first, the one that it loads when a worker touches what is in it, and the
 * one that the vaults' threads run: as a script a thread takes a third of the time and of the memory that it takes from source.
 */
export async function buildVmScripts(): Promise<{ guest: string; platform: string; thread: string }> {
  const [guest, platform, thread] = await Promise.all([
    build('./vm-entry.ts', 'iife', 'neutral', [`((${OWN})=>{`, `})(${OWN})`]),
    build('./vm-platform.ts', 'iife', 'neutral'),
    build('../drivers/quickjs/thread.ts', 'cjs', 'node'),
  ]);
  return { guest, platform, thread };
}

/** Writes the module that runs inside lxc vaults to `file`, whole or not at all. */
export async function writeNodeGuest(file: string): Promise<void> {
  const text = await build('./main-node.ts', 'esm', 'node');
  await mkdir(dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}.tmp`;
  await writeFile(temporary, text, { mode: 0o644 });
  await rename(temporary, file);
}
