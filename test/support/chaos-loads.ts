/**
 * What a mesh has to keep while its processes are killed: files and their versions, tokens, jobs, and lasting workers with
 * what is in their volumes. Each load remembers what it was told, and holds that against what is there.
 */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  connect,
  isError,
  type Mesh,
  type PendingGhost,
  PointerUnknown,
  Unauthorised,
  WorkerUnknown,
  withOptions,
} from '@hauki/mesh';
import { MESHFS_LIMITS } from '@hauki/meshfs';
import { digestOf, KILLED, type Load, type World } from './chaos-book.ts';
import type { DriverName } from './mesh.ts';

const REQUEST_MS = 60_000;
const PROVISION_MS = 150_000;

export interface MeshWorld extends World {
  mesh: Mesh;
}

/** Writes versions of a few pointers, each by one writer alone: so what must be there is known. */
export function files(world: MeshWorld, pointer: string): Load {
  const { book, mesh, random, over } = world;
  const told = new Map<number, string>();
  const tried = new Set<string>();
  /** All that must be there, and nothing that nobody wrote. */
  const held = async () => {
    const { versions } = await mesh.meshfs.history(pointer).catch((error) => {
      if (isError(error, PointerUnknown) && told.size === 0) return { versions: [] };
      throw error;
    });
    const there = new Map(versions.map(({ version, digest }) => [version, digest]));
    const oldest = versions.at(-1)?.version ?? 1;
    assert.ok(oldest === 1 || there.size >= MESHFS_LIMITS.kept_versions, `${pointer} begins with version ${oldest}`);
    for (const [version, digest] of told)
      if (version >= oldest) assert.equal(there.get(version), digest, `${pointer}, version ${version}`);
      else told.delete(version);
    for (const digest of there.values()) assert.ok(tried.has(digest), `nobody wrote ${digest} to ${pointer}`);
    return versions;
  };
  return {
    what: `files ${pointer}`,
    async run() {
      while (!over()) {
        const content = `${world.name('file')} `.repeat(1 + Math.floor(random() ** 3 * 8_000));
        const digest = digestOf(content);
        tried.add(digest);
        const last = Math.max(0, ...told.keys());
        // Some only where nothing came between, which after a write without an answer may be.
        const if_match = last > 0 && random() < 0.3 ? last : undefined;
        const written = await book.tried('write', REQUEST_MS, [...KILLED, 'PreconditionFailed'], () =>
          random() < 0.5
            ? mesh.meshfs.write(pointer, content, { if_match })
            : mesh.meshfs.put(pointer, content, { if_match, digest }),
        );
        if (written) {
          const { version, digest: as } = written.value;
          if (as !== digest || told.has(version)) book.fault(`${pointer}: version ${version} was told as ${as}`);
          told.set(version, digest);
          const read = await book.tried('read', REQUEST_MS, KILLED, () => mesh.meshfs.resolve(pointer));
          if (read && (read.value.version !== version || read.value.content !== content))
            book.fault(`${pointer}: version ${version} was written, ${read.value.version} is read`);
        }
        if (random() < 0.1) await book.tried('history', REQUEST_MS, KILLED, held);
        await sleep(random() * 150);
      }
    },
    async check() {
      for (const { version, digest } of await held())
        if (told.get(version) === digest)
          assert.equal(digestOf(await (await mesh.meshfs.get(pointer, { version })).text()), digest);
    },
  };
}

/** Makes tokens and revokes some. */
export function tokens({ book, mesh, random, over, name }: MeshWorld): Load {
  const made = new Map<string, { token: string; revoked: 'no' | 'maybe' | 'yes' }>();
  const works = async (token: string) => {
    // To see what a core says of it, not what stands in for it.
    await (await connect({ core: mesh.core, token })).tokens.self();
  };
  return {
    what: 'tokens',
    async run() {
      while (!over()) {
        const created = await book.tried('token', REQUEST_MS, KILLED, () =>
          mesh.tokens.create({ name: name('token'), scopes: ['spawn'] }),
        );
        if (created) made.set(created.value.id, { token: created.value.token, revoked: 'no' });
        const [id, one] = [...made].at(Math.floor(random() * made.size)) ?? [];
        if (id && one?.revoked === 'no' && random() < 0.4) {
          one.revoked = 'maybe';
          if (await book.tried('revoke', REQUEST_MS, KILLED, () => mesh.tokens.revoke(id))) one.revoked = 'yes';
        } else if (one && one.revoked !== 'maybe') {
          const { revoked, token } = one;
          const may_be = revoked === 'yes' ? [...KILLED, Unauthorised.row.name] : KILLED;
          const used = await book.tried('use of a token', REQUEST_MS, may_be, () => works(token));
          if (used && revoked === 'yes') book.fault(`the token ${id} was revoked, and works`);
        }
        await sleep(200 + random() * 300);
      }
    },
    async check() {
      for (const [id, { token, revoked }] of made)
        if (revoked === 'no') await works(token);
        else if (revoked === 'yes')
          await assert.rejects(works(token), (error) => isError(error, Unauthorised), `${id} was revoked`);
    },
  };
}

