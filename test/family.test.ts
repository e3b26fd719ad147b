/** Workers that clone workers: as their grant says, with no more than they have, and never outliving them. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, describe, it } from 'node:test';
import {
  BadInput,
  connect,
  type ErrorClass,
  Forbidden,
  GrantMissing,
  isError,
  type Mesh,
  NoNodeFits,
  Overloaded,
  QuotaExceeded,
  SourceRejected,
  WorkerDied,
} from '@hauki/mesh';
import { DRIVERS, type DriverName, missing, traces, until, useMesh } from './support/mesh.ts';

const no_python = !existsSync('/usr/bin/python3') && process.env.CI !== 'true' && 'python3 is not installed';

const refused = (promise: PromiseLike<unknown>, kind: ErrorClass<any>, pattern: RegExp) =>
  assert.rejects(Promise.resolve(promise), (error: Error) => {
    assert.ok(isError(error, kind), `${error.name}: ${error.message}`);
    assert.match(error.message, pattern);
    return true;
  });

const CHILD = `
  let n = 0;
  export const next = (by = 1) => (n += by);
  export const echo = (value) => value;
  export const fail = (text) => { throw new RangeError(text); };
  export const blame = () => {
    throw Object.assign(new RangeError('outer', { cause: new TypeError('inner') }), { code: 'E_OWN' });
  };
  export const never = () => new Promise(() => {});
  export const me = () => hauki.worker;
  export const get = async (url) => (await fetch(url)).text();
  export const read = (pointer) => hauki.meshfs.resolve(pointer).then((d) => d.content);
  export const spin = () => { for (;;) {} };`;

/** Keeps its clones by number. What it is told to clone may be itself. */
const PARENT = `${CHILD}
  const children = [];
  export const clone = async (source, options) => {
    const child = await hauki.clone(source.startsWith('gem-pointer') ? source : { source }, options);
    return [children.push(child) - 1, await child.me()];
  };
  export const call = (at, method, ...args) => children[at][method](...args);
  export const end = (at) => children[at].destruct();
  export const heard = async (at, method) => {
    const error = await children[at][method]().catch((thrown) => thrown);
    return [error.name, error.message, error.cause?.name, error.cause?.code, error.cause?.cause?.message];
  };`;

interface Parent {
  [method: string]: (...args: any[]) => any;
}

