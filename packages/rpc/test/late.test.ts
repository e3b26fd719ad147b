/**
 * Sessions as pages have them, whose rest is loaded when it is needed: the same tests as everywhere, in processes that
 * choose those modules (`--conditions=hauki-late`) and to which the rest comes slowly.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const TIMEOUT_MS = 55_000;
/** Loads the rest of sessions a while after it was asked for, so that what comes meanwhile has to be held back. */
const SLOWLY = `
  export async function load(url, context, next) {
    if (url.endsWith('/src/session-rest.ts')) await new Promise((go) => setTimeout(go, 100));
    return next(url, context);
  }`;
const HOOKS = `
  import { register } from 'node:module';
  register(${JSON.stringify(`data:text/javascript,${encodeURIComponent(SLOWLY)}`)});`;

const folder = fileURLToPath(new URL('.', import.meta.url));

/** Runs a test file in a process of its own. Gives how many of its tests passed; rejects when one failed. */
async function passedOf(file: string): Promise<number> {
  const flags = [
    '--conditions=hauki-late',
    '--no-warnings',
    `--import=data:text/javascript,${encodeURIComponent(HOOKS)}`,
  ];
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const run = promisify(execFile)(process.execPath, [...flags, '--test-reporter=tap', `${folder}${file}.test.ts`], {
    timeout: TIMEOUT_MS,
    maxBuffer: 64 * 1024 * 1024,
    env: { ...env, FAULT_SEED: '7' },
  });
  const { stdout } = await run.catch((error) => {
    throw new Error(`${file}: ${error.message}\n${(error.stdout as string).match(/^ *not ok.*$/gm)?.join('\n')}`);
  });
  return Number(/^# pass (\d+)$/m.exec(stdout)?.[1]);
}

describe('what is loaded late keeps all that always holds:', () => {
  for (const file of ['session', 'references', 'streams', 'pipelining', 'third-party', 'cancellation', 'faults'])
    it(file, async () => {
      assert.ok((await passedOf(file)) > 5);
    });
});
