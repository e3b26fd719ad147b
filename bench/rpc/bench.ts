/**
 * `npm run bench -- rpc`: Mesh-RPC by itself, over TCP and over WebSocket, beside JSON-RPC by hand over `ws` and beside
 * `capnweb`; a worker of a mesh stands beside them. Each contestant is served by one process and called by another. They
 * are measured in turn, round by round, so that what else the machine does falls on all alike; of the rounds the median
 * counts.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startMesh } from '@hauki/cli';
import { bundleClient, CLIENT_LIMIT_BYTES } from '../../scripts/client-size.ts';
import { finish, note, percentile, type Row, row } from '../harness.ts';
import { NAMES, type Name } from './contestants.ts';
import { delayProxy } from './delay-proxy.ts';
import type { Measures, Question } from './side.ts';

const ROUNDS = 15;
/** One call is measured in more, shorter turns: on a busy machine that is what makes the medians comparable. */
const LATENCY_TURNS = 18;
const LATENCY_CALLS = 100;
const THROUGHPUT_MS = 200;
const IN_FLIGHT = 64;
const MEBIBYTE = 1024 * 1024;
const ECHOES = 4;
const CHAIN = 10;
const CHAIN_ROUNDS = 15;
const DELAY_MS = 50;
/** Before memory is looked at for the first time: what grows once has grown. */
const SETTLING_CALLS = 400_000;
/** The young generation keeps its size, or what is measured is when V8 chose to let it grow. */
const FIXED_HEAP = ['--min-semi-space-size=4', '--max-semi-space-size=4'];
const MANY_CALLS = 1_000_000;
/** Garbage is collected in between, so that what has not been yet does not count as growth. */
const PARTS = 4;
/** For one answer of a process. */
const ANSWER_MS = 120_000;

const median = (samples: number[]) => percentile(samples, 50);

/** A process that serves or calls. */
class Side {
  readonly #process: ChildProcess;
  readonly #ended: Promise<never>;