for (const driver of DRIVERS)
  describe(`a worker in a ${driver} vault that clones`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{}] });
    const memory_mib = driver === 'quickjs' ? 16 : 64;
    const parent = (grants: object, source = PARENT) =>
      used.mesh.clone<Parent>({ source }, { driver, memory_mib, grants });
    const alive = async (worker: string) => (await used.mesh.registry()).workers.some((w) => w.worker === worker);
    const gone = (worker: string) => until(`${worker} is gone`, async () => !(await alive(worker)));
    const same = { driver, memory_mib };

    it('calls its clone, hears what it throws, and ends it; the registry knows whose it is', async () => {
      const one = parent({ clone: 2 });
      const [at, child] = await one.clone!(CHILD, same);
      const { worker } = await used.mesh.details(one);
      const listed = (await used.mesh.registry()).workers.find((w) => w.worker === child)!;
      assert.deepEqual([listed.parent, listed.owner, listed.driver], [worker, 'admin', driver]);
      assert.deepEqual([await one.call!(at, 'next'), await one.call!(at, 'next', 4)], [1, 5]);
      const value = {
        date: new Date(0),
        map: new Map([[1n, [undefined, null, Number.NaN]]]),
        bytes: new Uint8Array([1, 2]),
      };
      assert.deepEqual(await one.call!(at, 'echo', value), value);
      await assert.rejects(one.call!(at, 'fail', 'as asked'), /RangeError: as asked/);
      const whole = ['RemoteError', 'RangeError: outer', 'RangeError', 'E_OWN', 'inner'];
      assert.deepEqual(await one.heard!(at, 'blame'), whole, 'its cause and its own properties too');
      await assert.rejects(one.call!(at, 'blame'), (error: any) => {
        assert.deepEqual([error.cause.code, error.cause.cause.message], ['E_OWN', 'inner']);
        return true;
      });
      await assert.rejects(one.call!(at, 'nothing'), /no method|nothing/);
      // Its owner reaches it like any worker of its own.
      assert.equal(await used.mesh.visit<{ next(): number }>(child).next(), 6);
      await one.end!(at);
      await gone(child);
      assert.deepEqual(traces(child), []);
      await refused(one.call!(at, 'next'), WorkerDied, /destructed/);
      await used.mesh.destruct(one);
    });

    it('ends its clone also while that is paused', async (t) => {
      const one = parent({ clone: 1 });
      const [at, child] = await one.clone!(CHILD, same);
      try {
        await used.mesh.pause(child);
      } catch (error) {
        if (!isError(error, BadInput) || !/cannot be paused/.test(error.message)) throw error;
        return t.skip(error.message);
      }
      await one.end!(at);
      await until('the core knows why', async () => {
        const known = await used.mesh.why(child);
        return known.state === 'dead' && /^destructed by .*, which had cloned it$/.test(known.fate.reason);
      });
      await used.mesh.destruct(one);
    });

    it('takes its clones and theirs with it, however it ends', async () => {
      const grants = { clone: { live: 4, memory_mib: 1024 } };
      const family = async () => {
        const one = parent(grants);
        const [at, child] = await one.clone!(PARENT, { ...same, grants });
        const [, grandchild] = await one.call!(at, 'clone', CHILD, same);
        const { worker } = await used.mesh.details(one);
        const { pid } = (await used.mesh.registry()).workers.find((w) => w.worker === worker)!;
        return { one, worker, pid, others: [child, grandchild] as string[] };
      };
      const destructed = await family();
      await used.mesh.destruct(destructed.one);
      // A destruct that has answered has ended them all.
      for (const other of destructed.others) {
        assert.equal(await alive(other), false);
        assert.deepEqual(traces(other), []);
      }
      const why = await used.mesh.why(destructed.others[1]!);
      assert.equal(why.state === 'dead' && why.fate.cause, 'parent_died');
      if (driver === 'lxc') {
        const killed = await family();
        process.kill(killed.pid, 'SIGKILL');
        for (const other of killed.others) await gone(other);
      }
      const lost = await family();
      await used.local.nodes[0]!.kill();
      for (const other of lost.others)
        await until(
          `nothing of ${other} runs`,
          () => traces(other).filter((line) => !line.startsWith('/run') && !line.startsWith('/sys')).length === 0,
        );
      const { startNode } = await import('@hauki/cli');
      const { nodeTokenFile } = await import('@hauki/mesh/data-dir');
      used.local.nodes[0] = await startNode({
        core_url: used.local.url,
        data_dir: `${used.local.data_dir}/node`,
        token_file: nodeTokenFile(used.local.data_dir),
      });
      for (const other of [lost.worker, ...lost.others]) await gone(other);
    });

    it('keeps to its quota: so many at once, so many ever, so much memory, its clones’ own clones included', async () => {
      const one = parent({ clone: { live: 2, total: 3, memory_mib: 4 * memory_mib } });
      const [first] = await one.clone!(PARENT, { ...same, grants: { clone: { live: 1, total: 1, memory_mib } } });
      const [, grandchild] = await one.call!(first, 'clone', CHILD, same);
      await refused(one.clone!(CHILD, same), QuotaExceeded, /living clones would be 3 of 2/);
      await one.end!(first);
      await gone(grandchild);
      await refused(one.clone!(CHILD, { driver, memory_mib: 5 * memory_mib }), QuotaExceeded, /memory/);
      const [third] = await one.clone!(CHILD, same);
      await one.end!(third);
      await refused(one.clone!(CHILD, same), QuotaExceeded, /ended ones included, would be 4 of 3/);
      await used.mesh.destruct(one);
    });

    it('gives its clone no more than it has itself', async () => {
      await used.mesh.meshfs.write('gem-pointer://wiki/family/mine', 'mine');
      await used.mesh.meshfs.write('gem-pointer://wiki/other/theirs', 'theirs');
      await used.mesh.meshfs.write(`gem-pointer://workers/${driver}`, CHILD, { language: 'javascript' });
      const one = parent({
        clone: { live: 8, memory_mib: 1024 },
        meshfs: { read: ['gem-pointer://wiki/family/'] },
        fetch: [{ to: 'example.org:443', methods: ['GET'], per_minute: 5 }],
      });
      const narrow = { meshfs: { read: ['gem-pointer://wiki/family/mine'] } };
      const [at] = await one.clone!(CHILD, { ...same, grants: narrow });
      assert.equal(await one.call!(at, 'read', 'gem-pointer://wiki/family/mine'), 'mine');
      // Whose grant it is, and what there is of it: its owner's token has them all.
      for (const [grants, wanted, has] of [
        [
          { meshfs: { read: ['gem-pointer://wiki/'] } },
          'meshfs.read gem-pointer://wiki/',
          'meshfs.read gem-pointer://wiki/family/',
        ],
        [
          { meshfs: { write: ['gem-pointer://wiki/family/mine'] } },
          'meshfs.write gem-pointer://wiki/family/mine',
          'no meshfs.write',
        ],
        [{ fetch: ['example.org:443'] }, 'fetch example.org:443', 'fetch example.org:443 by GET, 5 a minute'],
        [
          { fetch: [{ to: 'example.org:443', methods: ['GET'], per_minute: 6 }] },
          'fetch example.org:443 by GET, 6 a minute',
          'fetch example.org:443 by GET, 5 a minute',
        ],
        [{ connect: ['example.org:443'] }, 'connect example.org:443', 'no connect'],
        [{ volume: 'data' }, 'volume data of 64 MiB', 'no volume'],
        [{ clone: { live: 9, memory_mib: 1 } }, 'clone.live 9', 'clone.live 8'],
        [{ time: true }, 'time', 'no time'],
        [{ random: true }, 'random', 'no random'],
      ] as const)
        await refused(
          one.clone!(CHILD, { ...same, grants }),
          Forbidden,
          new RegExp(
            `: ${RegExp.escape(wanted)} is beyond the grants of w-[a-z0-9]+, which has ${RegExp.escape(has)}$`,
          ),
        );
      await refused(
        one.clone!(`gem-pointer://workers/${driver}`, same),
        Forbidden,
        /^The worker w-[a-z0-9]+, .+ does not reach the pointer/,
      );
      await refused(
        one.clone!(`import 'gem-pointer://wiki/other/theirs'; export const f = 1;`, same),
        Forbidden,
        /other\/theirs/,
      );
      await refused(one.clone!('export const f = (', same), SourceRejected, /parse/);
      await refused(parent({}).clone!(CHILD, same), GrantMissing, /clone/);
      await used.mesh.destruct(one);
    });

    it('has no more of a core by its clones, nor longer turns, also where it clones at once', async () => {
      const bounds = { cpu: 0.5, ...(driver === 'quickjs' ? { turn_ms: 500 } : {}) };
      const source = `${PARENT}\nconst first = hauki.clone({ source: ${JSON.stringify(CHILD)} }, ${JSON.stringify(same)});
        export const eldest = async () => (await first).me();`;
      const one = used.mesh.clone<Parent>({ source }, { ...same, ...bounds, grants: { clone: 4 } });
      const [at, child] = await one.clone!(PARENT, { ...same, grants: { clone: 1 } });
      const [, grandchild] = await one.call!(at, 'clone', CHILD, same);
      const family = [await one.eldest!(), child, grandchild];
      for (const { worker, cpu, turn_ms } of (await used.mesh.registry()).workers)
        if (family.includes(worker))
          assert.deepEqual({ cpu, turn_ms }, { turn_ms: undefined, ...bounds }, `of ${worker}`);
      await used.mesh.destruct(one);
    });

    it('reads nothing by its clones where it may only write, and hands on that it may write there', async () => {
      const at_inbox = `gem-pointer://inbox-${driver}/`;
      await used.mesh.meshfs.write(`${at_inbox}secret`, `${CHILD}\nexport const secret = () => 'kept';`, {
        language: 'javascript',
      });
      const grants = { meshfs: { write: [at_inbox] }, clone: { live: 4, memory_mib: 1024 } };
      const one = parent(grants);
      const imports = `export { me, secret } from '${at_inbox}secret';`;
      for (const source of [`${at_inbox}secret`, imports])
        await refused(one.clone!(source, same), Forbidden, /does not reach the pointer/);
      const writer = `${CHILD}\nexport const write = (pointer) => hauki.meshfs.write(pointer, 'from a clone').then(() => 1);`;
      const [at] = await one.clone!(writer, { ...same, grants: { meshfs: { write: [`${at_inbox}new`] } } });
      assert.equal(await one.call!(at, 'write', `${at_inbox}new`), 1);
      assert.equal((await used.mesh.meshfs.resolve(`${at_inbox}new`)).content, 'from a clone');
      await assert.rejects(one.call!(at, 'write', `${at_inbox}other`), /GrantMissing|no grant/);
      await used.mesh.destruct(one);
      const reader = parent({ ...grants, meshfs: { read: [at_inbox] } });
      for (const source of [`${at_inbox}secret`, imports]) {
        const [of] = await reader.clone!(source, same);
        assert.equal(await reader.call!(of, 'secret'), 'kept');
      }
      await used.mesh.destruct(reader);
    });

    it('has with all its clones together the rate that it was granted, also after some of them have ended', async () => {
      const server = createServer((_, response) => response.end('here'));
      after(() => void server.close());
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const to = `127.0.0.1:${(server.address() as AddressInfo).port}`;
      const rate = (per_minute: number) => ({ fetch: [{ to, per_minute }] });
      const one = parent({ ...rate(4), clone: { live: 3, total: 4, memory_mib: 1024 } });
      const url = `http://${to}/`;
      const [first] = await one.clone!(CHILD, { ...same, grants: rate(4) });
      const [second] = await one.clone!(PARENT, {
        ...same,
        grants: { ...rate(2), clone: { live: 1, total: 1, memory_mib } },
      });
      const [below] = await one.call!(second, 'clone', CHILD, { ...same, grants: rate(2) });
      assert.equal(await one.call!(second, 'call', below, 'get', url), 'here');
      assert.equal(await one.call!(second, 'get', url), 'here');
      await refused(one.call!(second, 'get', url), Overloaded, /of this worker and its clones\) .+ limit of 2/);
      await refused(one.call!(second, 'call', below, 'get', url), Overloaded, /w-\w+, from which this one stems/);
      assert.equal(await one.call!(first, 'get', url), 'here');
      await one.end!(first);
      assert.equal(await one.get!(url), 'here');
      await refused(one.get!(url), Overloaded, /of this worker and its clones\) .+ limit of 4/);
      const [next] = await one.clone!(CHILD, { ...same, grants: rate(4) });
      await refused(one.call!(next, 'get', url), Overloaded, /from which this one stems.+ limit of 4/);
      await used.mesh.destruct(one);
    });

    it('bounds each call of a clone in time, and may clone while it loads', async () => {
      const source = `const child = await hauki.clone({ source: ${JSON.stringify(CHILD)} }, { driver: '${driver}', memory_mib: ${memory_mib}, timeout_ms: 3_000 });
        export const name = () => child.me();
        export const wait = () => child.never();
        export const broken = () => {};`;
      const one = used.mesh.clone<Parent>({ source }, { driver, memory_mib, grants: { clone: 1 } });
      const child = await one.name!();
      assert.equal(await alive(child), true);
      await assert.rejects(Promise.resolve(one.wait!()), /3000 ms/);
      await used.mesh.destruct(one);
      await gone(child);
      const failing = `await hauki.clone({ source: ${JSON.stringify(CHILD)} }, { driver: '${driver}', memory_mib: ${memory_mib} }); throw new Error('changed my mind');`;
      await refused(
        used.mesh.clone({ source: failing }, { driver, memory_mib, grants: { clone: 1 } }),
        SourceRejected,
        /changed my mind/,
      );
      await until('no clone of it is left', async () => !(await used.mesh.registry()).workers.some((w) => w.parent));
    });
  });

