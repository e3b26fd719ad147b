/** Tokens against a real mesh: what each scope and target lets through, that they outlive kill -9, and that they end. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectTcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { startCore, startNode } from '@hauki/cli';
import {
  BadInput,
  type CoreForNode,
  connect,
  type ErrorClass,
  Forbidden,
  isError,
  type Mesh,
  Overloaded,
  type Scope,
  type TokenTargets,
  TokenUnknown,
  Unauthorised,
} from '@hauki/mesh';
import { MESHFS_LIMITS } from '@hauki/meshfs';
import { LIMITS } from '@hauki/protocol';
import { remote, Session } from '@hauki/rpc';
import { dialUpgrade, streamTransport } from '@hauki/rpc/node';
import { CALCULATOR, type Calculator, until, useMesh } from './support/mesh.ts';
import { keptPort } from './support/ports.ts';

const refused = (promise: Promise<unknown> | PromiseLike<unknown>, kind: ErrorClass<any>, pattern: RegExp) =>
  assert.rejects(Promise.resolve(promise), (error: Error) => {
    assert.ok(isError(error, kind), `${error.name}: ${error.message}`);
    assert.match(error.message, pattern);
    return true;
  });

describe('a narrower token', () => {
  const used = useMesh({
    nodes: [
      { drivers: ['quickjs'], name: 'node-1' },
      { drivers: ['quickjs'], name: 'node-2' },
    ],
  });
  const meshes: Mesh[] = [];
  after(() => Promise.all(meshes.map((mesh) => mesh.close())));

  /** A mesh as the holder of a token made for it sees it. */
  const holder = async (scopes: Scope[], targets?: TokenTargets, maker = used.mesh) => {
    const { token, id, owner } = await maker.tokens.create({ name: 'test', scopes, ...(targets && { targets }) });
    const mesh = await connect({ core: used.local.url, token });
    meshes.push(mesh);
    return { mesh, token, id, owner };
  };

  it('that may clone has its own workers, and none of others’', async () => {
    const { mesh, owner } = await holder(['spawn']);
    const mine = mesh.clone<Calculator>({ source: CALCULATOR });
    const others = used.mesh.clone<Calculator>({ source: CALCULATOR });
    assert.equal(await mine.add(1, 2), 3);
    const { worker } = await mesh.details(mine);
    const { worker: other } = await used.mesh.details(others);
    const listed = (await used.mesh.registry()).workers.find((w) => w.worker === worker);
    assert.equal(listed?.owner, owner, 'the registry says whose it is');

    assert.equal(await mesh.visit<Calculator>(worker).add(2, 3), 5);
    await refused(mesh.visit<Calculator>(other).add(1, 1), Forbidden, /needs a token with the scope call/);
    await refused(mesh.destruct(other), Forbidden, /needs a token with the scope destruct/);
    await refused(mesh.registry(), Forbidden, /scope read; this one has spawn/);
    await refused(mesh.meshfs.resolve('gem-pointer://wiki/a/b'), Forbidden, /scope meshfs.read/);
    await refused(mesh.tokens.list(), Forbidden, /scope tokens/);
    assert.equal(await used.mesh.visit<Calculator>(worker).add(1, 1), 2, 'an admin may');
    await mesh.destruct(worker);
    assert.equal(await others.add(1, 1), 2, 'and the other lives on');
  });

  it('that may call reaches the workers it is made for, over every way in', async () => {
    const ghost = used.mesh.clone<Calculator>({ source: CALCULATOR });
    const { worker } = await used.mesh.details(ghost);
    const { worker: other } = await used.mesh.details(used.mesh.clone({ source: CALCULATOR }));
    const { mesh, token } = await holder(['call'], { workers: [worker] });
    for (const routing of ['p2p_only', 'relay_only'] as const)
      assert.equal(await mesh.visit<Calculator>(worker, { routing }).add(20, 22), 42);
    const post = async (name: string) => {
      const answer = await fetch(`${used.local.url}/api/v2/ephemeral/${name}`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: '{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2]}',
      });
      return [answer.status, await answer.json()];
    };
    assert.deepEqual(await post(worker), [200, { jsonrpc: '2.0', id: 1, result: 3 }]);
    const [status, body] = (await post(other)) as [number, any];
    assert.equal(status, 403);
    assert.equal(body.error.data.fields.target, other);
    await refused(mesh.visit<Calculator>(other).add(1, 1), Forbidden, /does not reach the worker/);
    await refused(mesh.clone({ source: CALCULATOR }), Forbidden, /scope spawn/);
    await refused(mesh.destruct(worker), Forbidden, /scope destruct/);
    // The relay itself, with a ticket or without.
    const { port, host } = new URL(used.local.url);
    const relayed = (name: string) =>
      new Promise<string>((resolve) => {
        const socket = connectTcp(Number(port), '127.0.0.1');
        socket.once('data', (data) => {
          resolve(data.toString().split('\r\n')[0]!);
          socket.destroy();
        });
        socket.write(
          `GET /api/v2/ephemeral/${name} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: hauki\r\nAuthorization: Bearer ${token}\r\n\r\n`,
        );
      });
    assert.match(await relayed(worker), / 101 /);
    assert.match(await relayed(other), / 403 /);
  });

  it('holds and narrows those that it may end: lasting ones with provision, others with destruct', async () => {
    const grants = { clone: 1 };
    const { worker: clone } = await used.mesh.details(used.mesh.clone({ source: CALCULATOR }, { grants }));
    const { worker: lasting } = await used.mesh.provision({ source: CALCULATOR }, { name: 'held', grants });
    const workers = [clone, lasting];
    const log = (mesh: Mesh, worker: string) => mesh.logs(worker).next();
    for (const [scope, ends, other] of [
      ['destruct', clone, lasting],
      ['provision', lasting, clone],
    ] as const) {
      const { mesh } = await holder([scope], { workers });
      for (const act of [mesh.pause, mesh.resume] as const) {
        await refused(act.call(mesh, other), Forbidden, /needs a token with the scope/);
        await act.call(mesh, ends);
      }
      await refused(mesh.revoke(other, { clone: true }), Forbidden, /needs a token with the scope/);
      await refused(log(mesh, other), Forbidden, /needs a token with the scope/);
      await log(mesh, ends);
      assert.equal((await mesh.revoke(ends, { clone: true })).clone, null);
    }
    await used.mesh.destruct(clone);
    await used.mesh.lasting.delete(lasting);
  });

  it('leaves places for others, however many tokens it makes of itself', async () => {
    const { worker } = await used.mesh.details(used.mesh.clone({ source: CALCULATOR }));
    const scopes: Scope[] = ['read', 'events', 'meshfs.write', 'tokens'];
    const { mesh, token } = await holder(scopes);
    const { token: child } = await holder(scopes, undefined, mesh);
    const leaving = new AbortController();
    // Kept, because an answer that nobody holds is given up when garbage is collected.
    const answers: Response[] = [];
    for (const [path, most] of [
      [`ephemeral/${worker}/logs?follow=true`, LIMITS.log_streams / 2],
      ['events', LIMITS.event_streams_each],
    ] as const) {
      const read = async (by: string) => {
        const headers = { authorization: `Bearer ${by}` };
        const answer = await fetch(`${used.local.url}/api/v2/${path}`, { headers, signal: leaving.signal });
        answers.push(answer);
        return answer.status;
      };
      const seen = await Promise.all(Array.from({ length: most + 2 }, (_, i) => read(i % 2 ? token : child)));
      assert.equal(seen.filter((status) => status === 200).length, most, path);
      assert.equal(await read(child), 429);
      assert.equal(await read(used.local.token), 200, 'an admin');
      assert.equal(await read((await holder(scopes)).token), 200, 'another');
    }
    let refused = 0;
    for (let i = 0; i < MESHFS_LIMITS.streams_at_once / 2 + 2; i++) {
      // A content that begins, and of which no more comes.
      const body = new ReadableStream({ start: (content) => content.enqueue(new Uint8Array(1)) });
      const request = { method: 'PUT', body, duplex: 'half', signal: leaving.signal };
      const headers = { authorization: `Bearer ${i % 2 ? token : child}` };
      fetch(`${used.local.url}/api/v2/meshfs/raw?pointer=gem-pointer://wiki/still/${i}`, { ...request, headers }).then(
        ({ status }) => {
          if (status === 429) refused++;
        },
        () => {},
      );
    }
    await until('two are refused', () => refused === 2);
    leaving.abort();
    await used.mesh.destruct(worker);
  });

  it('leaves others a way to a worker, however many visitors it and all below it have there', async () => {
    const { worker } = await used.mesh.details(used.mesh.clone({ source: CALCULATOR }));
    const targets = { workers: [worker] };
    const one = await holder(['call', 'tokens'], targets);
    const child = await holder(['call'], targets, one.mesh);
    const visit = (mesh: Mesh) => mesh.visit<Calculator>(worker).add(1, 2);
    for (let i = 0; i < LIMITS.visitors / 2; i++) assert.equal(await visit((i % 2 ? one : child).mesh), 3);
    await refused(visit(one.mesh), Overloaded, /visitors of this worker, of one token and all below it/);
    await refused(visit(child.mesh), Overloaded, /limit of 120/);
    const another = await holder(['call'], targets);
    assert.equal(await visit(another.mesh), 3);
    const answer = await fetch(`${used.local.url}/api/v2/ephemeral/${worker}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${another.token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'add', params: [1, 2] }),
    });
    assert.deepEqual(await answer.json(), { jsonrpc: '2.0', id: 1, result: 3 });
    assert.equal(await visit(used.mesh), 3);
    await used.mesh.destruct(worker);
  });

  it('reaches pointers below its prefixes, in no spelling others', async () => {
    for (const page of ['mine/a', 'mine/deep/b', 'mineral/c', 'Mine/d', 'other/e'])
      await used.mesh.meshfs.write(`gem-pointer://wiki/${page}`, `# ${page}`);
    const { mesh } = await holder(['meshfs'], { pointers: ['gem-pointer://wiki/mine/'] });
    assert.equal((await mesh.meshfs.resolve('gem-pointer://WIKI/mine/a.md')).content, '# mine/a');
    await mesh.meshfs.write('gem-pointer://wiki/mine/new', 'text');
    for (const page of ['mineral/c', 'Mine/d', 'other/e', 'other/new']) {
      await refused(mesh.meshfs.resolve(`gem-pointer://wiki/${page}`), Forbidden, /does not reach the pointer/);
      await refused(mesh.meshfs.write(`gem-pointer://wiki/${page}`, 'x'), Forbidden, /does not reach the pointer/);
    }
    for (const trick of ['mine/../other/e', 'mine/%2e%2e/other/e', 'mine//../other/e', 'mine/..\\other/e'])
      await assert.rejects(mesh.meshfs.resolve(`gem-pointer://wiki/${trick}`), /not a pointer/i, trick);
    const listed = (await mesh.meshfs.list('gem-pointer://wiki/mine')).map(({ pointer }) => pointer);
    assert.deepEqual(
      listed.sort(),
      ['a.md', 'deep/b.md', 'new.md'].map((page) => `gem-pointer://wiki/mine/${page}`),
    );
    await refused(mesh.meshfs.list('gem-pointer://wiki/'), Forbidden, /does not reach all that begins with/);
    const reader = await holder(['meshfs.read'], { pointers: ['gem-pointer://wiki/mine/'] });
    await refused(reader.mesh.meshfs.write('gem-pointer://wiki/mine/a', 'x'), Forbidden, /scope meshfs.write/);
  });

  it('gives its workers no more than it has: pointers, hosts, nodes, source', async () => {
    const source = 'export const look = async (p) => (await hauki.meshfs.resolve(p)).content;';
    const { mesh } = await holder(['spawn', 'meshfs.read'], {
      pointers: ['gem-pointer://wiki/mine/'],
      fetch: ['a.example:443'],
      nodes: [used.local.nodes[1]!.node],
    });
    const cloned = (grants: object) => mesh.clone({ source: CALCULATOR }, { grants });
    await refused(
      cloned({ meshfs: { read: ['gem-pointer://wiki/'] } }),
      Forbidden,
      /meshfs.read gem-pointer:\/\/wiki\/ is beyond/,
    );
    await refused(cloned({ meshfs: { write: ['gem-pointer://wiki/mine/'] } }), Forbidden, /scope meshfs.write/);
    await refused(cloned({ fetch: ['b.example:443'] }), Forbidden, /fetch b\.example:443 is beyond/);
    await refused(mesh.clone('gem-pointer://wiki/other/e'), Forbidden, /does not reach the pointer/);
    const fits = { fetch: ['a.example:443'], meshfs: { read: ['gem-pointer://wiki/mine/deep/'] } };
    for (let i = 0; i < 3; i++) {
      const { node } = await mesh.details(mesh.clone({ source }, { grants: fits }));
      assert.equal(node, used.local.nodes[1]!.node, 'placed where the token reaches');
    }
    const catalogue = await holder(['spawn.pointer'], { pointers: ['gem-pointer://wiki/workers/'] });
    await used.mesh.meshfs.write('gem-pointer://wiki/workers/calc', CALCULATOR, { language: 'javascript' });
    assert.equal(await catalogue.mesh.clone<Calculator>('gem-pointer://wiki/workers/calc').add(1, 2), 3);
    await refused(catalogue.mesh.clone({ source: CALCULATOR }), Forbidden, /needs a token with the scope spawn;/);
  });

  it('that may run what it may not read hears where it fails, and nothing of its text', async () => {
    const pointer = 'gem-pointer://cfg/pass';
    await used.mesh.meshfs.write(pointer, 'DB_PASSWORD: hunter2 of all\n');
    const { token } = await used.mesh.tokens.create({ name: 'runs', scopes: ['spawn.pointer'] });
    const body = { audience: 'A'.repeat(43), pointer, language: 'typescript' };
    const answer = await fetch(`${used.local.url}/api/v2/swarm_spawn_ephemeral`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    const text = await answer.text();
    assert.equal(answer.status, 422, text);
    assert.match(text, /worker\.\w+:1\)/);
    assert.doesNotMatch(text, /hunter2/);
  });

  it('makes narrower ones, sees and ends those below it alone', async () => {
    const upper = await holder(['spawn', 'tokens', 'events']);
    const lower = await holder(['spawn', 'tokens'], undefined, upper.mesh);
    assert.equal(lower.owner, `${upper.id}/${lower.id}`);
    await refused(holder(['read'], undefined, lower.mesh), Forbidden, /cannot give the scope read/);
    await refused(holder(['spawn'], { workers: ['*'] }, lower.mesh), Forbidden, /cannot give workers/);
    assert.deepEqual(
      (await lower.mesh.tokens.list()).map(({ id }) => id),
      [lower.id],
    );
    assert.deepEqual((await upper.mesh.tokens.list()).map(({ id }) => id).sort(), [upper.id, lower.id].sort());
    assert.ok(!JSON.stringify(await used.mesh.tokens.list()).includes(lower.token.slice(6)));
    const { id, scopes } = await lower.mesh.tokens.self();
    assert.deepEqual({ id, scopes }, { id: lower.id, scopes: ['spawn', 'tokens'] });
    const mine = lower.mesh.clone<Calculator>({ source: CALCULATOR });
    const { worker } = await lower.mesh.details(mine);
    assert.equal(await upper.mesh.visit<Calculator>(worker).add(1, 1), 2, 'whoever stands above owns it too');
    await refused(lower.mesh.tokens.revoke(upper.id), TokenUnknown, /There is no token/);
    assert.deepEqual((await used.mesh.tokens.revoke(upper.id)).sort(), [upper.id, lower.id].sort());
    for (const { mesh } of [upper, lower]) await refused(mesh.tokens.list(), Unauthorised, /was revoked/);
    await used.mesh.destruct(worker);
  });

  it('that is revoked is cut off from what it has open', async () => {
    const { mesh, id } = await holder(['spawn', 'events']);
    const ghost = mesh.clone<Calculator>({ source: CALCULATOR }, { routing: 'relay_only', lease_ms: 5_000 });
    assert.equal(await ghost.add(1, 2), 3);
    // The first answer may be here before the session is.
    await ghost;
    const heard: string[] = [];
    const following = (async () => {
      for await (const event of mesh.events({ follow: true, after: '0' })) heard.push(event.name);
    })();
    await until('the stream is open', () => heard.includes('WORKER_BORN'));
    const ended = mesh.ended(ghost);
    await used.mesh.tokens.revoke(id);
    await refused(following, Unauthorised, /not known here/);
    assert.equal(typeof (await ended), 'string', 'the relayed session has ended');
    await assert.rejects(Promise.resolve(ghost.add(1, 2)));
  });

  it('ends by itself at its time', async () => {
    const { token, id } = await used.mesh.tokens.create({ name: 'brief', scopes: ['read'], expires_in_ms: 1_500 });
    const mesh = await connect({ core: used.local.url, token });
    meshes.push(mesh);
    await mesh.registry();
    await until('it has expired', async () => {
      try {
        await mesh.registry();
        return false;
      } catch (error) {
        return isError(error, Unauthorised);
      }
    });
    await until('it is forgotten', async () => !(await used.mesh.tokens.list()).some((t) => t.id === id));
  });

  it('of a node lets it join under its name alone', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-node-'));
    const token_file = join(data_dir, 'north.token');
    const made = await used.mesh.tokens.create({ name: 'north', scopes: ['node'], targets: { nodes: ['north'] } });
    writeFileSync(token_file, made.token, { mode: 0o600 });
    const options = { core_url: used.local.url, token_file, drivers: ['quickjs'] };
    const nodes = async () => (await used.mesh.registry()).nodes.map(({ node }) => node);
    const north = await startNode({ ...options, data_dir: join(data_dir, 'north'), name: 'north' });
    try {
      assert.match(north.node, /^north-[0-9a-f]{6}$/);
      assert.ok((await nodes()).includes(north.node));
      const mesh = await connect({ core: used.local.url, token: made.token });
      await refused(mesh.registry(), Forbidden, /scope read/);
      await mesh.close();
      const link = new Session({
        transport: streamTransport(await dialUpgrade(used.local.url, '/api/v2/node/link', made.token, 5_000)),
      });
      const info = { node: 'south', labels: {}, drivers: {}, memory_mib: 1, cores: 1 };
      const load = { workers: 0, memory_used_mib: 0, cpu: 0 };
      await refused(
        remote<CoreForNode>(link).register(info, load, [], []),
        Forbidden,
        /does not reach the node south; it reaches north/,
      );
      assert.ok(!(await nodes()).includes('south'));
      link.close();
      // Its link is cut with the token, and it does not come back.
      await used.mesh.tokens.revoke(made.id);
      await until('north is away', async () => !(await nodes()).includes(north.node));
    } finally {
      await north.stop();
      rmSync(data_dir, { recursive: true, force: true });
    }
  });

  it('stands in no log, and in no answer but that of its making', async () => {
    const { token } = await holder(['read']);
    await fetch(new URL('/api/v2/tokens', used.local.url), { headers: { authorization: `Bearer ${token}x` } });
    assert.ok(used.log().includes('TOKEN_CREATED'), 'positive control');
    assert.ok(!used.log().includes(token.slice(6, 30)));
    assert.ok(!used.log().includes(used.local.token.slice(6, 30)));
    await refused(
      used.mesh.tokens.create({ name: 'x', scopes: ['nothing' as Scope] }),
      BadInput,
      /expected is one of "read"/,
    );
  });
});

