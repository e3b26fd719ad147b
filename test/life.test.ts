/**
 * A worker's life in its owner's hands: pause and resume, the longest life, the idle time-out, a look inside, its log,
 * what it uses, and why it ended. Real meshes, every driver.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  BadInput,
  connect,
  DeadlineExceeded,
  type Fate,
  Forbidden,
  isError,
  type LogLine,
  type Mesh,
  SourceRejected,
  WorkerPaused,
  WorkerUnknown,
  withOptions,
} from '@hauki/mesh';
import { CALCULATOR, type Calculator, DRIVERS, lives, missing, traces, until, useMesh } from './support/mesh.ts';

const SOURCE = `${CALCULATOR}
  let count = 0;
  export const tick = () => ++count;
  export const say = (text) => { console.log(text); console.error('bad ' + text); };
  export const flood = (lines) => { for (let i = 0; i < lines; i++) console.log('line ' + i); };
  export const burn = (ms) => { const x = []; for (let i = 0; i < ms * 2e4; i++) x[i % 100] = Math.sqrt(i); return x.length; };
  export const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms, 'later'));
  export const nested = () => ({ step: () => 'stepped' });
`;

interface Worker extends Calculator {
  tick(): number;
  say(text: string): void;
  flood(lines: number): void;
  burn(ms: number): number;
  later(ms: number): string;
}

/** The worker's fate, once the core knows it. */
async function fateOf(mesh: Mesh, worker: string): Promise<Fate> {
  let fate: Fate | undefined;
  await until(`${worker} is known to be dead`, async () => {
    const state = await mesh.why(worker);
    if (state.state === 'dead') fate = state.fate;
    return fate !== undefined;
  });
  return fate!;
}

/** Pauses a worker; false where its driver has no such thing, which it then says. */
async function paused(mesh: Mesh, worker: string, t: { skip(why: string): void }): Promise<boolean> {
  try {
    await mesh.pause(worker);
    return true;
  } catch (error) {
    if (!isError(error, BadInput) || !/cannot be paused/.test(error.message)) throw error;
    t.skip(error.message);
    return false;
  }
}

async function collect(lines: AsyncGenerator<LogLine, Fate | undefined>) {
  const found: LogLine[] = [];
  for (let next = await lines.next(); ; next = await lines.next()) {
    if (next.done) return { lines: found, fate: next.value };
    found.push(next.value);
  }
}

