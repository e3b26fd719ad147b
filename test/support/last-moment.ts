/** Programs that end themselves with SIGKILL at one certain moment, which a kill from outside would hit by chance alone. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ownerOf } from '../../packages/vault/src/drivers/owner.ts';

/** How long such a program may take to get there. */
const MOST_MS = 120_000;

const HEAD = `
  import fs from 'node:fs';
  import fsp from 'node:fs/promises';
  import { syncBuiltinESMExports } from 'node:module';
  const die = () => process.kill(process.pid, 'SIGKILL');
  /** Dies when, in place of, or after such a call of node:fs/promises, whoever makes it. */
  const dieAt = (name, when, after = false) => {
    const real = fsp[name];
    fsp[name] = async (...args) => {
      if (!when(...args)) return real(...args);
      if (after) await real(...args);
      die();
      return new Promise(() => {});
    };
    syncBuiltinESMExports();
  };
  setTimeout(() => process.exit(1), ${MOST_MS}).unref();
`;

/**
 * Runs a program until it has killed itself (`die()`, `dieAt(function, when, after?)`; fs and fsp are there), with what it
 * imports. Its file is made in `folder`. Gives the name that the dead process had as an owner.
 */
export async function killedAt(
  folder: string,
  imports: Record<string, string>,
  program: string,
  env: Record<string, string> = {},
): Promise<string> {
  const file = join(folder, 'last-moment.ts');
  const lines = Object.entries(imports).map(([what, from]) => `import ${what} from ${JSON.stringify(from)};`);
  writeFileSync(file, `${HEAD}${lines.join('\n')}\n${program}`);
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', file], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...env },
  });
  const owner = ownerOf(child.pid!);
  assert.deepEqual(await once(child, 'exit'), [null, 'SIGKILL'], 'it did not come to that moment');
  return owner;
}
