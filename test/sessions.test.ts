/** `mesh.sessions()`, the call that a worker sees, and traces through the core's HTTP door, on real meshes. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { connect, withOptions } from '@hauki/mesh';
import { DRIVERS, missing, until, useMesh } from './support/mesh.ts';

const TRACE = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

const WATCHER = `
  let seen = 'nothing';
  export const trace = () => hauki.call.traceparent ?? null;
  export const time = () => hauki.call.timeout_ms ?? null;
  export const later = async () => { await null; return hauki.call === undefined; };
  export const wait = () => {
    const { signal } = hauki.call;
    return new Promise(() => signal.addEventListener('abort', () => { seen = String(signal.reason); }));
  };
  export const told = () => seen;
  export const open = () => new (class { look() { return 1; } })();
`;

/** The ends of TCP connections on this machine's loopback, and whether the system asks for the other one. */
async function tcpEnds(): Promise<{ local: number; remote: number; asked: boolean }[]> {
  const lines = (await readFile('/proc/net/tcp', 'utf8')).trim().split('\n').slice(1);
  const port = (address: string) => Number.parseInt(address.split(':')[1]!, 16);
  return lines
    .map((line) => line.trim().split(/\s+/))
    .filter(([, , , state]) => state === '01')
    .map(([, local, remote, , , timer]) => ({
      local: port(local!),
      remote: port(remote!),
      asked: timer!.startsWith('02'),
    }));
}

interface Watcher {
  trace(): string | null;
  time(): number | null;
  later(): boolean;
  wait(): void;
  told(): string;
  open(): { look(): number };
}