/** Hands in jobs; some may run once at most. */
export function jobs({ book, mesh, random, over, name }: MeshWorld): Load {
  const source = `export const work = async (id) => {
    await fetch('http://${book.target}/' + id + '/' + crypto.randomUUID(), { method: 'POST' });
    return id;
  };`;
  const often = source
    .replace("id + '/' +", "id + '-' +")
    .replace('+ crypto.randomUUID(),', "+ crypto.randomUUID() + '/1',");
  const handed = new Map<string, { id: string; once: boolean }>();
  return {
    what: 'jobs',
    async run() {
      while (!over()) {
        const id = name('job');
        const once = random() < 0.4;
        // Under its key it may be handed in again until its acceptance is heard.
        const options = {
          ...{ method: 'work', params: [id], key: id, attempts: once ? 1 : 100, retry_on_error: !once },
          ...{ driver: 'quickjs' as const, memory_mib: 8, grants: { fetch: [book.target], random: true } },
        };
        const accepted = await book.tried('job', REQUEST_MS, KILLED, () =>
          mesh.spool({ source: once ? source : often }, options),
        );
        if (accepted) handed.set(accepted.value.job, { id, once });
        await sleep(random() * 400);
      }
    },
    async check() {
      for (const [job, { id, once }] of handed) {
        const { state, error } = await mesh.jobs.get(job).state();
        if (state === 'done') {
          assert.equal(await mesh.jobs.get(job).result(), id);
          if (once) assert.equal(book.runs(id), 1, `${id} is done, and ran ${book.runs(id)} times`);
        } else {
          assert.equal(state, 'failed', `${job}, once: ${once}`);
          assert.ok(once, `${job} may be tried again, and failed: ${JSON.stringify(error)}`);
        }
      }
    },
  };
}

interface Keeper {
  keep(n: number): { birth: string; count: number };
  kept(): string[];
}
const KEEPER = `const birth = crypto.randomUUID(); let count = 0;
  export const keep = async (n) => { const now = ++count; await hauki.volume.write('kept/' + n, String(n)); return { birth, count: now }; };
  export const kept = async () => (await hauki.volume.list('kept')).map(({ name }) => name);`;

/** One lasting worker with a volume: what it was given it keeps, and an old life of it never answers again. */
export function lasting({ book, mesh, random, over, name }: MeshWorld, driver: DriverName): Load & { worker: string } {
  const worker = name(driver);
  const given = new Set<number>();
  let tries = 0;
  let life = { birth: '', count: 0 };
  const before = new Set<string>();
  let ghost: PendingGhost<Keeper> | undefined;
  const held = async () => {
    const there = new Set(await mesh.visit<Keeper>(worker, { timeout_ms: 20_000 }).kept());
    const lost = [...given].filter((n) => !there.has(String(n)));
    assert.deepEqual(lost, [], `lost from the volume of ${worker}`);
    for (const n of there) assert.ok(Number(n) <= tries, `nobody gave ${n} to ${worker}`);
  };
  return {
    what: `lasting ${driver}`,
    worker,
    async run() {
      const options = {
        ...{ name: worker, driver, memory_mib: driver === 'quickjs' ? 8 : 64 },
        grants: { volume: { name: worker, quota_mib: 16 }, random: true },
      };
      // Where its answer is lost it may be there all the same.
      const is_there = () => mesh.lasting.get(worker).then(Boolean, () => false);
      const provision = () =>
        book.tried('provision', PROVISION_MS, [...KILLED, 'NameTaken'], () =>
          mesh.provision({ source: KEEPER }, options),
        );
      while (!over() && !(await provision()) && !(await is_there())) await sleep(500);
      while (!over()) {
        const n = ++tries;
        ghost ??= mesh.visit<Keeper>(worker);
        const kept = await book.tried(`keep ${driver}`, 10_000, [...KILLED, 'VolumeFailed', 'TicketMisdirected'], () =>
          withOptions(ghost!, { timeout_ms: 10_000 }).keep(n),
        );
        if (kept) {
          const { birth, count } = kept.value;
          if (before.has(birth)) book.fault(`an old life of ${worker} answered`);
          if (birth === life.birth && count <= life.count) book.fault(`${worker} counted ${count} after ${life.count}`);
          if (birth !== life.birth) before.add(life.birth);
          life = kept.value;
          given.add(n);
        } else ghost = undefined;
        if (random() < 0.05) await book.tried(`kept ${driver}`, 20_000, KILLED, held);
        await sleep(random() * (kept ? 100 : 500));
      }
    },
    async check() {
      if (tries === 0) return;
      const { state, why } = await mesh.lasting.get(worker);
      assert.equal(state, 'running', `${worker}: ${why}`);
      await held();
    },
  };
}

/** Lasting workers that come and go. */
export function comings({ book, mesh, random, over, name }: MeshWorld): Load {
  const all = new Map<string, 'there' | 'gone' | 'maybe'>();
  return {
    what: 'comings',
    async run() {
      while (!over()) {
        const worker = name('guest');
        all.set(worker, 'maybe');
        const options = { name: worker, driver: 'quickjs' as const, memory_mib: 4 };
        if (
          await book.tried('provision', PROVISION_MS, KILLED, () =>
            mesh.provision({ source: 'export const f = () => 1;' }, options),
          )
        )
          all.set(worker, 'there');
        const [one] = [...all].find(([, is]) => is === 'there') ?? [];
        if (one && random() < 0.7) {
          all.set(one, 'maybe');
          if (await book.tried('delete', REQUEST_MS, KILLED, () => mesh.lasting.delete(one))) all.set(one, 'gone');
        }
        await sleep(500 + random() * 1_000);
      }
    },
    async check() {
      for (const [worker, is] of all)
        if (is === 'there') assert.equal((await mesh.lasting.get(worker)).state, 'running', worker);
        else if (is === 'gone')
          await assert.rejects(
            mesh.lasting.get(worker),
            (error) => isError(error, WorkerUnknown),
            `${worker} was deleted`,
          );
      for (const [worker, is] of all)
        if (is !== 'gone')
          await mesh.lasting.delete(worker).catch((error) => assert.ok(isError(error, WorkerUnknown), error));
      for (const worker of all.keys()) all.set(worker, 'gone');
    },
  };
}
