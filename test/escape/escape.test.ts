/** The escape suite as tests: one for each attempt and driver, from one run of `run.ts`. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { cannotRun } from './host.ts';
import { fault, type Row } from './table.ts';

test('nothing that is tried gets out of a vault, and all of it would get out of none', {
  skip: cannotRun(),
  timeout: 280_000,
}, async (t) => {
  const script = fileURLToPath(new URL('./run.ts', import.meta.url));
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = once(child, 'exit');
  let out = '';
  let errors = '';
  child.stdout.on('data', (chunk) => {
    out += chunk;
  });
  child.stderr.on('data', (chunk) => {
    errors += chunk;
  });
  const [code] = await ended;
  const rows = out
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Row);
  assert.ok(rows.length > 100, `only ${rows.length} attempts were made\n${errors}`);
  for (const row of rows) await t.test(`${row.attempt}: ${row.driver}`, () => assert.equal(fault(row), undefined));
  assert.equal(code, 0, errors);
});
