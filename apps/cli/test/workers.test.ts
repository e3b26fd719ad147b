/** What `hauki clone` and `hauki call` say of a worker that ends by itself, and of results that JSON cannot say. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { useMesh } from '../../../test/support/mesh.ts';

const BIN = fileURLToPath(new URL('../bin/hauki.js', import.meta.url));

describe('a worker from a terminal', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });
  const start = (args: string[]) =>
    spawn(process.execPath, [BIN, ...args], {
      env: { ...process.env, HAUKI_URL: used.local.url, HAUKI_TOKEN: used.local.token, NO_COLOR: '1' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  const run = async (...args: string[]) => {
    const child = start(args);
    let [out, err] = ['', ''];
    child.stdout.on('data', (data) => {
      out += data;
    });
    child.stderr.on('data', (data) => {
      err += data;
    });
    const [code] = await once(child, 'close');
    return { code: code as number, out, err };
  };
  const file = (name: string, source: string) => {
    const path = join(used.local.data_dir, name);
    writeFileSync(path, source);
    return path;
  };

  it('that ends by a fault ends its clone with its cause and the exit code of that, and as JSON where that was asked for', async () => {
    const spins = file('spins.mjs', 'export const spin = () => { for (;;); };');
    for (const json of [false, true]) {
      const clone = start(['clone', spins, '--driver', 'quickjs', '--turn', '50ms', ...(json ? ['--json'] : [])]);
      let err = '';
      clone.stderr.on('data', (data) => {
        err += data;
      });
      const ended = once(clone, 'close');
      const lines: string[] = [];
      for await (const line of createInterface(clone.stdout)) {
        lines.push(line);
        if (lines.length === 1) await run('call', /w-[a-z0-9]+/.exec(line)![0], 'spin');
      }
      assert.deepEqual(await ended, [1, null]);
      const { worker } = json ? JSON.parse(lines[0]!) : { worker: /w-[a-z0-9]+/.exec(lines[0]!)![0] };
      const why = await run('why', worker, ...(json ? ['--json'] : []));
      assert.equal(why.code, 1);
      if (json) {
        assert.equal(err, '');
        assert.deepEqual(
          lines.slice(1).map((line) => JSON.parse(line)),
          [JSON.parse(why.out)],
        );
      } else assert.match(lines.join('\n'), /: .+\n {2}why {6}.+/);
    }
  });

  it('that gives a stream gives a line of JSON for each item, and then ends in order', async () => {
    const counts = file('counts.mjs', 'export async function* count(n) { for (let i = 1; i <= n; i++) yield i; }');
    const { worker } = JSON.parse((await run('clone', counts, '--ttl', '5m', '--json')).out);
    const { code, out, err } = await run('call', worker, 'count', '3', '--json');
    assert.deepEqual([code, out, err], [0, '{"item":1}\n{"item":2}\n{"item":3}\n', '']);
    assert.equal((await run('kill', worker)).code, 0);
  });
});
