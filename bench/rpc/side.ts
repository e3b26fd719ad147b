/**
 * One process of a measurement: serves or calls one contestant, as its parent says over the IPC channel. Arguments:
 * `serve NAME`, or `call NAME URL`.
 */
import { connect, type Name, serve } from './contestants.ts';

/** What a parent may ask for, and what it gets. Processes that serve know `memory` alone. */
export interface Measures {
  /** Microseconds of each of `calls` calls, one after the other. */
  latency(calls: number): number[];
  /** Calls per second, `in_flight` at a time: so many calls, or as many as there are in `for_ms`. */
  throughput(in_flight: number, calls: number, for_ms?: number): number;
  /** Megabytes (10^6) of payload per second, both ways counted, and bytes on the wire for each byte of payload. */
  bytes(size: number, times: number): { mb_per_s: number; wire: number };
  /** Milliseconds of `calls` calls on each other's results, and of a single one. */
  chain(calls: number): { chain_ms: number; single_ms: number };
  /** After a garbage collection. */
  memory(): { rss_bytes: number; tables: Record<string, number> };
}

export type Question = { [K in keyof Measures]: { what: K; args: Parameters<Measures[K]> } }[keyof Measures];

async function memory(tables: () => Record<string, number>): Promise<ReturnType<Measures['memory']>> {
  for (let i = 0; i < 3; i++) {
    (globalThis as { gc?(): void }).gc?.();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { rss_bytes: process.memoryUsage.rss(), tables: tables() };
}

type Answers = { [K in keyof Measures]?: (...args: Parameters<Measures[K]>) => Promise<ReturnType<Measures[K]>> };

async function caller(name: Name, url: string): Promise<Answers> {
  const client = await connect(name, url);
  const check = (right: boolean) => {
    if (!right) throw new Error(`${name} gave a wrong result`);
  };
  return {
    async latency(calls) {
      const took: number[] = [];
      for (let i = 0; i < calls; i++) {
        const began = performance.now();
        const sum = await client.add(i, 1);
        took.push((performance.now() - began) * 1000);
        check(sum === i + 1);
      }
      return took;
    },
    async throughput(in_flight, calls, for_ms = Number.POSITIVE_INFINITY) {
      let made = 0;
      const began = performance.now();
      const until = began + for_ms;
      const lane = async () => {
        while (made < calls && performance.now() < until) {
          const mine = made++;
          check((await client.add(mine, 1)) === mine + 1);
        }
      };
      await Promise.all(Array.from({ length: in_flight }, lane));
      return (made / (performance.now() - began)) * 1000;
    },
    async bytes(size, times) {
      const payload = new Uint8Array(size).map((_, i) => (i * 2654435761) >>> 24);
      const before = client.carried();
      const began = performance.now();
      for (let i = 0; i < times; i++) {
        const back = await client.echo!(payload);
        check(back.length === size && back[size - 1] === payload[size - 1]);
      }
      const seconds = (performance.now() - began) / 1000;
      const moved = 2 * size * times;
      return { mb_per_s: moved / 1e6 / seconds, wire: (client.carried() - before) / moved };
    },
    async chain(calls) {
      let began = performance.now();
      check((await client.add(1, 1)) === 2);
      const single_ms = performance.now() - began;
      began = performance.now();
      check((await client.chain!(calls)) === calls - 2);
      return { chain_ms: performance.now() - began, single_ms };
    },
    memory: () => memory(client.tables),
  };
}

async function server(name: Name): Promise<{ url: string; answers: Answers }> {
  const { url, tables } = await serve(name);
  return { url, answers: { memory: () => memory(tables) } };
}

const [role, name, url] = process.argv.slice(2) as ['serve' | 'call', Name, string];
const { url: mine, answers } = role === 'serve' ? await server(name) : { url, answers: await caller(name, url) };
process.on('message', async (question: Question) => {
  try {
    const answer = await (answers[question.what] as any)(...question.args);
    process.send!({ answer });
  } catch (error) {
    process.send!({ failed: String((error as Error).stack) });
  }
});
process.on('disconnect', () => process.exit());
process.send!({ answer: mine });
