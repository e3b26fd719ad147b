/** `hauki swarm` and the kernel's commands with wrong inputs: words that help, the code of wrong use, and nothing left. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { missing } from './support/mesh.ts';

const CLI = fileURLToPath(new URL('../apps/cli/bin/hauki.js', import.meta.url));
/** Nothing listens there. */
const NOBODY = 'http://127.0.0.1:1';

/** What a command says and ends with; its data folder has nothing afterwards that was not there. */
async function says(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const data = mkdtempSync(join(tmpdir(), 'hauki-wrong-'));
  try {
    const env = { PATH: process.env.PATH, HAUKI_TOKEN: 'hauki_none' };
    const done = await new Promise<{ code: number; out: string; err: string }>((resolve) => {
      execFile(process.execPath, [CLI, ...args, '--data', data], { env, timeout: 50_000 }, (error, out, err) =>
        resolve({ code: Number(error?.code ?? 0), out, err }),
      );
    });
    assert.deepEqual(readdirSync(data), []);
    return done;
  } finally {
    rmSync(data, { recursive: true });
  }
}

describe('the swarm’s commands, given what is wrong', { skip: missing('lxc') }, () => {
  const up = (...args: string[]) => says('swarm', 'up', '--core', NOBODY, ...args);

  it('say which option is wrong, and what it takes', async () => {
    for (const [args, pattern] of [
      [['--count', '0'], /--count: "0" is no whole number from 1 to 250/],
      [['--irc', 'nonsense'], /--irc: "nonsense" is no host:port such as/],
      [['--memory', '319'], /--memory: "319" is no whole number from 320/],
      [['--cpu', 'many'], /--cpu: "many" is no number from 0\.05/],
      [['--first', '-1'], /--first: "-1" is no whole number from 0/],
      [['--token-file', '/nonexistent/token'], /--token-file: \/nonexistent\/token cannot be read; start a core/],
    ] as [string[], RegExp][]) {
      const { code, err } = await up(...args);
      assert.match(err, pattern);
      assert.equal(code, 2, err);
    }
  });

  it('say that there is no core, and that there is no swarm', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hauki-token-'));
    try {
      const token = join(folder, 'node.token');
      writeFileSync(token, 'hauki_none');
      const { code, err } = await up('--token-file', token);
      assert.match(err, /no core answers at http:\/\/127\.0\.0\.1:1/);
      assert.equal(code, 5, err);
    } finally {
      rmSync(folder, { recursive: true });
    }
    assert.match((await says('swarm', 'ls')).out, /There is no swarm/);
    assert.deepEqual(JSON.parse((await says('swarm', 'ls', '--json')).out), { kernels: [] });
    assert.match((await says('swarm', 'down')).out, /There was no swarm/);
  });
});

describe('the kernel’s commands, where there is no kernel', () => {
  it('say so, and how one is started', async () => {
    const file = fileURLToPath(new URL('../examples/plugins/hello.ts', import.meta.url));
    for (const args of [['evolve', file], ['history', 'hello'], ['modules']]) {
      const { code, err } = await says(...args, '--to', NOBODY);
      assert.match(err, /no kernel answers at http:\/\/127\.0\.0\.1:1 \(ECONNREFUSED\)\. Start one with: hauki kernel/);
      assert.equal(code, 5, err);
    }
    const { code, err } = await says('evolve', file, '--to', NOBODY, '--min-isolation', 'strong');
    assert.match(err, /--min-isolation: "strong" is none of none, process, vm, container/);
    assert.equal(code, 2);
  });
});
