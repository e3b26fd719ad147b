/**
 * What the core keeps of workers' lives: fates over its own restarts, logs of lasting workers over theirs, quotas of
 * tokens in a burst, and the verbs that show all this.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  BadInput,
  connect,
  Forbidden,
  isError,
  type LogLine,
  type Mesh,
  NoNodeFits,
  QuotaExceeded,
  type TokenQuota,
  WorkerDied,
  WorkerUnknown,
} from '@hauki/mesh';
import { makeCallerKey } from '@hauki/rpc';
import { CALCULATOR, type Calculator, restartCore, until, useMesh } from './support/mesh.ts';

const BIN = fileURLToPath(new URL('../apps/cli/bin/hauki.js', import.meta.url));
const SOURCE = `${CALCULATOR}
  export const say = (text) => console.log(text);
  export const crash = () => { const all = []; for (;;) all.push(new Array(1e5).fill(all.length)); };`;
interface Talker extends Calculator {
  say(text: string): void;
  crash(): never;
}
const source = { source: SOURCE };
/** Counts, and so computes: so far that it takes more than 250 ms anywhere, and much less than 10 s. */
const COUNTS = { source: 'export function count(n) { let i = 0; while (i < n) i++; return i; }' };
const MANY = 12_000_000;
const name = (word: string) => `${word}-${crypto.randomUUID().slice(0, 8)}`;
const exceeded = (what: RegExp) => (error: unknown) => isError(error, QuotaExceeded) && what.test(error.fields.what);

