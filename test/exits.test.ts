/** A script waits for what it asked for, and ends by itself when it waits for nothing more. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { useMesh } from './support/mesh.ts';

const SDK = fileURLToPath(new URL('../packages/mesh/src/index.ts', import.meta.url));
const WORKER = `const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  export async function* slowly(n) { for (let i = 0; i < n; i++) { await pause(150); yield i; } }
  export const later = async () => { await pause(300); return 'late'; };`;

describe('a script', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });
  const run = (body: string) =>
    promisify(execFile)(
      process.execPath,
      [
        '--disable-warning=ExperimentalWarning',
        '--input-type=module',
        '-e',
        `const { connect } = await import(${JSON.stringify(SDK)});
         const mesh = await connect();
         const worker = mesh.clone({ source: ${JSON.stringify(WORKER)} });
         ${body}`,
      ],
      { env: { ...process.env, HAUKI_URL: used.local.url, HAUKI_TOKEN: used.local.token }, timeout: 50_000 },
    );

  it('stays while it reads a stream whose items take their time, and while it waits for an answer', async () => {
    const { stdout } = await run(`
      const read = [];
      for await (const item of await worker.slowly(3)) read.push(item);
      console.log(JSON.stringify([read, await worker.later()]));`);
    assert.equal(stdout.trim(), '[[0,1,2],"late"]');
  });

  it('ends by itself when it waits for nothing, also with a stream that it does not read', async () => {
    const { stdout } = await run(`
      const items = await worker.slowly(1_000_000);
      console.log((await items.next()).value);`);
    assert.equal(stdout.trim(), '0');
  });
});