describe('a clone in another kind of vault', { skip: missing('process') }, () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs', 'process'] }] });
  const clones = async (options: object, asked: object) => {
    const one = used.mesh.clone<Parent>({ source: PARENT }, { ...options, grants: { clone: 2 } });
    const [, child] = await one.clone!(CHILD, asked);
    const { isolation } = (await used.mesh.registry()).workers.find((w) => w.worker === child)!;
    await used.mesh.destruct(one);
    return isolation;
  };

  it('is held no weaker than its parent, unless its owner said that this will do', async () => {
    const weaker = { driver: 'process' };
    await refused(clones({ driver: 'quickjs' }, weaker), NoNodeFits, /isolation process, less than vm/);
    await refused(clones({ driver: 'quickjs', min_isolation: 'vm' }, weaker), NoNodeFits, /less than vm/);
    assert.equal(await clones({ driver: 'quickjs', min_isolation: 'process' }, weaker), 'process');
    assert.equal(await clones({ driver: 'process' }, { driver: 'quickjs' }), 'vm', 'stronger it may be');
    const loading = `await hauki.clone({ source: ${JSON.stringify(CHILD)} }, { driver: 'process' }); ${CHILD}`;
    await refused(
      used.mesh.clone({ source: loading }, { driver: 'quickjs', grants: { clone: 1 } }),
      SourceRejected,
      /less than vm/,
    );
  });
});

