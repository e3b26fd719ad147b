/**
 * Makes the guest's code into single files: an ES module for the Node inside an lxc vault, a script for the QuickJS VM.
 * Built once per process, from this checkout; published packages carry the results instead.
 */
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

async function build(entry: string, format: 'esm' | 'iife', platform: 'node' | 'neutral'): Promise<string> {
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
  });
  return result.outputFiles[0]!.text;
}

/** The script that every QuickJS vault runs first. */
export const buildVmGuest = () => build('./vm-entry.ts', 'iife', 'neutral');

/** Writes the module that runs inside lxc vaults to `file`, whole or not at all. */
export async function writeNodeGuest(file: string): Promise<void> {
  const text = await build('./main-node.ts', 'esm', 'node');
  await mkdir(dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}.tmp`;
  await writeFile(temporary, text, { mode: 0o644 });
  await rename(temporary, file);
}
