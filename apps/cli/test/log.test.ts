/** The log of what a command starts. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startCore } from '../src/index.ts';
import { readableLine, readableLog } from '../src/log-lines.ts';

const BIN = fileURLToPath(new URL('../bin/hauki.js', import.meta.url));

describe('the log of a core', () => {
  const data_dir = mkdtempSync(join(tmpdir(), 'hauki-log-'));
  after(() => rmSync(data_dir, { recursive: true, force: true }));

  it('ends neither it nor who started it when its disk is full', async () => {
    const core = await startCore(data_dir, {}, { file: '/dev/full' });
    try {
      // Each change is a line.
      for (let i = 0; i < 3; i++) {
        const headers = { authorization: `Bearer ${core.token}`, 'content-type': 'application/json' };
        const asked = { method: 'POST', headers, body: JSON.stringify({ name: `one-${i}`, scopes: ['read'] }) };
        assert.equal((await fetch(`${core.url}/api/v2/tokens`, asked)).status, 200);
        await sleep(50);
      }
      assert.equal((await fetch(`${core.url}/health`)).status, 200);
    } finally {
      await core.stop();
    }
  });

  it('begins anew at 32 MiB, beside the one before', async () => {
    const file = join(data_dir, 'hauki.log');
    writeFileSync(file, 'the first');
    truncateSync(file, 32 * 1024 * 1024);
    writeFileSync(`${file}.1`, 'older');
    const core = await startCore(data_dir, {}, { file });
    await core.stop();
    for (const line of readFileSync(file, 'utf8').trim().split('\n')) JSON.parse(line);
    assert.equal(statSync(`${file}.1`).size, 32 * 1024 * 1024);
    assert.equal(readFileSync(`${file}.1`).toString('utf8', 0, 9), 'the first');
  });
});

describe('a log on standard error that cannot be written, as on a full disk,', {
  skip: process.platform !== 'linux',
}, () => {
  const data_dir = mkdtempSync(join(tmpdir(), 'hauki-full-log-'));
  after(() => rmSync(data_dir, { recursive: true, force: true }));

  for (const verb of [
    ['up', '--logs'],
    ['kernel', '--open'],
  ])
    it(`ends nothing of hauki ${verb.join(' ')}`, async () => {
      const full = openSync('/dev/full', 'w');
      const args = [BIN, ...verb, '--json', '--port', '0', '--driver', 'quickjs', '--data', data_dir];
      const child: ChildProcess = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', full] });
      closeSync(full);
      const ended = once(child, 'exit');
      try {
        const lines = createInterface(child.stdout!);
        const [line] = await Promise.race([once(lines, 'line'), once(lines, 'close').then(() => ['{}'])]);
        const { url } = JSON.parse(line);
        assert.ok(url, 'it started');
        assert.equal((await fetch(`${url}/health`)).status, 200);
      } finally {
        child.kill('SIGTERM');
        assert.deepEqual(await ended, [0, null]);
      }
    });
});

describe('a log on a terminal', () => {
  const line = (fields: object) => JSON.stringify({ level: 40, time: 61_001, name: 'hauki-node', ...fields });

  it('is told in words, with the fields behind them', () => {
    const told = readableLine(line({ node: 'n-1', msg: 'it is full', why: 'no room', free_mib: 3 }));
    assert.equal(told, '00:01:01.001 warn  it is full node=n-1 why="no room" free_mib=3');
    for (const other of ['Killed', '{"a": 1}', '[1]', 'null', '']) assert.equal(readableLine(other), other);
  });

  it('has whole lines whatever pieces they come in, and nothing that steers the terminal', () => {
    const said: string[] = [];
    const take = readableLog((text) => void said.push(text));
    const bytes = Buffer.from(`${line({ msg: 'Größe \u001b[2J' })}\n${line({ msg: 'two' })}\n`);
    for (const byte of bytes) take(Buffer.from([byte]));
    assert.deepEqual(said, ['00:01:01.001 warn  Größe [2J\n', '00:01:01.001 warn  two\n']);
  });
});
