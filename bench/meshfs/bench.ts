/**
 * `npm run bench -- meshfs`: durable writes and reads through the SDK and HTTP, with one and with 32 at once; beside it,
 * in turn, SQLite used directly in a process of its own, which has no network, no versions and no digests to see to, and
 * takes one write after another. Then 1 GiB in and out, and the memory that the core had at its highest.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startCore } from '@hauki/cli';
import { connect, type Mesh } from '@hauki/mesh';
import { finish, note, percentile, type Row, row, timed } from '../harness.ts';
import type { Task } from './sqlite.ts';

/** Many and short ones: what else the disk does falls on both sides alike. */
const ROUNDS = 11;
const KEYS = 500;
const ONE = 150;
const MANY = 640;
const AT_ONCE = 32;
/** As a page of a wiki may have. */
const PAYLOAD = 'x'.repeat(1024);
const LARGE = 2 ** 30;

async function peerDoes(peer: ChildProcess, task: Task): Promise<number> {
  peer.send(task);
  const [answer] = await once(peer, 'message');
  return (answer as { ms: number }).ms;
}

/** Runs `count` works, `at_once` at a time; gives the works per second. */
async function rate(count: number, at_once: number, work: (at: number) => Promise<unknown>): Promise<number> {
  let next = 0;
  const lane = async () => {
    for (let at = next++; at < count; at = next++) await work(at);
  };
  return (count * 1000) / (await timed(() => Promise.all(Array.from({ length: at_once }, lane))));
}

async function* large(): AsyncGenerator<Uint8Array> {
  const chunk = Buffer.alloc(2 ** 20, 'x');
  for (let at = 0; at < LARGE; at += chunk.length) yield chunk;
}

async function reads(mesh: Mesh, pointer: string): Promise<void> {
  let bytes = 0;
  for await (const chunk of (await mesh.meshfs.get(pointer)).body) bytes += chunk.length;
  if (bytes !== LARGE) throw new Error(`${bytes} bytes came back`);
}

export async function run(): Promise<void> {
  const data_dir = mkdtempSync(join(tmpdir(), 'hauki-bench-'));
  let core = await startCore(data_dir);
  const peer = fork(fileURLToPath(new URL('./sqlite.ts', import.meta.url)), [data_dir]);
  const rows: Row[] = [];
  try {
    await once(peer, 'message');
    let mesh = await connect({ core: core.url, token: core.token });
    const { meshfs } = mesh;
    const ours = {
      one: [] as number[],
      many: [] as number[],
      wiki: [] as number[],
      read: [] as number[],
      read_one: [] as number[],
    };
    const theirs = { write: [] as number[], read: [] as number[] };
    const write = (space: string) => (at: number) =>
      meshfs.write(`gem-pointer://${space}/page-${at % KEYS}`, `${at} ${PAYLOAD}`);
    const read = (at: number) => meshfs.resolve(`gem-pointer://bench/page-${at % KEYS}`);
    for (let round = -1; round < ROUNDS; round++) {
      const now = {
        one: await rate(ONE, 1, write('bench')),
        many: await rate(MANY, AT_ONCE, write('bench')),
        wiki: await rate(MANY, AT_ONCE, write('wiki/bench')),
        read: await rate(MANY, AT_ONCE, read),
        read_one: await rate(ONE, 1, read),
      };
      const task = { count: MANY, keys: KEYS, payload: PAYLOAD };
      const peer_write = (MANY * 1000) / (await peerDoes(peer, { what: 'write', ...task }));
      const peer_read = (10 * MANY * 1000) / (await peerDoes(peer, { what: 'read', ...task, count: 10 * MANY }));
      note(`round ${round + 1} of ${ROUNDS}: ${Math.round(now.many)} writes/s, SQLite ${Math.round(peer_write)}`);
      if (round < 0) continue; // to warm up
      for (const [name, value] of Object.entries(now)) ours[name as keyof typeof now].push(value);
      theirs.write.push(peer_write);
      theirs.read.push(peer_read);
    }
    const direct = (samples: number[]): [string, number] => ['SQLite used directly', percentile(samples, 50)];
    rows.push(row('writes_per_s_1', '1/s', percentile(ours.one, 50), direct(theirs.write)));
    rows.push(row('writes_per_s_32', '1/s', percentile(ours.many, 50), direct(theirs.write)));
    rows.push(row('wiki_writes_per_s_32', '1/s', percentile(ours.wiki, 50), direct(theirs.write)));
    rows.push(row('reads_per_s', '1/s', percentile(ours.read, 50), direct(theirs.read)));
    rows.push(row('reads_per_s_1', '1/s', percentile(ours.read_one, 50), direct(theirs.read)));

    note('1 GiB in and out, through a core that has just been started');
    await mesh.close();
    await core.stop();
    core = await startCore(data_dir);
    mesh = await connect({ core: core.url, token: core.token });
    const fresh = mesh;
    const pointer = 'gem-pointer://bench/large';
    const mb_per_s = (ms: number) => LARGE / 1e6 / (ms / 1000);
    const put = mb_per_s(await timed(() => fresh.meshfs.put(pointer, large())));
    const get = mb_per_s(await timed(() => reads(fresh, pointer)));
    const file_put = mb_per_s(await peerDoes(peer, { what: 'put', bytes: LARGE }));
    const file_get = mb_per_s(await peerDoes(peer, { what: 'get', bytes: LARGE }));
    rows.push(row('put_1gib_mb_per_s', 'MB/s', put, ['a file, written and synced', file_put]));
    rows.push(row('get_1gib_mb_per_s', 'MB/s', get, ['a file, read', file_get]));
    const status = readFileSync(`/proc/${core.child.pid}/status`, 'utf8');
    rows.push(row('core_peak_rss_mib', 'MiB', Number(/VmHWM:\s+(\d+)/.exec(status)![1]) / 1024, undefined, 150));
    await mesh.close();
  } finally {
    peer.disconnect();
    await core.stop();
    rmSync(data_dir, { recursive: true, force: true });
  }
  finish('meshfs', rows);
}
