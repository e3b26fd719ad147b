/**
 * Sessions that outlive their connections, on real meshes: sockets of this process are cut and ports blocked while calls
 * run, and the worker's state tells that each of them ran once.
 */
import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';
import { isError, OutcomeUnknown, WorkerDied } from '@hauki/mesh';
import { DRIVERS, missing, until, useMesh } from './support/mesh.ts';

const COUNTER = `
  let count = 0;
  const seen = [];
  export const add = (i) => { seen.push(i); return ++count; };
  export const later = async (i) => { await new Promise((done) => setTimeout(done, 5)); seen.push(i); return ++count; };
  export const each = async function* (n) { for (let i = 0; i < n; i++) { await new Promise((done) => setTimeout(done, 2)); yield i; } };
  export const report = () => ({ count, seen });
`;
interface Counter {
  add(i: number): number;
  later(i: number): Promise<number>;
  each(n: number): AsyncGenerator<number>;
  report(): { count: number; seen: number[] };
}

/** The sockets that this process opens, by the port they go to. */
class Wires {
  readonly #sockets = new Map<number, Set<Socket>>();
  readonly #blocked = new Set<number>();
  readonly #opened = (message: unknown) => {
    const { socket } = message as { socket: Socket };
    socket.once('connectionAttempt', (_ip: string, port: number) => {
      // Not at once: node:net is in the middle of connecting.
      if (this.#blocked.has(port)) return process.nextTick(() => socket.destroy(new Error('blocked by the test')));
      const known = this.#sockets.get(port) ?? new Set();
      this.#sockets.set(port, known.add(socket));
    });
  };