  constructor(args: string[], flags: string[] = []) {
    this.#process = fork(fileURLToPath(new URL('./side.ts', import.meta.url)), args, {
      execArgv: ['--expose-gc', '--disable-warning=ExperimentalWarning', ...flags],
    });
    this.#ended = once(this.#process, 'exit').then(([code]) => {
      throw new Error(`a measuring process ended with ${code}`);
    });
    this.#ended.catch(() => {});
  }

  async heard(): Promise<any> {
    const { promise, resolve, reject } = Promise.withResolvers<any>();
    const timer = setTimeout(reject, ANSWER_MS, new Error(`a measuring process was silent for ${ANSWER_MS} ms`));
    this.#process.once('message', resolve);
    try {
      const said = await Promise.race([promise, this.#ended]);
      if (said.failed !== undefined) throw new Error(said.failed);
      return said.answer;
    } finally {
      clearTimeout(timer);
      this.#process.off('message', resolve);
    }
  }

  async ask<K extends keyof Measures>(what: K, ...args: Parameters<Measures[K]>): Promise<ReturnType<Measures[K]>> {
    this.#process.send({ what, args } as Question);
    return this.heard();
  }

  async end(): Promise<void> {
    if (this.#process.exitCode !== null || !this.#process.connected) return;
    this.#process.disconnect();
    await this.#ended.catch(() => {});
  }
}

type Start = (args: string[], flags?: string[]) => Promise<[side: Side, said: string]>;

interface Pair {
  calling: Side;
  url: string;
}

/** Figures of all contestants for one measure, one for each round. */
type Figures = Record<Name, number[]>;
const figures = () => Object.fromEntries(NAMES.map((name) => [name, []])) as unknown as Figures;

export async function run(): Promise<void> {
  const sides: Side[] = [];
  const start: Start = async (args, flags) => {
    const side = new Side(args, flags);
    sides.push(side);
    return [side, await side.heard()];
  };
  const pairs = {} as Record<Name, Pair>;
  const rows: Row[] = [];
  const data_dir = mkdtempSync(join(tmpdir(), 'hauki-bench-'));
  try {
    await using mesh = await startMesh({ data_dir });
    for (const name of NAMES) {
      const url =
        name === 'a worker' ? `${mesh.url}#${encodeURIComponent(data_dir)}` : (await start(['serve', name]))[1];
      const [calling] = await start(['call', name, url]);
      pairs[name] = { calling, url };
    }

    const call_us = figures();
    const calls_per_s = figures();
    const mb_per_s = figures();
    const wire = figures();
    for (let round = -2; round < ROUNDS; round++) {
      // Who comes first differs from round to round.
      const order = NAMES.map((_, i) => NAMES[(i + round + NAMES.length) % NAMES.length]!);
      const keep = (into: Figures, name: Name, value: number) => round >= 0 && into[name].push(value);
      for (let turn = 0; turn < LATENCY_TURNS; turn++)
        for (const name of turn % 2 ? order.toReversed() : order)
          keep(call_us, name, median(await pairs[name].calling.ask('latency', LATENCY_CALLS)));
      for (const name of order)
        keep(
          calls_per_s,
          name,
          await pairs[name].calling.ask('throughput', IN_FLIGHT, Number.MAX_SAFE_INTEGER, THROUGHPUT_MS),
        );
      for (const name of order) {
        if (name === 'raw ws') continue;
        const told = await pairs[name].calling.ask('bytes', MEBIBYTE, ECHOES);
        keep(mb_per_s, name, told.mb_per_s);
        keep(wire, name, told.wire);
      }
      if ((round + 1) % 5 === 0) note(`round ${round + 1} of ${ROUNDS}`);
    }

    const compare = (
      metric: string,
      unit: string,
      from: Figures,
      ours: Name,
      peer: Name,
      /** Times the peer's figure. */
      goal?: number,
    ) => {
      const beside = median(from[peer]);
      rows.push(row(metric, unit, median(from[ours]), [peer, beside], goal === undefined ? undefined : goal * beside));
    };
    compare('call_p50_us', 'µs', call_us, 'ours over tcp', 'raw ws', 1.15);
    compare('worker_call_p50_us', 'µs', call_us, 'a worker', 'raw ws');
    compare('ws_call_p50_us', 'µs', call_us, 'ours over ws', 'raw ws');
    compare('capnweb_call_p50_us', 'µs', call_us, 'ours over ws', 'capnweb');
    compare('calls_per_s_64', 'calls/s', calls_per_s, 'ours over tcp', 'capnweb', 5);
    compare('worker_calls_per_s_64', 'calls/s', calls_per_s, 'a worker', 'capnweb');
    compare('ws_calls_per_s_64', 'calls/s', calls_per_s, 'ours over ws', 'capnweb', 3);
    compare('raw_calls_per_s_64', 'calls/s', calls_per_s, 'ours over ws', 'raw ws');
    compare('bytes_mb_per_s', 'MB/s', mb_per_s, 'ours over tcp', 'capnweb', 3);
    compare('worker_bytes_mb_per_s', 'MB/s', mb_per_s, 'a worker', 'capnweb');
    compare('ws_bytes_mb_per_s', 'MB/s', mb_per_s, 'ours over ws', 'capnweb');
    const overhead = (name: Name) => (median(wire[name]) - 1) * 100;
    rows.push(row('bytes_overhead_pct', '%', overhead('ours over tcp'), ['capnweb', overhead('capnweb')], 1));

    note(`a chain of ${CHAIN} calls over a line of ${DELAY_MS} ms`);
    rows.push(await pipelined(start, pairs));

    note(`${MANY_CALLS} calls in one session`);
    rows.push(await growth(start));
  } finally {
    await Promise.all(sides.map((side) => side.end()));
    rmSync(data_dir, { recursive: true, force: true });
  }
  rows.push(await clientSize());
  finish('rpc', rows);
}

/** Ten calls on each other's results through a proxy with a delay, measured in single calls over the same line. */
async function pipelined(start: Start, pairs: Record<Name, Pair>) {
  const trips = async (name: Name): Promise<number> => {
    const url = new URL(pairs[name].url);
    const proxy = await delayProxy(Number(url.port), DELAY_MS / 2);
    const [calling] = await start(['call', name, `${url.protocol}//127.0.0.1:${proxy.port}`]);
    const chains: number[] = [];
    const singles: number[] = [];
    for (let round = -2; round < CHAIN_ROUNDS; round++) {
      const { chain_ms, single_ms } = await calling.ask('chain', CHAIN);
      if (round < 0) continue;
      chains.push(chain_ms);
      singles.push(single_ms);
    }
    await calling.end();
    proxy.close();
    return median(chains) / median(singles);
  };
  const ours = await trips('ours over tcp');
  return row('pipeline_round_trips', 'round trips', ours, ['capnweb', await trips('capnweb')], 1.1);
}

/** What a million calls leave behind, in the worse of the two processes. */
async function growth(start: Start) {
  const name: Name = 'ours over tcp';
  const [serving, url] = await start(['serve', name], FIXED_HEAP);
  const [calling] = await start(['call', name, url], FIXED_HEAP);
  await calling.ask('throughput', IN_FLIGHT, SETTLING_CALLS);
  const look = () => Promise.all([serving.ask('memory'), calling.ask('memory')]);
  const before = await look();
  let after = before;
  for (let i = 0; i < PARTS; i++) {
    await calling.ask('throughput', IN_FLIGHT, MANY_CALLS / PARTS);
    after = await look();
  }
  const grown = after.map(({ rss_bytes }, i) => (rss_bytes - before[i]!.rss_bytes) / MEBIBYTE);
  for (const [i, side] of ['serving', 'calling'].entries()) {
    const left = Object.entries(after[i]!.tables).filter(([table, size]) => size !== (before[i]!.tables[table] ?? 0));
    if (left.length > 0) throw new Error(`the ${side} side's tables did not return: ${JSON.stringify(left)}`);
    note(
      `RSS of the ${side} side grew by ${grown[i]!.toFixed(1)} MiB; its tables: ${JSON.stringify(after[i]!.tables)}`,
    );
  }
  return row('rss_growth_mib', 'MiB', Math.max(...grown), undefined, 10);
}

/** What a page loads, compressed. */
async function clientSize() {
  const [ours, theirs] = await Promise.all([
    bundleClient(),
    bundleClient("export { newWebSocketRpcSession, RpcTarget } from 'capnweb';"),
  ]);
  const kib = ({ gzip_bytes }: { gzip_bytes: number }) => gzip_bytes / 1024;
  return row('client_gzip_kb', 'KiB', kib(ours), ['capnweb, without a mesh', kib(theirs)], CLIENT_LIMIT_BYTES / 1024);
}