describe('what the core keeps of workers', { concurrency: 2 }, () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });

  /** A mesh as the holder of a token with a quota sees it. */
  const holder = async (quota: Partial<TokenQuota>, maker = used.mesh) => {
    const made = await maker.tokens.create({ name: 'quota', scopes: ['spawn', 'provision', 'spool', 'tokens'], quota });
    return { ...made, mesh: await connect({ core: used.local.url, token: made.token }) };
  };

  const hauki = (...args: string[]) => haukiOf(used.local.token, ...args);
  const haukiOf = async (token: string, ...args: string[]) => {
    const child = spawn(process.execPath, [BIN, ...args, '--core', used.local.url], {
      env: { ...process.env, HAUKI_TOKEN: token },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const said = { out: '', err: '' };
    child.stdout.on('data', (chunk) => (said.out += chunk));
    child.stderr.on('data', (chunk) => (said.err += chunk));
    const [code] = await once(child, 'close');
    return { code, ...said };
  };

  it('refuses a job whose least isolation no node offers, and names it', async () => {
    const refused = used.mesh.clone(source, { min_isolation: 'container' });
    await assert.rejects(
      Promise.resolve(refused),
      (error) => isError(error, NoNodeFits) && /isolation vm, less than container/.test(error.message),
    );
  });

  it('bounds what a turn of a worker may compute as it was asked to, in clones, lasting workers and jobs', async () => {
    // An owner of its own, so that nobody's end waits behind its long turns in one thread.
    const { mesh } = await holder({});
    const quick = { driver: 'quickjs', memory_mib: 8 } as const;
    const wide = mesh.clone<{ count(n: number): number }>(COUNTS, { ...quick, turn_ms: 10_000 });
    assert.equal(await wide.count(MANY), MANY);
    const { worker } = await mesh.details(wide);
    const listed = (await used.mesh.registry()).workers.find((one) => one.worker === worker);
    assert.equal(listed!.turn_ms, 10_000);
    await mesh.destruct(wide);

    const narrow = mesh.clone<{ count(n: number): number }>(COUNTS, { ...quick, turn_ms: 250 });
    const dead = (await mesh.details(narrow)).worker;
    assert.equal(await narrow.count(10), 10);
    await assert.rejects(Promise.resolve(narrow.count(MANY)));
    await until('its end is known', async () => (await used.mesh.why(dead)).state === 'dead');
    const state = await used.mesh.why(dead);
    assert.ok(state.state === 'dead' && state.fate.cause === 'misbehaved', JSON.stringify(state));

    const lasting = name('narrow');
    await mesh.provision(COUNTS, { ...quick, name: lasting, turn_ms: 250 });
    const kept = (await used.mesh.registry()).workers.find((one) => one.worker.startsWith(lasting));
    assert.equal(kept!.turn_ms, 250);
    await mesh.lasting.delete(lasting);
    const job = { ...quick, method: 'count', params: [MANY], attempts: 1 };
    assert.equal(await (await mesh.spool(COUNTS, { ...job, turn_ms: 10_000 })).result(), MANY);
    await assert.rejects((await mesh.spool(COUNTS, { ...job, turn_ms: 250 })).result());

    const refused = (options: object, why: RegExp) =>
      assert.rejects(
        Promise.resolve(mesh.clone(COUNTS, options)),
        (error) => isError(error, BadInput) && why.test(error.message),
      );
    for (const turn_ms of [9, 10_001]) await refused({ ...quick, turn_ms }, /from 10 to 10000/);
    await refused({ ...quick, turn_ms: 10.5 }, /turn_ms/);
    await refused({ turn_ms: 100 }, /no driver but quickjs bounds a turn/);
    const { code, err } = await hauki('clone', 'examples/workers/greeter.ts', '--driver', 'quickjs', '--turn', '11s');
    assert.deepEqual([code, /from 10 to 10000/.test(err)], [2, true]);
    await mesh.close();
  });

  it('is a quota that no burst passes, for the token and all below it', async () => {
    const { mesh, id } = await holder({ vaults: 3 });
    const below = await holder({ vaults: 3 }, mesh);
    const burst = [mesh, below.mesh].flatMap((from) =>
      Array.from({ length: 6 }, () => from.clone<Calculator>(source, { memory_mib: 8 })),
    );
    const settled = await Promise.allSettled(burst);
    assert.equal(settled.filter(({ status }) => status === 'fulfilled').length, 3);
    for (const one of settled)
      if (one.status === 'rejected') assert.ok(exceeded(/vaults at once of the token/)(one.reason), String(one.reason));
    const listed = (await used.mesh.tokens.list()).find((token) => token.id === id)!;
    assert.deepEqual([listed.quota.vaults, listed.used!.vaults, listed.used!.memory_mib], [3, 3, 24]);
    const alive = settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value as object] : []));
    await used.mesh.destruct(
      await mesh.details(alive[0]!).then(
        ({ worker }) => worker,
        () => below.mesh.details(alive[0]!).then(({ worker }) => worker),
      ),
    );
    await until('there is room again', async () => (await mesh.tokens.self()).used!.vaults === 2);
    assert.equal(await mesh.clone<Calculator>(source, { memory_mib: 8 }).add(1, 2), 3);
    await Promise.all([mesh.close(), below.mesh.close()]);
  });

  it('is a quota of memory and of clones a minute too, and no token gives more than it has', async () => {
    const { mesh } = await holder({ memory_mib: 40, clones_per_minute: 3 });
    const first = mesh.clone<Calculator>(source, { memory_mib: 32 });
    assert.equal(await first.add(1, 1), 2);
    await assert.rejects(Promise.resolve(mesh.clone(source, { memory_mib: 16 })), exceeded(/MiB of memory together/));
    await assert.rejects(mesh.provision(source, { memory_mib: 16 }), exceeded(/MiB of memory together/));
    for (let i = 0; i < 2; i++) await mesh.destruct(await mesh.clone(source, { memory_mib: 4 }));
    await assert.rejects(Promise.resolve(mesh.clone(source, { memory_mib: 4 })), exceeded(/clones in a minute/));
    await assert.rejects(mesh.tokens.create({ name: 'more', scopes: ['spawn'], quota: { memory_mib: 41 } }), (error) =>
      isError(error, Forbidden),
    );
    await mesh.close();
  });

  it('is a quota whose refusal tells a user what is exceeded, by how much, and what to do', async () => {
    const made = await hauki(
      ...['token', 'create', '--name', 'narrow', '--scope', 'spawn', '--memory', '40', '--clones', '2', '--json'],
    );
    assert.equal(made.code, 0, made.err);
    const { token, id } = JSON.parse(made.out) as { token: string; id: string };
    const mesh = await connect({ core: used.local.url, token });
    const first = mesh.clone<Calculator>(source, { memory_mib: 32 });
    assert.equal(await first.add(1, 1), 2);
    const clone = (mib: number) =>
      haukiOf(token, 'clone', 'examples/workers/greeter.ts', '--driver', 'quickjs', '--memory', String(mib));
    const memory = await clone(16);
    assert.match(memory.err, new RegExp(`of 40 MiB of memory together of the token ${id} 32 are taken`));
    assert.match(memory.err, /16 more would be 8 too many. End some of its workers \(hauki ps, hauki kill\)/);
    await assert.rejects(Promise.resolve(mesh.clone(source, { memory_mib: 41 })), /Ask for less/);
    await mesh.destruct(await mesh.clone(source, { memory_mib: 4 }));
    const rate = await clone(4);
    assert.equal(rate.code, memory.code);
    assert.match(rate.err, /of 2 clones in a minute of the token narrow-\w+ 2 are taken.*Try again in \d+ s/);
    const response = await fetch(new URL('/api/v2/swarm_spawn_ephemeral', used.local.url), {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ source: SOURCE, memory_mib: 4, audience: (await makeCallerKey()).thumbprint }),
    });
    assert.equal(response.status, 429, await response.clone().text());
    const { error } = (await response.json()) as { error: { data: { fields: { wait_ms: number } } } };
    assert.equal(response.headers.get('retry-after'), String(Math.ceil(error.data.fields.wait_ms / 1_000)));
    await mesh.close();
  });

  it('ends, where that is asked for, a revoked token’s workers and jobs with it', async () => {
    const { mesh, id } = await holder({});
    const { worker } = await mesh.details(mesh.clone(source, { ttl_ms: 60_000 }));
    const lasting = (await mesh.provision(source, { name: name('lasting') })).worker;
    const { job } = await mesh.spool(source, { method: 'never' });
    const kept = await used.mesh.details(used.mesh.clone(source));
    assert.deepEqual(await used.mesh.tokens.revoke(id, { end_workers: true }), [id]);
    await until('all are gone', async () => {
      const names = (await used.mesh.registry()).workers.map((w) => w.worker);
      return !names.includes(worker) && !names.includes(lasting) && !names.some((n) => n.startsWith('s-'));
    });
    const state = await used.mesh.why(worker);
    assert.ok(state.state === 'dead' && state.fate.cause === 'token_revoked');
    assert.equal((await used.mesh.jobs.get(job).state()).state, 'cancelled');
    await assert.rejects(used.mesh.lasting.get(lasting), (error) => isError(error, WorkerUnknown));
    assert.equal((await used.mesh.why(kept.worker)).state, 'alive');
    await used.mesh.destruct(kept.worker);
    await mesh.close();
  });

  it('ends with a revoked token also what was still being made', async () => {
    const { mesh, id, owner } = await holder({});
    const slow = { source: `await new Promise((resolve) => setTimeout(resolve, 1_500)); ${SOURCE}` };
    const lasting = name('slow');
    const made = Promise.allSettled([
      mesh.details(mesh.clone(slow, { ttl_ms: 60_000 })),
      mesh.provision(slow, { name: lasting }),
    ]);
    const begun = new Set<string>();
    await until('both are begun', async () => {
      for await (const { fields } of used.mesh.events({ names: ['SPAWN_DISTRIBUTED'] }))
        if (fields.owner === owner) begun.add(String(fields.worker));
      return begun.size === 2;
    });
    await used.mesh.tokens.revoke(id, { end_workers: true });
    await made;
    await until('none lives', async () => !(await used.mesh.registry()).workers.some((w) => w.owner === owner));
    await assert.rejects(used.mesh.lasting.get(lasting), (error) => isError(error, WorkerUnknown));
    await mesh.close();
  });

  it('is a lasting worker’s log, followed over its restarts to its end', async () => {
    const worker = name('talker');
    await used.mesh.provision(source, { name: worker, memory_mib: 4 });
    const lines: LogLine[] = [];
    const following = (async () => {
      const log = used.mesh.logs(worker, { follow: true });
      for (;;) {
        const next = await log.next();
        if (next.done) return next.value;
        lines.push(next.value);
      }
    })();
    const heard = (text: string) => until(`it is heard: ${text}`, () => lines.some((line) => line.text.includes(text)));
    await used.mesh.visit<Talker>(worker).say('first life');
    await heard('first life');
    await killVault(used.mesh, worker);
    await heard('is being started again');
    await until('it runs again', async () => (await used.mesh.lasting.get(worker)).state === 'running');
    await used.mesh.visit<Talker>(worker).say('second life');
    await heard('second life');
    await used.mesh.lasting.delete(worker);
    assert.equal((await following)!.cause, 'destructed');
    assert.equal(lines.filter(({ text }) => text === 'first life').length, 1, 'each line once');
  });

  it('is shown by the verbs: ps, logs, exec, pause, resume, why with its exit codes', async () => {
    const ghost = used.mesh.clone<Talker>(source, { idle_ms: 600_000, max_life_ms: 600_000 });
    await ghost.say('hello from inside');
    const { worker } = await used.mesh.details(ghost);
    const ps = await hauki('ps');
    assert.match(ps.out, /CPU TIME +MEMORY +CALLS/);
    assert.match(ps.out, new RegExp(`${worker} .*quickjs \\(vm\\).*at most`));
    assert.match((await hauki('logs', worker)).out, /info +hello from inside/);
    assert.equal((await hauki('exec', worker, 'worker.add(20, 22)')).out, '42\n');
    assert.deepEqual(JSON.parse((await hauki('exec', worker, '[1]', '--json')).out), { worker, result: '[1]' });
    assert.match((await hauki('exec', worker, 'worker.fail("x")')).err, /RangeError: x/);
    const pausing = await hauki('pause', worker);
    if (pausing.code === 0) {
      assert.equal(pausing.out, `${worker}\n`);
      assert.match((await hauki('why', worker)).out, /lives on .*, paused since/);
      assert.match((await hauki('call', worker, 'add', '1', '2')).err, /is paused since/);
      assert.equal((await hauki('resume', worker)).code, 0);
    } else assert.match(pausing.err, /vaults of this driver cannot be paused/);
    assert.equal((await hauki('why', worker)).code, 7);
    const following = hauki('logs', worker, '-f', '--lines', '1');
    await ghost.say('more');
    await hauki('kill', worker);
    const followed = await following;
    assert.match(followed.err, new RegExp(`${worker} has ended \\(destructed`));
    const why = await hauki('why', worker);
    assert.equal(why.code, 0);
    for (const part of [/destructed: its owner or an admin ended it/, /it had lived for/, /it used .* calls/, /more/])
      assert.match(why.out, part);
    assert.equal((await hauki('why', 'w-nobody')).code, 3);
    const rejected = await hauki('clone', fileURLToPath(new URL('./support/no-worker.js', import.meta.url)));
    assert.equal(rejected.code, 2, rejected.err);
    const failing: any = await Promise.resolve(used.mesh.clone({ source: 'throw 1' })).catch((error) => error);
    assert.equal((await hauki('why', failing.fields.worker)).code, 1);
  });
});

describe('fates', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });

  it('are known after a kill -9 of the core, with cause, usage and last words', async () => {
    const ghost = used.mesh.clone<Talker>(source);
    await ghost.say('last words');
    const { worker } = await used.mesh.details(ghost);
    await used.mesh.destruct(worker);
    await restartCore(used.local);
    let state: Awaited<ReturnType<Mesh['why']>> | undefined;
    await until('the core is back', async () => {
      state = await used.mesh.why(worker).catch(() => undefined);
      return state !== undefined;
    });
    assert.ok(state?.state === 'dead', JSON.stringify(state));
    assert.deepEqual([state.fate.cause, state.fate.lines.map(({ text }) => text)], ['destructed', ['last words']]);
    assert.ok(state.fate.usage!.calls === null || state.fate.usage!.calls! >= 1);
    await assert.rejects(Promise.resolve(used.mesh.visit(worker)), (error) => isError(error, WorkerDied));
  });
});

/** Ends a worker’s vault from inside: its code runs for too long, or eats its memory. */
async function killVault(mesh: Mesh, worker: string): Promise<void> {
  const ghost = mesh.visit<Talker>(worker);
  await Promise.resolve(ghost.spin()).catch(() => {});
}