  watch(): void {
    subscribe('net.client.socket', this.#opened);
  }

  end(): void {
    unsubscribe('net.client.socket', this.#opened);
  }

  /** Sockets opened to a port so far. */
  count(port: number): number {
    return this.#sockets.get(port)?.size ?? 0;
  }

  /** Cuts whatever is open to the ports. */
  cut(...ports: number[]): void {
    for (const port of ports) for (const socket of this.#sockets.get(port) ?? []) socket.destroy();
  }

  /** The connections there are lead nowhere from now on, and do not end. `newest`: only so many. */
  silence(port: number, newest = Number.POSITIVE_INFINITY): void {
    for (const socket of [...(this.#sockets.get(port) ?? [])].slice(-newest)) {
      socket.cork();
      socket.pause();
    }
  }

  /** Cuts, and lets nothing through until `unblock`. */
  block(...ports: number[]): void {
    for (const port of ports) this.#blocked.add(port);
    this.cut(...ports);
  }

  unblock(): void {
    this.#blocked.clear();
  }
}

for (const driver of DRIVERS)
  describe(`a session with a ${driver} worker`, { skip: missing(driver) }, () => {
    const wires = new Wires();
    before(() => wires.watch());
    after(() => wires.end());
    afterEach(() => wires.unblock());
    const used = useMesh({ nodes: [{ drivers: [driver] }] });

    const spawn = async (options: object = {}) => {
      const ghost = used.mesh.clone<Counter>({ source: COUNTER }, { driver, ...options });
      const { worker } = await used.mesh.details(ghost);
      const { direct } = (await used.mesh.registry()).workers.find((w) => w.worker === worker)!;
      return { ghost, worker, port: direct.port };
    };
    const core = () => Number(new URL(used.local.url).port);
    const route = async (ghost: object) => (await used.mesh.details(ghost)).route;

    /** Calls in bursts while connections to the ports are cut; each must have run once, in order. */
    const work = async (ghost: Awaited<ReturnType<typeof spawn>>['ghost'], ...ports: number[]) => {
      const answers: Promise<number>[] = [];
      const stream = (async () => {
        const items: number[] = [];
        for await (const i of await ghost.each(60)) items.push(i);
        return items;
      })();
      for (let i = 0; i < 120; i++) {
        answers.push(i % 3 === 0 ? ghost.later(i) : ghost.add(i));
        if (i % 20 === 10) {
          wires.cut(...ports);
          await answers.at(-1);
        } else if (i % 7 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      await Promise.all(answers);
      assert.deepEqual(
        await stream,
        Array.from({ length: 60 }, (_, i) => i),
      );
      const { count, seen } = await ghost.report();
      assert.equal(count, 120);
      assert.deepEqual(
        seen.toSorted((a, b) => a - b),
        Array.from({ length: 120 }, (_, i) => i),
      );
      const at_once = seen.filter((i) => i % 3 !== 0);
      assert.deepEqual(
        at_once,
        at_once.toSorted((a, b) => a - b),
        'calls ran in their order',
      );
    };

    it('goes on over the direct route when its connection is cut', async () => {
      const { ghost, port } = await spawn();
      await work(ghost, port);
      assert.equal(await route(ghost), 'direct');
      assert.ok(wires.count(port) > 3, `${wires.count(port)} connections`);
      await used.mesh.destruct(ghost);
    });

    for (const routing of ['p2p_only', 'relay_only'] as const)
      it(`goes on over a fresh connection when the one it has falls silent (${routing})`, async () => {
        const { ghost, port } = await spawn({ routing, heartbeat_ms: 300, lease_ms: 20_000 });
        assert.equal(await ghost.add(1), 1);
        const to = routing === 'p2p_only' ? port : core();
        const before = wires.count(to);
        wires.silence(to, 1);
        const answers = await Promise.all([ghost.add(2), ghost.later(3), ghost.add(4)]);
        assert.deepEqual(answers.toSorted(), [2, 3, 4]);
        assert.ok(wires.count(to) > before);
        // It was said once, however often it was sent.
        assert.deepEqual((await ghost.report()).seen.toSorted(), [1, 2, 3, 4]);
        await used.mesh.destruct(ghost);
      });

    it('goes on over the relay when its connection to the core is cut', async () => {
      const { ghost, port } = await spawn({ routing: 'relay_only' });
      await work(ghost, core());
      assert.equal(await route(ghost), 'relay');
      assert.equal(wires.count(port), 0);
      await used.mesh.destruct(ghost);
    });

    it('takes the relay when the direct route closes, and goes back when it opens', async () => {
      const { ghost, port } = await spawn();
      assert.equal(await ghost.add(0), 1);
      assert.equal(await route(ghost), 'direct');
      const relayed_before = used.mesh.stats().relay_bytes;
      wires.block(port);
      assert.equal(await ghost.add(1), 2);
      assert.equal(await route(ghost), 'relay');
      assert.ok(used.mesh.stats().relay_bytes > relayed_before);
      wires.unblock();
      // Calls run on while it goes back.
      let count = 2;
      await until('it is direct again', async () => {
        assert.equal(await ghost.add(count), ++count);
        return (await route(ghost)) === 'direct';
      });
      const relayed = used.mesh.stats().relay_bytes;
      const direct = used.mesh.stats().direct_bytes;
      assert.equal(await ghost.add(count), count + 1);
      assert.equal(used.mesh.stats().relay_bytes, relayed);
      assert.ok(used.mesh.stats().direct_bytes > direct);
      await used.mesh.destruct(ghost);
    });

    it('lives through a cut shorter than its lease, and dies of a longer one', async () => {
      const { ghost, worker, port } = await spawn({ lease_ms: 4_000, heartbeat_ms: 100 });
      assert.equal(await ghost.add(0), 1);
      wires.block(port, core());
      const pending = ghost.add(1);
      await new Promise((resolve) => setTimeout(resolve, 600));
      wires.unblock();
      assert.equal(await pending, 2, 'a call made while it was cut ran when it went on');
      wires.block(port, core());
      const lost = assert.rejects(
        ghost.add(2),
        (error) => isError(error, WorkerDied) || isError(error, OutcomeUnknown),
      );
      await new Promise((resolve) => setTimeout(resolve, 4_500));
      wires.unblock();
      await lost;
      await until('it is dead', async () => !(await used.mesh.registry()).workers.some((w) => w.worker === worker));
    });

    it('waits for a visitor too', async () => {
      const { ghost, worker, port } = await spawn();
      const visitor = used.mesh.visit<Counter>(worker);
      assert.equal(await visitor.add(0), 1);
      wires.block(port, core());
      const pending = visitor.add(1);
      await new Promise((resolve) => setTimeout(resolve, 300));
      wires.unblock();
      assert.equal(await pending, 2);
      await used.mesh.destruct(ghost);
    });
  });
