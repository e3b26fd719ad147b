/**
 * Makes the guest's code into single files: one for Node (lxc, process), a script for the QuickJS VM. Node's can be run
 * as an ES module and as a plain script, because only a script's compiled code can be kept (`drivers/lxc/code-cache.ts`).
 * Built once per process, from this checkout; published packages carry the results instead.
 */
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

/** How Node's guest begins. Built-in modules come by this name whether it runs as a module or as a script. */
export const NODE_GUEST_HEAD = 'var require = process.getBuiltinModule;';

async function build(entry: string, platform: 'node' | 'neutral'): Promise<string> {
  // Imported late: only agents build guests, and esbuild costs tens of milliseconds to load.
  const { build: esbuild } = await import('esbuild');
  const result = await esbuild({
    entryPoints: [fileURLToPath(new URL(entry, import.meta.url))],
    bundle: true,
    write: false,
    format: 'iife',
    platform,
    target: platform === 'node' ? 'node26' : 'es2022',
    external: platform === 'neutral' ? ['worker.mjs'] : [],
    mainFields: ['module', 'main'],
    // Node's keeps its names: putting them back (`keepNames`) costs more at each start than reading them.
    ...(platform === 'node'
      ? { minifyWhitespace: true, minifySyntax: true, banner: { js: NODE_GUEST_HEAD } }
      : { minify: true, keepNames: true }),
    legalComments: 'none',
    logLevel: 'silent',
  });
  return result.outputFiles[0]!.text;
}

/** The script that every QuickJS vault runs first. */
export const buildVmGuest = () => build('./vm-entry.ts', 'neutral');

/** Writes what runs inside lxc and process vaults to `file`, whole or not at all. */
export async function writeNodeGuest(file: string): Promise<void> {
  const text = await build('./main-node.ts', 'node');
  await mkdir(dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}.tmp`;
  await writeFile(temporary, text, { mode: 0o644 });
  await rename(temporary, file);
}
