import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { isError, Overloaded, StorageFailed } from '@hauki/protocol';
import { type CommitQueue, openCommitQueue } from '../src/commit-queue.ts';
import { openSqliteKeyValues } from '../src/embedded-kv.ts';
import { BACKPLANE_LIMITS } from '../src/limits.ts';

/** A disk whose syncs end when they are told to. */
function slowDisk() {
  const syncs: { file: 'log' | 'pages'; done: PromiseWithResolvers<void> }[] = [];
  const begun: (() => void)[] = [];
  const sync = (file: 'log' | 'pages') => () => {
    const done = Promise.withResolvers<void>();
    syncs.push({ file, done });
    for (const tell of begun.splice(0)) tell();
    return done.promise;
  };
  return {
    log: sync('log'),
    pages: sync('pages'),
    /** The next sync that is under way. */
    async next() {
      while (syncs.length === 0) await new Promise<void>((resolve) => begun.push(resolve));
      return syncs.shift()!;
    },
    get idle() {
      return syncs.length === 0;
    },
  };
}

interface Opened {
  db: DatabaseSync;
  disk: ReturnType<typeof slowDisk>;
  queue: CommitQueue;
  add(text: string): Promise<unknown>;
}

async function withQueue(run: (opened: Opened) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-commits-'));
  const db = new DatabaseSync(join(folder, 'kv.sqlite'));
  try {
    db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0;');
    db.exec('CREATE TABLE said (text TEXT) STRICT;');
    const disk = slowDisk();
    const insert = db.prepare('INSERT INTO said VALUES (?)');
    const queue = openCommitQueue(db, disk);
    await run({ db, disk, queue, add: (text) => queue.run(() => insert.run(text)) });
  } finally {
    db.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What a promise has come to by now. */
const stateOf = async (promise: Promise<unknown>): Promise<string> => {
  await turn();
  return Promise.race([
    promise.then(
      () => 'resolved',
      () => 'rejected',
    ),
    turn('pending'),
  ]);
};

test('a write is answered, and read, when the disk has it and not before', () =>
  withQueue(async ({ disk, queue, add }) => {
    const write = add('a');
    const { file, done } = await disk.next();
    assert.equal(file, 'log');
    const read = queue.read(() => 'seen');
    assert.deepEqual([await stateOf(write), await stateOf(read)], ['pending', 'pending']);
    done.resolve();
    await write;
    await read;
    assert.equal(await stateOf(queue.read(() => 'seen')), 'resolved');
  }));

test('what is written while the disk is busy shares the next commit and its sync', () =>
  withQueue(async ({ disk, add }) => {
    const first = add('a');
    const one = await disk.next();
    const others = ['b', 'c', 'd'].map(add);
    await turn();
    assert.ok(disk.idle);
    one.done.resolve();
    await first;
    const two = await disk.next();
    two.done.resolve();
    await Promise.all(others);
    assert.ok(disk.idle);
  }));

test('keys, lists and revisions are read when the disk has them and not before', () =>
  withQueue(async ({ db, disk, queue }) => {
    const kv = openSqliteKeyValues(db, queue).kv('a');
    const write = kv.put('x', '1');
    const { done } = await disk.next();
    const reads = [kv.get('x'), kv.list(''), kv.revision()];
    for (const read of reads) assert.equal(await stateOf(read), 'pending');
    done.resolve();
    await write;
    assert.equal(await reads[2], 1);
    await Promise.all(reads);
  }));

test('a work that fails takes back the others of its commit, and the next one goes on', () =>
  withQueue(async ({ db, disk, queue, add }) => {
    const broken = () => {
      throw new Error('constraint failed');
    };
    const [before, failed, after] = [add('a'), queue.run(broken), add('b')];
    for (const one of [before, failed, after]) await assert.rejects(one, (thrown) => isError(thrown, StorageFailed));
    const later = add('c');
    (await disk.next()).done.resolve();
    await later;
    assert.deepEqual(
      db
        .prepare('SELECT text FROM said')
        .all()
        .map(({ text }) => text),
      ['c'],
    );
  }));

test('a write is committed at whatever moment after another it is made', () =>
  withQueue(async ({ disk, add }) => {
    for (let turns = 0; turns < 24; turns++) {
      const first = add('a');
      (await disk.next()).done.resolve();
      await first;
      for (let at = 0; at < turns; at++) await null;
      const second = add('b');
      (await disk.next()).done.resolve();
      await second;
    }
  }));

test('what waits for the disk is bounded, and more is refused', () =>
  withQueue(async ({ disk, add }) => {
    const first = add('a');
    const one = await disk.next();
    const others = Array.from({ length: BACKPLANE_LIMITS.waiting_writes }, () => add('b'));
    await assert.rejects(add('c'), (thrown) => isError(thrown, Overloaded));
    one.done.resolve();
    await first;
    (await disk.next()).done.resolve();
    await Promise.all(others);
  }));

test('who reads sees what is on the disk, and nothing of the commit after it', () =>
  withQueue(async ({ db, disk, queue, add }) => {
    const count = db.prepare('SELECT count(*) AS n FROM said');
    const write = add('a');
    const one = await disk.next();
    const [later, seen] = [add('b'), queue.read(() => count.get()!.n)];
    one.done.resolve();
    await write;
    assert.equal(await seen, 1);
    (await disk.next()).done.resolve();
    await later;
    assert.equal(await queue.read(() => count.get()!.n), 2);
  }));

test('where the disk fails the write is refused, and nothing is read or written after it', () =>
  withQueue(async ({ disk, queue, add }) => {
    const write = add('a');
    const { done } = await disk.next();
    const [later, read] = [add('b'), queue.read(() => 'seen')];
    for (const one of [write, later, read]) one.catch(() => {});
    done.reject(new Error('EIO: input/output error'));
    for (const one of [write, later, read, add('c'), queue.read(() => 'seen')])
      await assert.rejects(one, (thrown) => isError(thrown, StorageFailed) && /input\/output/.test(`${thrown}`));
    await queue.close();
  }));

test('a long log is copied to its place, and no commit follows before that is on the disk', () =>
  withQueue(async ({ db, disk, add }) => {
    const write = add('x'.repeat(4096 * (BACKPLANE_LIMITS.log_pages + 10)));
    (await disk.next()).done.resolve();
    await write;
    const pages = await disk.next();
    assert.equal(pages.file, 'pages');
    const { log, checkpointed } = db.prepare('PRAGMA wal_checkpoint(NOOP)').get() as Record<string, number>;
    assert.equal(checkpointed, log);
    assert.equal(db.prepare('PRAGMA synchronous').get()!.synchronous, 1, 'NORMAL again');
    const later = add('b');
    await turn();
    assert.ok(disk.idle);
    pages.done.resolve();
    (await disk.next()).done.resolve();
    await later;
  }));

test('a long log that cannot be copied, as on a full disk, goes on and is tried again', () =>
  withQueue(async ({ db, disk }) => {
    let tries = 0;
    const full = {
      get() {
        tries++;
        throw new Error('database or disk is full');
      },
    };
    const prepare = (sql: string) => (/PASSIVE/.test(sql) ? full : db.prepare(sql));
    const queue = openCommitQueue({ prepare, exec: (sql: string) => db.exec(sql) } as unknown as DatabaseSync, disk);
    const insert = db.prepare('INSERT INTO said VALUES (?)');
    for (const text of ['x'.repeat(4096 * (BACKPLANE_LIMITS.log_pages + 10)), 'a', 'b']) {
      const write = queue.run(() => insert.run(text));
      (await disk.next()).done.resolve();
      await write;
    }
    await turn();
    assert.equal(tries, 3);
    assert.equal(db.prepare('PRAGMA synchronous').get()!.synchronous, 1);
  }));

test('closing commits what waits', () =>
  withQueue(async ({ db, disk, queue, add }) => {
    const write = add('a');
    const closed = queue.close();
    await assert.rejects(add('b'), (thrown) => isError(thrown, StorageFailed));
    (await disk.next()).done.resolve();
    await Promise.all([write, closed]);
    assert.equal(db.prepare('SELECT count(*) AS n FROM said').get()!.n, 1);
  }));