for (const driver of DRIVERS) {
  describe(`a worker’s life in ${driver} vaults`, { skip: missing(driver), concurrency: 3 }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });
    const make = async (options: object = {}, source = SOURCE) => {
      const ghost = used.mesh.clone<Worker>({ source }, { driver, ...options });
      return { ghost, worker: (await used.mesh.details(ghost)).worker };
    };
    const info = async (worker: string) => (await used.mesh.registry()).workers.find((w) => w.worker === worker);

    it('shows in ticket, registry and details how strongly its vault holds', async () => {
      const { ghost, worker } = await make({ min_isolation: 'process' });
      const level = { lxc: 'container', quickjs: 'vm', process: 'process' }[driver as string];
      assert.equal((await used.mesh.details(ghost)).isolation, level);
      assert.equal((await info(worker))!.isolation, level);
      await used.mesh.destruct(ghost);
    });

    it('stands still while it is paused: calls wait, deadlines hold, the lease does not run out; then it goes on', async (t) => {
      const { ghost, worker } = await make({ lease_ms: 5_000, heartbeat_ms: 300 });
      assert.equal(await ghost.tick(), 1);
      if (!(await paused(used.mesh, worker, t))) return;
      await used.mesh.pause(ghost);
      assert.ok((await info(worker))!.paused_at, 'the registry shows it');
      const waiting = ghost.tick();
      await assert.rejects(withOptions(ghost, { timeout_ms: 300 }).tick(), (error) => isError(error, DeadlineExceeded));
      await sleep(7_000);
      assert.ok(await info(worker), 'it lives past its lease');
      await assert.rejects(Promise.resolve(used.mesh.visit(worker)), (error) => isError(error, WorkerPaused));
      await assert.rejects(used.mesh.inspect(worker, '1'), (error) => isError(error, WorkerPaused));
      await used.mesh.resume(worker);
      assert.ok((await waiting) >= 2);
      assert.equal((await info(worker))!.paused_at, undefined);
      await sleep(7_000);
      assert.ok((await ghost.tick()) >= 3, 'its owner’s heartbeats keep it again');
      await used.mesh.destruct(ghost);
    });

    it('can be destructed while it is paused, and leaves nothing', async (t) => {
      const { ghost, worker } = await make();
      if (!(await paused(used.mesh, worker, t))) return;
      await used.mesh.destruct(ghost);
      await until('nothing is left', () => traces(worker).length === 0);
      assert.equal((await fateOf(used.mesh, worker)).cause, 'destructed');
    });

    it('ends after its longest life, whoever renews its lease, paused or not', async (t) => {
      const one = await make({ max_life_ms: 3_000 });
      const other = await make({ max_life_ms: 3_000 });
      if (!(await paused(used.mesh, other.worker, t))) return;
      for (const { worker } of [one, other]) {
        const fate = await fateOf(used.mesh, worker);
        assert.deepEqual([fate.cause, fate.node !== undefined, fate.driver], ['max_life', true, driver]);
        assert.ok(fate.at - fate.born_at! >= 2_900, 'it lived as long as it might');
      }
    });

    it('ends when it is idle, not while a call is under way, nor by its owner’s heartbeats alone', async () => {
      const { ghost, worker } = await make({ idle_ms: 2_500, heartbeat_ms: 100 });
      assert.equal(await ghost.later(4_000), 'later');
      for (let i = 0; i < 4; i++) {
        await sleep(500);
        await ghost.tick();
      }
      const fate = await fateOf(used.mesh, worker);
      assert.equal(fate.cause, 'idle');
      assert.match(fate.reason, /nobody called it for 2500 ms/);
    });

    it('is looked into by its owner: the live object, its context, errors, bounds, deadlines', async () => {
      const { ghost, worker } = await make();
      await ghost.tick();
      assert.equal(await used.mesh.inspect(ghost, 'worker.tick()'), '2');
      assert.equal(await ghost.tick(), 3, 'it is the same object that callers see');
      assert.equal(await used.mesh.inspect(worker, 'await worker.later(5)'), 'later');
      assert.equal(await used.mesh.inspect(worker, 'hauki.worker // a comment'), worker);
      assert.equal(
        await used.mesh.inspect(worker, '({ a: [1, "x", null], m: new Map([["k", 2n]]), get g() { throw 1 } })'),
        '{ a: [1, "x", null], m: Map(1) {"k" => 2n}, g: [a getter] }',
      );
      assert.equal((await used.mesh.inspect(worker, '"x".repeat(1e6)')).length, 64 * 1024);
      await assert.rejects(used.mesh.inspect(worker, 'worker.fail("no")'), /RangeError: no/);
      await assert.rejects(used.mesh.inspect(worker, 'this is no expression'), /SyntaxError/);
      const late = used.mesh.inspect(worker, 'worker.never()', { timeout_ms: 200 });
      await assert.rejects(late, (error) => isError(error, DeadlineExceeded));
      const too_long = used.mesh.inspect(worker, '1', { timeout_ms: 1_000 * 3_600_000 });
      await assert.rejects(too_long, (error) => isError(error, BadInput));
      assert.equal(await ghost.tick(), 4, 'it goes on');
      const told = await Array.fromAsync(used.mesh.events({ names: ['WORKER_INSPECTED'], worker }));
      assert.ok(told.length >= 5);
      await used.mesh.destruct(ghost);
    });

    it('is looked into by nobody else: no visitor over its session, no token that merely targets it', async (t) => {
      const { ghost, worker } = await make();
      for (const method of ['inspect', 'rpc.inspect', 'activity']) {
        const answer = await fetch(`${used.local.url}/api/v2/ephemeral/${worker}`, {
          method: 'POST',
          headers: { authorization: `Bearer ${used.local.token}`, 'content-type': 'application/json' },
          body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params: ['1'] }),
        });
        assert.match(((await answer.json()) as any).error.message, /Method not found/);
      }
      const { token } = await used.mesh.tokens.create({
        name: 'guest',
        scopes: ['spawn', 'destruct', 'call'],
        targets: { workers: [worker] },
      });
      const guest = await connect({ core: used.local.url, token });
      await assert.rejects(guest.inspect(worker, '1'), (error) => isError(error, Forbidden));
      const { token: small } = await used.mesh.tokens.create({ name: 'small', scopes: ['spawn'] });
      const stranger = await connect({ core: used.local.url, token: small });
      for (const refused of [stranger.pause(worker), stranger.inspect(worker, '1'), collect(stranger.logs(worker))])
        await assert.rejects(refused, (error) => isError(error, Forbidden));
      if (await paused(guest, worker, t)) await guest.resume(worker);
      await Promise.all([guest.close(), stranger.close()]);
      await used.mesh.destruct(ghost);
    });

    it('tells its log with time and level, as it comes, and at its end why', async () => {
      const { ghost, worker } = await make();
      await ghost.say('one');
      const following = collect(used.mesh.logs(ghost, { follow: true }));
      await until('the log has its lines', async () => (await collect(used.mesh.logs(worker))).lines.length === 2);
      await ghost.say('two');
      await until('it has the others', async () => (await collect(used.mesh.logs(worker))).lines.length === 4);
      await used.mesh.destruct(ghost);
      const { lines, fate } = await following;
      const said = lines.map(({ seq, level, text }) => [seq, level, text]);
      assert.deepEqual(said, [
        [1, 'info', 'one'],
        [2, 'error', 'bad one'],
        [3, 'info', 'two'],
        [4, 'error', 'bad two'],
      ]);
      assert.ok(lines.every(({ at }) => Math.abs(at - Date.now()) < 60_000));
      assert.equal(fate!.cause, 'destructed');
      const after = await collect(used.mesh.logs(worker, { lines: 2 }));
      assert.deepEqual(
        after.lines.map(({ text }) => text),
        ['two', 'bad two'],
      );
      assert.equal(after.fate!.cause, 'destructed');
    });

    it('is cut to a rate where it floods its log, and says so; whoever follows hears what was dropped', async () => {
      const { ghost, worker } = await make();
      await ghost.flood(5_000);
      await until('it is quiet', async () => {
        // The first of a second may be, after a flood, in a second that had too many.
        await ghost.say('quiet again');
        await sleep(200);
        const { lines } = await collect(used.mesh.logs(worker, { lines: 20 }));
        return lines.some(({ text }) => text === 'quiet again');
      });
      const { lines } = await collect(used.mesh.logs(worker, { lines: 1_000 }));
      assert.ok(
        lines.some(({ text }) => /lines were dropped: too many at once/.test(text)) || lines.length === 1_000,
        'what was dropped is said',
      );
      await used.mesh.destruct(ghost);
    });

    it('lives on when its code logs a great deal in one turn: what is too much is dropped and counted', async () => {
      const source = `export const pour = (n) => { const line = 'x'.repeat(3_000); for (let i = 0; i < n; i++) console.log(i, line); return n; };`;
      const ghost = used.mesh.clone<{ pour(n: number): number }>({ source }, { driver, memory_mib: 64 });
      const { worker } = await used.mesh.details(ghost);
      assert.equal(await ghost.pour(20_000), 20_000);
      assert.equal(await ghost.pour(1), 1);
      const dropped = async () => {
        const { lines } = await collect(used.mesh.logs(worker, { lines: 1_000 }));
        const said = lines.map(({ text }) => /^\[(\d+) lines were dropped/.exec(text)?.[1]);
        return said.reduce((sum, count) => sum + Number(count ?? 0), 0);
      };
      await until('what was dropped is said', async () => (await dropped()) >= 19_000);
      await used.mesh.destruct(ghost);
    });

    it('shows what it uses: CPU time, memory, calls, log lines', async (t) => {
      const { ghost, worker } = await make();
      await ghost.burn(50);
      await ghost.say('hello');
      await ghost.add(1, 2);
      const told = async () => (await info(worker))!.usage;
      await until('all of it is told', async () => (await told())?.calls === 3 && (await told())?.log_lines === 2);
      const usage = (await told())!;
      assert.equal(usage.fetched_bytes, 0);
      if (usage.cpu_ms === null) return t.skip('this driver tells neither CPU time nor memory');
      assert.ok(usage.cpu_ms! > 1, `${usage.cpu_ms} ms of CPU`);
      assert.ok(usage.memory_bytes! > 100_000, `${usage.memory_bytes} bytes`);
      await used.mesh.destruct(ghost);
      const fate = await fateOf(used.mesh, worker);
      assert.ok(fate.usage!.cpu_ms! >= usage.cpu_ms!);
    });

    it('tells why it was never born, by the name that its error gives', async () => {
      const source = "console.log('so far'); throw new Error('not today')";
      const failed: any = await Promise.resolve(used.mesh.clone({ source }, { driver })).catch((error) => error);
      assert.ok(isError(failed, SourceRejected));
      const fate = await fateOf(used.mesh, failed.fields.worker!);
      assert.deepEqual([fate.cause, fate.born_at, fate.driver], ['rejected', undefined, driver]);
      assert.match(fate.reason, /not today/);
      assert.ok(fate.lines.some(({ text }) => text.includes('so far')));
      await assert.rejects(used.mesh.why('w-never-heard-of'), (error) => isError(error, WorkerUnknown));
    });
  });

  describe(`a paused worker in a ${driver} vault`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });

    it('leaves nothing when its agent is killed', async (t) => {
      const { worker } = await used.mesh.details(used.mesh.clone<Worker>({ source: SOURCE }, { driver }));
      const { pid } = (await used.mesh.registry()).workers.find((w) => w.worker === worker)!;
      if (!(await paused(used.mesh, worker, t))) return;
      await used.local.nodes[0]!.kill();
      await until('its process is gone', () => !lives(pid));
      await until('nothing is left', () => traces(worker).length === 0);
    });
  });
}
