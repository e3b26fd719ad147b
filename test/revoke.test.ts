/** Grants that are taken away while their worker lives: from its next effect on, from its clones too, and for good. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttp } from 'node:http';
import { type AddressInfo, createServer as createTcp } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { startNode } from '@hauki/cli';
import { BadInput, connect, type ErrorClass, Forbidden, GrantMissing, isError } from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { DRIVERS, missing, until, useMesh } from './support/mesh.ts';

const refused = (promise: PromiseLike<unknown>, kind: ErrorClass<any>, pattern: RegExp) =>
  assert.rejects(Promise.resolve(promise), (error: Error) => {
    assert.ok(isError(error, kind), `${error.name}: ${error.message}`);
    assert.match(error.message, pattern);
    return true;
  });

const SOURCE = `
  export const get = (url) => fetch(url).then((r) => r.text());
  export const read = (pointer) => hauki.meshfs.resolve(pointer).then((d) => d.content);
  export const write = (pointer, text) => hauki.meshfs.write(pointer, text);
  export const save = (path, text) => hauki.volume.write(path, text);
  let child;
  export const clone = async (options) => { child = await hauki.clone({ source: hauki.mine }, options); };
  export const own = (source) => { hauki.mine = source; };
  export const call = (method, ...args) => child[method](...args);
  let told = 'open';
  export const dial = async (target) => {
    const connection = await hauki.connect(target);
    (async () => { try { for await (const _ of connection.readable ?? connection) ; told = 'ended'; } catch (error) { told = error.message; } })();
  };
  export const state = () => told;`;

interface Asker {
  [method: string]: (...args: any[]) => any;
}

for (const driver of DRIVERS)
  describe(`a worker in a ${driver} vault whose grants are revoked`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{}] });
    /** Answers to `/held`, which wait until somebody lets them go. */
    const held: (() => void)[] = [];
    const web = createHttp(({ url }, response) => {
      const answer = () => response.end('hello');
      if (url === '/held') held.push(answer);
      else answer();
    });
    const tcp = createTcp((socket) => socket.on('error', () => {}));
    let http = '';
    let echo = '';
    before(async () => {
      for (const server of [web, tcp]) {
        server.listen(0, '127.0.0.1');
        await once(server, 'listening');
      }
      http = `127.0.0.1:${(web.address() as AddressInfo).port}`;
      echo = `127.0.0.1:${(tcp.address() as AddressInfo).port}`;
      await used.mesh.meshfs.write('gem-pointer://wiki/revoke/page', 'a page');
    });
    after(() => {
      web.closeAllConnections();
      web.close();
      tcp.close();
    });
    const memory_mib = driver === 'quickjs' ? 16 : 64;
    const asker = (grants: object) =>
      used.mesh.clone<Asker>({ source: SOURCE }, { driver, memory_mib, grants: grants as never });

    it('is refused from its next call on, by kind and by entry, and told why', async () => {
      const pages = ['gem-pointer://wiki/revoke/'];
      const one = asker({ fetch: [http], meshfs: { read: pages, write: pages } });
      const { worker } = await used.mesh.details(one);
      assert.equal(await one.get!(`http://${http}/`), 'hello');
      assert.equal(await one.read!('gem-pointer://wiki/revoke/page'), 'a page');
      const left = await used.mesh.revoke(one, { fetch: [http], meshfs: { write: true } });
      assert.deepEqual([left.fetch, left.meshfs], [[], { read: pages, write: [] }]);
      await refused(one.get!(`http://${http}/`), GrantMissing, /revoked while it lived/);
      await refused(one.write!('gem-pointer://wiki/revoke/new', 'x'), GrantMissing, /revoked while it lived/);
      assert.equal(await one.read!('gem-pointer://wiki/revoke/page'), 'a page');
      const listed = (await used.mesh.registry()).workers.find((w) => w.worker === worker)!;
      assert.deepEqual(listed.grants, left, 'the registry shows what it has now');
      await refused(used.mesh.revoke(worker, { fetch: [http] }), BadInput, /no such grant/);
      await refused(used.mesh.revoke(worker, { time: true } as never), BadInput, /no such member/);
      await refused(used.mesh.revoke(worker, {}), BadInput, /an empty object was given; .* at least 1 of fetch/);
      assert.deepEqual((await used.mesh.revoke(worker, { meshfs: { read: pages } })).meshfs.read, []);
      await refused(one.read!('gem-pointer://wiki/revoke/page'), GrantMissing, /revoked/);
      await used.mesh.destruct(one);
    });

    it('loses open connections with the grant', async () => {
      const accepted = once(tcp, 'connection');
      const one = asker({ connect: [echo] });
      await one.dial!(echo);
      const [socket] = await accepted;
      const closed = once(socket, 'close');
      await used.mesh.revoke(one, { connect: true });
      await closed;
      await until('the worker hears of it', async () => (await one.state!()) !== 'open');
      await refused(one.dial!(echo), GrantMissing, /connect/);
      await used.mesh.destruct(one);
    });

    it('takes them from its clones as well, and clones no more', async () => {
      const one = asker({ fetch: [http], clone: 2 });
      await one.own!(SOURCE);
      await one.clone!({ driver, memory_mib, grants: { fetch: [http] } });
      assert.equal(await one.call!('get', `http://${http}/`), 'hello');
      await used.mesh.revoke(one, { fetch: true, clone: true });
      await refused(one.call!('get', `http://${http}/`), GrantMissing, /revoked/);
      await refused(one.clone!({ driver, memory_mib }), GrantMissing, /clone/);
      const { workers } = await used.mesh.registry();
      assert.deepEqual(workers.find((w) => w.parent)!.grants.fetch, []);
      await used.mesh.destruct(one);
    });

    it('takes them from a clone that is still being made, whose code has begun', async () => {
      const pages = ['gem-pointer://wiki/revoke/'];
      const grants = { fetch: [http], meshfs: { write: pages } };
      const one = asker({ ...grants, clone: 1 });
      await one.own!(`${SOURCE}
        await get('http://${http}/held');
        const loading = await get('http://${http}/').catch((error) => error.name);
        export const early = () => loading;`);
      const made = Promise.resolve(one.clone!({ driver, memory_mib, grants }));
      await until('its code waits', () => held.length > 0);
      await used.mesh.revoke(one, { fetch: true, meshfs: { write: true } });
      held.pop()!();
      await made;
      assert.equal(await one.call!('early'), 'GrantMissing');
      await refused(one.call!('get', `http://${http}/`), GrantMissing, /fetch/);
      await refused(one.call!('write', 'gem-pointer://wiki/revoke/new', 'x'), GrantMissing, /meshfs/);
      const { grants: left } = (await used.mesh.registry()).workers.find((w) => w.parent)!;
      assert.deepEqual([left.fetch, left.meshfs.write], [[], []]);
      await used.mesh.destruct(one);
    });

    it('may lose its volume only where that is not mounted inside', async () => {
      const one = asker({ volume: `revoked-${driver}` });
      await one.save!('a', 'b');
      if (driver === 'quickjs') {
        await used.mesh.revoke(one, { volume: true });
        await refused(one.save!('a', 'c'), GrantMissing, /volume/);
      } else await refused(used.mesh.revoke(one, { volume: true }), BadInput, /destruct the worker/);
      await used.mesh.destruct(one);
    });

    it('that lasts has lost them for good, also where it was started again', async () => {
      const name = `less-${driver}-${crypto.randomUUID().slice(0, 8)}`;
      await used.mesh.provision({ source: SOURCE }, { name, driver, memory_mib, grants: { fetch: [http] } });
      const visit = () => used.mesh.visit<Asker>(name);
      assert.equal(await visit().get!(`http://${http}/`), 'hello');
      await used.mesh.revoke(name, { fetch: true });
      await refused(visit().get!(`http://${http}/`), GrantMissing, /revoked/);
      await used.local.nodes[0]!.kill();
      used.local.nodes[0] = await startNode({
        core_url: used.local.url,
        data_dir: join(used.local.data_dir, 'node'),
        token_file: nodeTokenFile(used.local.data_dir),
      });
      await until('it runs again', async () => {
        const { state, epoch } = await used.mesh.lasting.get(name);
        return state === 'running' && epoch === 2;
      });
      await refused(visit().get!(`http://${http}/`), GrantMissing, /fetch/);
      await used.mesh.lasting.delete(name);
    });
  });

describe('who may revoke', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });

  it('is whoever may end the worker', async () => {
    const { token } = await used.mesh.tokens.create({ name: 'other', scopes: ['spawn', 'destruct'] });
    const other = await connect({ core: used.local.url, token });
    const theirs = used.mesh.clone<Asker>({ source: SOURCE }, { grants: { clone: 1 } });
    const { worker } = await used.mesh.details(theirs);
    await refused(other.revoke(worker, { clone: true }), Forbidden, /worker/);
    const mine = other.clone<Asker>({ source: SOURCE }, { grants: { clone: 1 } });
    assert.equal((await other.revoke(mine, { clone: true })).clone, null);
    await other.close();
  });
});