describe('tokens', () => {
  let data_dir: string;
  before(() => {
    data_dir = mkdtempSync(join(tmpdir(), 'hauki-kill-'));
  });
  after(() => rmSync(data_dir, { recursive: true, force: true }));

  it('that were answered survive kill -9 of the core, and revoked ones stay revoked', async () => {
    const port = await keptPort();
    let core = await startCore(data_dir, { port });
    const admin = await connect({ core: core.url, token: core.token });
    const kept = await admin.tokens.create({ name: 'kept', scopes: ['tokens', 'read'], targets: { pointers: [] } });
    const gone = await admin.tokens.create({ name: 'gone', scopes: ['read'] });
    await admin.tokens.revoke(gone.id);
    // More are being made while it is killed: each is either answered and kept, or not known to anybody.
    const more = Array.from({ length: 40 }, (_, i) => admin.tokens.create({ name: `n-${i}`, scopes: ['read'] }));
    const answered: string[] = [];
    for (const one of more)
      one.then(
        ({ token }) => answered.push(token),
        () => {},
      );
    await Promise.race(more);
    await core.kill();
    await Promise.allSettled(more);
    await admin.close();
    core = await startCore(data_dir, { port });
    try {
      const whoami = async (token: string) => {
        const mesh = await connect({ core: core.url, token });
        return mesh.tokens.self().finally(() => mesh.close());
      };
      const { id, scopes, targets } = await whoami(kept.token);
      assert.deepEqual({ id, scopes, targets }, { id: kept.id, scopes: kept.scopes, targets: kept.targets });
      await refused(whoami(gone.token), Unauthorised, /not known here/);
      assert.ok(answered.length > 0);
      for (const token of answered) assert.deepEqual((await whoami(token)).scopes, ['read']);
      const stored = readFileSync(join(data_dir, 'core', 'store', 'kv.sqlite'), 'latin1');
      for (const token of [kept.token, ...answered]) assert.ok(!stored.includes(token.slice(6)));
    } finally {
      await core.stop();
    }
  });
});