for (const driver of DRIVERS)
  describe(`a call in a ${driver} vault`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });

    it('is seen by the worker with its trace, its time and its signal, until it waits', async () => {
      const watcher = await used.mesh.clone<Watcher>({ source: WATCHER });
      assert.equal(await watcher.trace(), null);
      assert.equal(await withOptions(watcher, { traceparent: TRACE }).trace(), TRACE);
      assert.equal(await withOptions(watcher, { timeout_ms: 5_000 }).time(), 5_000);
      assert.equal(await watcher.later(), true);
      const controller = new AbortController();
      const waiting = withOptions(watcher, { signal: controller.signal }).wait();
      // One that leaves in the same turn never arrives: this one has, when the next is answered.
      await watcher.told();
      controller.abort(new Error('the user went home'));
      await assert.rejects(waiting, { name: 'Cancelled', message: /the user went home/ });
      await until('the worker hears', async () => /the user went home/.test(await watcher.told()));
      await assert.rejects(withOptions(watcher, { timeout_ms: 30 }).wait(), { name: 'DeadlineExceeded' });
      await until('the worker hears of time', async () => /30 ms/.test(await watcher.told()));
      assert.match(await watcher.told(), /^DeadlineExceeded: /);
      await used.mesh.destruct(watcher);
    });

    it('comes over connections whose ends the system asks, when they are silent for long, whether they are there', async () => {
      const watcher = await used.mesh.clone<Watcher>({ source: WATCHER });
      const { worker } = await used.mesh.details(watcher);
      const relayed = await used.mesh.visit<Watcher>(worker, { routing: 'relay_only' });
      await Promise.all([watcher.told(), relayed.told()]);
      const { workers } = await used.mesh.registry();
      const { port } = workers.find((one) => one.worker === worker)!.direct;
      const core_port = Number(new URL(used.local.url).port);
      await until('all of them are', async () => {
        const ends = await tcpEnds();
        const [gates, cores] = [port, core_port].map((own) => ends.filter(({ local }) => local === own));
        assert.ok(gates!.length >= 2 && cores!.length >= 3, JSON.stringify(ends));
        // The node's own end, for the relay, is on the worker's machine.
        const caller = ends.some(({ remote, asked }) => remote === port && asked);
        return caller && [...gates!, ...cores!].every(({ asked }) => asked);
      });
      await used.mesh.destruct(watcher);
    });

    it('that does not end when it is given up is ended with its worker, where that was asked for', async () => {
      const source = 'export const stubborn = () => new Promise(() => {});';
      const stubborn = await used.mesh.clone<{ stubborn(): void }>({ source });
      const call = withOptions(stubborn, { timeout_ms: 30, kill_after_ms: 50 }).stubborn();
      await assert.rejects(call, { name: 'DeadlineExceeded' });
      await used.mesh.ended(stubborn);
      await assert.rejects(stubborn.stubborn(), { name: 'WorkerDied' });
    });

    it('carries the trace of a plain HTTP client', async () => {
      const watcher = await used.mesh.clone<Watcher>({ source: WATCHER });
      const { worker } = await used.mesh.details(watcher);
      const post = async (traceparent: string) => {
        const answer = await fetch(new URL(`/api/v2/ephemeral/${worker}`, used.local.url), {
          method: 'POST',
          headers: { 'content-type': 'application/json', authorization: `Bearer ${used.local.token}`, traceparent },
          body: '{"jsonrpc":"2.0","id":1,"method":"trace"}',
        });
        return ((await answer.json()) as { result: unknown }).result;
      };
      assert.equal(await post(TRACE), TRACE);
      assert.equal(await post('nonsense'), null);
      await used.mesh.destruct(watcher);
    });

    it('shows in the list of sessions, with its references until they are let go of', async () => {
      const watcher = await used.mesh.clone<Watcher>({ source: WATCHER });
      const { worker, node } = await used.mesh.details(watcher);
      const mine = async () => (await used.mesh.sessions()).filter((s) => s.worker === worker);
      const opened = await watcher.open();
      assert.equal(await opened.look(), 1);
      const [session, ...others] = await mine();
      assert.deepEqual(others, []);
      assert.ok(session);
      assert.equal(session.node, node);
      assert.equal(session.role, 'owner');
      assert.equal(session.caller, 'admin');
      assert.equal(session.route, 'direct');
      assert.equal('peer' in session, false);
      assert.equal(session.connected, true);
      assert.equal(session.connections, 1);
      assert.equal(session.stats?.exported, 1);
      assert.ok(session.stats.calls_served! >= 2);
      (opened as unknown as Disposable)[Symbol.dispose]();
      await until('the reference is gone', async () => (await mine())[0]?.stats?.exported === 0);
      await used.mesh.destruct(watcher);
      assert.deepEqual(await mine(), []);
    });

    it('shows whose each session is and its route, and who calls through the HTTP door', async () => {
      const watcher = await used.mesh.clone<Watcher>({ source: WATCHER });
      const { worker, node } = await used.mesh.details(watcher);
      const made = await used.mesh.tokens.create({ name: 'guest', scopes: ['call'], targets: { workers: [worker] } });
      await using guest = await connect({ core: used.local.url, token: made.token });
      assert.equal(await guest.visit<Watcher>(worker, { routing: 'relay_only' }).told(), 'nothing');
      assert.doesNotMatch(used.log(), /MaxListenersExceededWarning/);
      assert.equal(await used.mesh.visit<Watcher>(worker, { routing: 'p2p_only' }).told(), 'nothing');
      for (let i = 0; i < 2; i++) {
        const answer = await fetch(new URL(`/api/v2/ephemeral/${worker}`, used.local.url), {
          method: 'POST',
          headers: { 'content-type': 'application/json', authorization: `Bearer ${made.token}` },
          body: '{"jsonrpc":"2.0","id":1,"method":"told"}',
        });
        assert.equal(((await answer.json()) as { result: string }).result, 'nothing');
      }
      const mine = (await used.mesh.sessions()).filter((s) => s.worker === worker);
      assert.deepEqual(mine.map(({ caller, role, route }) => [caller, role, route]).sort(), [
        ['admin', 'owner', 'direct'],
        ['admin', 'visitor', 'direct'],
        [made.owner, 'visitor', 'http'],
        [made.owner, 'visitor', 'relay'],
      ]);
      const http = mine.find(({ route }) => route === 'http')!;
      assert.deepEqual([http.node, http.stats], [node, { calls_served: 2, serving: 0 }]);
      assert.ok(!JSON.stringify(mine).includes(made.token.slice(6)));
      await used.mesh.destruct(watcher);
      assert.deepEqual(
        (await used.mesh.sessions()).filter((s) => s.worker === worker),
        [],
      );
    });
  });
