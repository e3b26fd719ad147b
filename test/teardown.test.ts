/** Who dies with whom (design, decision 10): whatever is killed, nothing is left of a worker that nobody holds. */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startNode } from '@hauki/cli';
import { connect, isError, logText, type Mesh, OutcomeUnknown, VaultFailed, WorkerDied } from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { killedAt } from './support/last-moment.ts';
import {
  CALCULATOR,
  type Calculator,
  DRIVERS,
  descendants,
  lives,
  missing,
  restartCore,
  traces,
  until,
  useMesh,
} from './support/mesh.ts';

/** Long enough for an owner on a busy machine to renew it; for the tests that wait for its end. */
const LEASE_MS = 3_000;
const SOURCE = `${CALCULATOR}
  export const onEnd = async (reason) => { console.log('last words: ' + reason); };`;

const find = async (mesh: Mesh, worker: string) => (await mesh.registry()).workers.find((w) => w.worker === worker);

const answers = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connectTcp(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });

for (const driver of DRIVERS) {
  describe(`teardown with ${driver} vaults`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });
    const options = { driver };
    const short = { lease_ms: LEASE_MS };
    const spawn = async (extra: object = {}) => {
      const ghost = used.mesh.clone<Calculator>({ source: SOURCE }, { ...options, ...extra });
      const { worker } = await used.mesh.details(ghost);
      const info = await find(used.mesh, worker);
      assert.ok(info, 'a living worker is in the registry');
      return { ghost, worker, info };
    };
    const nothingLeft = async (worker: string, port: number) => {
      await until(`nothing of ${worker} is left`, () => traces(worker).length === 0);
      assert.equal(await answers(port), false, 'its port is closed');
    };

    it('destruct kills at once, and tells waiting callers why', async () => {
      const { ghost, worker, info } = await spawn();
      const waiting = assert.rejects(
        ghost.never(),
        (error) => isError(error, WorkerDied) && error.fields.cause === 'destructed',
      );
      await used.mesh.destruct(ghost);
      assert.deepEqual(traces(worker), [], 'nothing is left when destruct returns');
      await nothingLeft(worker, info.direct.port);
      await waiting;
      await assert.rejects(ghost.add(1, 2), (error) => isError(error, WorkerDied));
      assert.equal(await find(used.mesh, worker), undefined);
    });

    it('destruct needs nothing of a worker that spins for ever', async () => {
      const { ghost, worker, info } = await spawn();
      const waiting = assert.rejects(ghost.spin());
      await used.mesh.destruct(ghost);
      await nothingLeft(worker, info.direct.port);
      await waiting;
    });

    it('one that spins, or waits in one place, is ended for that, and not as one that nobody renewed', async () => {
      const source = `export const spin = () => { for (;;); };
        export const stand = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);`;
      const reasons = {
        spin: /it did not answer within \d+ ms .* It computed for \d+ ms/,
        stand: /its code waits in one place|It computed/,
      };
      // In quickjs its turn is over before its lease is, but for a machine that has too much to do.
      const causes = driver === 'quickjs' ? ['misbehaved', 'unresponsive'] : ['unresponsive'];
      const ended = async (method: 'spin' | 'stand') => {
        const ghost = used.mesh.clone<{ spin(): never; stand(): never }>({ source }, { ...options, ...short });
        const { worker } = await used.mesh.details(ghost);
        await assert.rejects(ghost[method](), (error) => {
          assert.ok(isError(error, WorkerDied), `${error}`);
          assert.ok(causes.includes(error.fields.cause), error.fields.cause);
          if (driver !== 'quickjs') assert.match(error.message, reasons[method]);
          return true;
        });
        const told = await used.mesh.why(worker);
        assert.ok(told.state === 'dead' && causes.includes(told.fate.cause), JSON.stringify(told));
      };
      // There is nothing in a quickjs vault that code could wait in.
      await Promise.all([ended('spin'), ...(driver === 'quickjs' ? [] : [ended('stand')])]);
    });

    if (driver !== 'quickjs')
      it('one that breaks its control channel is ended for that, and not as one that ended by itself', async () => {
        const source = `export const junk = () => {
          const fs = process.getBuiltinModule('node:fs');
          setTimeout(() => fs.writeSync(4, 'junk '.repeat(100)), 50);
        };`;
        const ghost = used.mesh.clone<{ junk(): void }>({ source }, options);
        const { worker } = await used.mesh.details(ghost);
        await ghost.junk();
        let told = await used.mesh.why(worker);
        for (let i = 0; i < 300 && told.state !== 'dead'; i++, told = await used.mesh.why(worker)) await sleep(50);
        assert.ok(told.state === 'dead' && told.fate.cause === 'misbehaved', JSON.stringify(told));
        await until('nothing of it is left', () => traces(worker).length === 0);
      });

    it('a worker lives on past its lease while its owner does', async () => {
      const { ghost } = await spawn(short);
      await new Promise((resolve) => setTimeout(resolve, LEASE_MS * 2));
      assert.equal(await ghost.add(20, 22), 42);
      await used.mesh.destruct(ghost);
    });

    it('when its owner is killed with -9, a worker says its last words and is gone after the lease', async () => {
      const env = { ...process.env, HAUKI_URL: used.local.url, HAUKI_TOKEN: used.local.token };
      const owner = fork(
        new URL('./support/owner.ts', import.meta.url),
        [JSON.stringify({ ...options, ...short, count: 3, source: SOURCE })],
        { env },
      );
      const [workers] = (await once(owner, 'message')) as [string[]];
      const infos = await Promise.all(workers.map((worker) => find(used.mesh, worker)));
      owner.kill('SIGKILL');
      for (const [i, worker] of workers.entries()) {
        await until(`${worker} has ended`, async () => (await find(used.mesh, worker)) === undefined);
        await nothingLeft(worker, infos[i]!.direct.port);
        const answer = await fetch(`${used.local.url}/api/v2/ephemeral/${worker}`, {
          headers: { authorization: `Bearer ${used.local.token}` },
        });
        const { state, fate } = (await answer.json()) as any;
        assert.equal(state, 'dead');
        assert.equal(fate.cause, 'lease_expired');
        assert.match(logText(fate.lines), /last words: nobody renewed its lease/);
      }
    });

    it('a worker with a ttl outlives its owner for so long, and no longer', async () => {
      const { ghost, worker, info } = await spawn({ ...short, ttl_ms: 2 * LEASE_MS });
      const other = await connect({ core: used.local.url, token: used.local.token });
      const lasting = other.clone<Calculator>({ source: SOURCE }, { ...options, ...short, ttl_ms: 2 * LEASE_MS });
      const { worker: kept } = await other.details(lasting);
      await other.close();
      await new Promise((resolve) => setTimeout(resolve, LEASE_MS + 500));
      assert.ok(await find(used.mesh, kept), 'it lives without an owner');
      assert.equal(await used.mesh.visit<Calculator>(kept).add(1, 1), 2);
      await until(`${kept} has ended`, async () => (await find(used.mesh, kept)) === undefined);
      const ended = await used.mesh.why(kept);
      assert.ok(ended.state === 'dead');
      assert.match(ended.fate.reason, new RegExp(`, and its ttl of ${2 * LEASE_MS} ms is over$`));
      await used.mesh.destruct(ghost);
      await nothingLeft(worker, info.direct.port);
    });

    it('when the process that holds a vault is killed with -9, its callers learn it and the node goes on', async () => {
      const { ghost, worker, info } = await spawn();
      const waiting = assert.rejects(
        ghost.never(),
        (error) => isError(error, WorkerDied) && error.fields.cause !== 'destructed',
      );
      assert.ok(info.pid > 0 && lives(info.pid));
      process.kill(info.pid, 'SIGKILL');
      await waiting;
      await nothingLeft(worker, info.direct.port);
      const { ghost: next } = await spawn();
      assert.equal(await next.add(1, 2), 3);
      await used.mesh.destruct(next);
    });

    if (driver === 'quickjs')
      it('a worker that is loading when its host is killed is not told that its source was refused', async () => {
        const { ghost, info } = await spawn();
        const server = createServer((socket) => socket.on('error', () => {}))
          .listen(0, '127.0.0.1')
          .unref();
        const asked = once(server, 'connection');
        await once(server, 'listening');
        const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
        // It says that it loads, and is not answered.
        const source = `await fetch('http://${host}/'); export const f = () => 1;`;
        const loading = used.mesh.clone({ source }, { ...options, grants: { fetch: [host] }, load_timeout_ms: 20_000 });
        const rejected = assert.rejects(Promise.resolve(loading), (error) => isError(error, VaultFailed));
        const [socket] = await asked;
        process.kill(info.pid, 'SIGKILL');
        await rejected;
        socket.destroy();
        server.close();
        await used.mesh.destruct(ghost).catch(() => {});
      });

    it('a vault that takes more memory than it was given dies alone, and its callers learn why', async () => {
      const bomb = `export const grow = () => { const all = []; for (;;) all.push(new Array(1e5).fill(all.length)); };`;
      const memory_mib = driver === 'quickjs' ? 16 : 96;
      const ghost = used.mesh.clone<{ grow(): never }>({ source: bomb }, { ...options, memory_mib });
      const { worker } = await used.mesh.details(ghost);
      const { ghost: neighbour } = await spawn();
      await assert.rejects(ghost.grow(), (error: Error) => /memory|heap/i.test(error.message));
      assert.equal(await neighbour.add(2, 2), 4);
      await used.mesh.destruct(worker).catch(() => {});
      await until(`nothing of ${worker} is left`, () => traces(worker).length === 0);
      const told = await used.mesh.why(worker);
      const usage = told.state === 'dead' ? told.fate.usage : undefined;
      assert.ok((usage?.cpu_ms ?? 0) > 0, 'what it computed is known, although nobody looked while it lived');
      assert.ok((usage?.memory_bytes ?? 0) > 4 * 1024 * 1024, `and its memory: ${usage?.memory_bytes}`);
      await used.mesh.destruct(neighbour);
    });

    it('when the core is killed with -9, workers with live callers go on, and a new core knows them again', async () => {
      const { ghost, worker } = await spawn(short);
      const { ghost: other, worker: otherWorker, info } = await spawn(short);
      await used.local.core.kill();
      await new Promise((resolve) => setTimeout(resolve, LEASE_MS * 2));
      assert.equal(await ghost.add(2, 3), 5, 'the direct route needs no core');
      await used.mesh.destruct(other);
      await nothingLeft(otherWorker, info.direct.port);
      await restartCore(used.local);
      await until('the node is back', async () => (await used.mesh.registry()).nodes.length === 1);
      assert.ok(await find(used.mesh, worker), 'the new core lists the worker');
      assert.equal(await ghost.add(3, 4), 7);
      await used.mesh.destruct(ghost);
      assert.equal(await find(used.mesh, worker), undefined);
    });

    it('when the agent is killed with -9, nothing of its vaults is left, and its next start goes on', async () => {
      const { ghost, worker, info } = await spawn();
      const [agent] = used.local.nodes;
      const children = descendants(agent!.child.pid!);
      assert.ok(children.length > 0, 'the agent has vaults or their host below it');
      const waiting = assert.rejects(ghost.never(), (e) => isError(e, WorkerDied) || isError(e, OutcomeUnknown));
      await agent!.kill();
      await until('no process of the agent is left', () => children.every((pid) => !lives(pid)));
      await nothingLeft(worker, info.direct.port);
      await waiting;
      used.local.nodes[0] = await startNode({
        core_url: used.local.url,
        data_dir: join(used.local.data_dir, 'node'),
        token_file: nodeTokenFile(used.local.data_dir),
        drivers: [driver],
      });
      assert.equal(used.local.nodes[0].node, agent!.node, 'a node keeps its name');
      await nothingLeft(worker, info.direct.port);
      const { ghost: next } = await spawn();
      assert.equal(await next.add(1, 2), 3);
      await used.mesh.destruct(next);
    });
  });
}

