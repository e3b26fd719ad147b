/** Every example runs, prints what it says, and stays short. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { useMesh } from './support/mesh.ts';

const folder = fileURLToPath(new URL('../examples', import.meta.url));
const EXPECTED: Record<string, RegExp[]> = {
  '01-one-call.ts': [
    /^Hello, Ada!$/m,
    /^greetings so far: 1$/m,
    /lived in a quickjs vault, reached over the direct route/,
  ],
  '02-pointers.ts': [/^squares: 0 1 4 9 16$/m],
  '03-grants.ts': [
    /^(the weather is fine\n){2}/m,
    /no grant for this: fetch 127\.0\.0\.1:1\b/,
    /no grant for this: meshfs\.write/,
    /no grant for this: fetch POST 127\.0\.0\.1:/,
  ],
  '04-errors.ts': [
    /^refused at parse: /m,
    /^it threw: RangeError: too moody$/m,
    /^Method not found: sing\. There is: fail, ponder$/m,
    /^ponder\(\) gave no answer within 200 ms/m,
    /^died: destructed$/m,
  ],
  '05-json-rpc.ts': [/"result":42/],
  '06-references.ts': [
    /^balance 42$/m,
    /^CALLED\nBACK$/m,
    /^streamed 1\nstreamed 2\nstreamed 3$/m,
    /^sum 55$/m,
    /^Cancelled$/m,
  ],
};

describe('the examples', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });
  const files = readdirSync(folder).filter((name) => name.endsWith('.ts'));

  it('are all expected here', () => assert.deepEqual(files.sort(), Object.keys(EXPECTED).sort()));

  for (const file of files) {
    it(`${file} is under 40 lines and prints what it promises`, async () => {
      assert.ok(readFileSync(`${folder}/${file}`, 'utf8').split('\n').length < 40);
      const { stdout } = await promisify(execFile)(
        process.execPath,
        ['--disable-warning=ExperimentalWarning', `${folder}/${file}`],
        {
          env: { ...process.env, HAUKI_URL: used.local.url, HAUKI_TOKEN: used.local.token },
          timeout: 60_000,
        },
      );
      for (const pattern of EXPECTED[file] ?? []) assert.match(stdout, pattern);
    });
  }
});
