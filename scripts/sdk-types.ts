/**
 * Writes the SDK's types as declarations, for projects outside: a compiler checks what it imports as source by the
 * project's own rules, and ours (imports that name the `.ts` file, first of all) are hardly theirs. `npm ci` runs this;
 * here the sources themselves are read (`customConditions` in `tsconfig.json`). Without the compiler it does nothing.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '..');
const COMPILER = join(ROOT, 'node_modules/typescript/bin/tsc');
/** The SDK, and what of ours it imports. */
const PACKAGES = ['protocol', 'rpc', 'mesh'];

function write(): number {
  // In the checkout, so that renaming is enough.
  mkdirSync(join(ROOT, '.cache'), { recursive: true });
  const made = mkdtempSync(join(ROOT, '.cache/types-'));
  try {
    const config = {
      extends: join(ROOT, 'tsconfig.json'),
      compilerOptions: {
        ...{ noEmit: false, declaration: true, emitDeclarationOnly: true },
        ...{ rootDir: join(ROOT, 'packages'), outDir: made, typeRoots: [join(ROOT, 'node_modules/@types')] },
      },
      include: PACKAGES.map((name) => join(ROOT, 'packages', name, 'src')),
    };
    writeFileSync(join(made, 'tsconfig.json'), JSON.stringify(config));
    const { status } = spawnSync(process.execPath, [COMPILER, '-p', made], { stdio: 'inherit' });
    if (status !== 0) return status ?? 1;
    for (const name of PACKAGES) {
      const types = join(ROOT, 'packages', name, 'types');
      rmSync(types, { recursive: true, force: true });
      renameSync(join(made, name, 'src'), types);
    }
    return 0;
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
}

process.exitCode = existsSync(COMPILER) ? write() : 0;