describe('whoever starts a core, a node or a kernel, and is killed before that has said a word', () => {
  for (const what of ['core', 'node', 'microkernel'] as const)
    it(`leaves no ${what}`, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'hauki-parent-'));
      const data_dir = join(folder, 'data');
      writeFileSync(join(folder, 'token'), 'nobody answers to it');
      const options = {
        core: { data_dir, port: 0 },
        // No core will ever answer it.
        node: { data_dir, core_url: 'http://127.0.0.1:9', token_file: join(folder, 'token'), drivers: ['quickjs'] },
        microkernel: { data_dir, id: `orphan${process.pid}`, port: 0, drivers: ['quickjs'] },
      };
      const name = what === 'microkernel' ? 'KERNEL' : what.toUpperCase();
      await killedAt(
        folder,
        { '{ fork }': 'node:child_process' },
        `const entry = ${JSON.stringify(import.meta.resolve(`@hauki/${what}/main`))};
         const child = fork(new URL(entry).pathname, [], { execArgv: ['--disable-warning=ExperimentalWarning'], stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
         fs.writeFileSync(${JSON.stringify(join(folder, 'pid'))}, String(child.pid));
         die();`,
        { [`HAUKI_${name}_OPTIONS`]: JSON.stringify(options[what]) },
      );
      const pid = Number(readFileSync(join(folder, 'pid'), 'utf8'));
      await until(`the ${what} ends with who started it`, () => !lives(pid));
      rmSync(folder, { recursive: true, force: true });
    });
});