describe('clones of a narrower token’s workers', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs' satisfies DriverName] }] });
  const meshes: Mesh[] = [];
  after(() => Promise.all(meshes.map((mesh) => mesh.close())));

  it('are that token’s, and none is made once it is gone', async () => {
    const { token, id, owner } = await used.mesh.tokens.create({ name: 'test', scopes: ['spawn'] });
    const mesh = await connect({ core: used.local.url, token });
    meshes.push(mesh);
    const one = mesh.clone<Parent>({ source: PARENT }, { grants: { clone: 4 }, ttl_ms: 60_000 });
    const [, child] = await one.clone!(CHILD, {});
    assert.equal((await used.mesh.registry()).workers.find((w) => w.worker === child)!.owner, owner);
    const { worker } = await mesh.details(one);
    const visit = used.mesh.visit<Parent>(worker);
    await used.mesh.tokens.revoke(id);
    await assert.rejects(Promise.resolve(visit.clone!(CHILD, {})));
  });
});

for (const driver of ['lxc', 'process'] satisfies DriverName[])
  describe(`clones in Python, in ${driver} vaults`, { skip: missing(driver) || no_python }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });

    it('are made of source by a worker in Python, of memory in whole MiB, in a language that there is', async () => {
      const source = `
import hauki
def twice(n, memory_mib, language):
    child = hauki.clone(source="def twice(n): return 2 * n", language=language, driver="${driver}", memory_mib=memory_mib)
    try:
        return child.twice(n)
    finally:
        child.destruct()
`;
      const grants = { clone: { live: 1, memory_mib: 256 } };
      const worker = used.mesh.clone<Parent>({ source, language: 'python' }, { driver, memory_mib: 64, grants });
      assert.equal(await worker.twice!(21, 64, 'python'), 42);
      await assert.rejects(worker.twice!(21, 64.3, 'python'), /clone: memory_mib.*must be a whole number/);
      await assert.rejects(worker.twice!(21, -64, 'python'), /clone: memory_mib.*must be a whole number/);
      await assert.rejects(worker.twice!(21, 64, 'perl'), /clone: language.*javascript, typescript, python/);
      await used.mesh.destruct(worker);
    });
  });
