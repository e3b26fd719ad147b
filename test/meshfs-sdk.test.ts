/** The SDK's MeshFS over a connection that is cut again and again: nothing is lost, nothing is counted twice. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { BadInput, ConnectionLost, connect, isError, type Mesh, OutcomeUnknown } from '@hauki/mesh';
import { until, useMesh } from './support/mesh.ts';

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

describe('MeshFS over connections that are cut', () => {
  const used = useMesh({ nodes: [] });
  const sockets = new Set<Socket>();
  /** After so many more bytes to the core the connection that carries them is cut, and the next number counts. */
  let cuts: number[] = [];
  let carried = 0;
  let cut = 0;
  /** So many answers to more than a megabyte are lost, with their connections. */
  let lost = 0;
  const proxy = createServer((socket) => {
    const inner = connectTcp(Number(new URL(used.local.url).port), '127.0.0.1');
    for (const one of [socket, inner]) {
      sockets.add(one);
      one.on('close', () => sockets.delete(one));
      one.on('error', () => {});
    }
    let asked = 0;
    inner.prependListener('data', () => {
      if (asked < 1_000_000 || lost === 0) return;
      lost--;
      inner.unpipe(socket);
      socket.destroy();
    });
    socket.on('data', (chunk) => {
      asked += chunk.length;
      carried += chunk.length;
      if (cuts.length === 0 || carried < cuts[0]!) return;
      cuts.shift();
      cut += 1;
      // What has gone through is on its way; the answer is lost.
      setImmediate(() => {
        socket.destroy();
        inner.destroy();
      });
    });
    socket.pipe(inner).pipe(socket);
    socket.on('close', () => inner.destroy());
    inner.on('close', () => socket.destroy());
  });
  let mesh: Mesh;
  before(async () => {
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    const { port } = proxy.address() as AddressInfo;
    mesh = await connect({ core: `http://127.0.0.1:${port}`, token: used.local.token });
  });
  after(async () => {
    await mesh.close();
    for (const socket of sockets) socket.destroy();
    proxy.close();
  });

  it('an upload goes on where it was cut, and is one version', async () => {
    const bytes = randomBytes(20 * 2 ** 20);
    async function* stream() {
      for (let at = 0; at < bytes.length; at += 300_000) yield bytes.subarray(at, at + 300_000);
    }
    const digest = sha256(bytes);
    for (const content of [bytes, new Blob([bytes]), stream()]) {
      carried = 0;
      cut = 0;
      cuts = [3_000_000, 9_000_000, 9_500_000, 20_000_000];
      const pointer = `gem-pointer://data/cut/${randomBytes(4).toString('hex')}`;
      const seen: number[] = [];
      const written = await mesh.meshfs.put(pointer, content, { digest, onProgress: (bytes) => seen.push(bytes) });
      assert.equal(cut, 4);
      assert.deepEqual([written.digest, written.version, written.bytes], [digest, 1, bytes.length]);
      assert.equal(sha256(await (await mesh.meshfs.get(pointer)).whole()), digest);
      assert.deepEqual(
        seen,
        [8, 16, 20].map((mib) => mib * 2 ** 20),
      );
    }
  });

  it('an upload goes on where a whole piece had come and its answer alone was lost', async () => {
    const bytes = randomBytes(20 * 2 ** 20);
    async function* stream() {
      for (let at = 0; at < bytes.length; at += 300_000) yield bytes.subarray(at, at + 300_000);
    }
    cuts = [];
    for (const content of [bytes, new Blob([bytes]), stream()]) {
      lost = 3;
      const pointer = `gem-pointer://data/lost/${randomBytes(4).toString('hex')}`;
      const written = await mesh.meshfs.put(pointer, content);
      assert.deepEqual([lost, written.digest, written.version], [0, sha256(bytes), 1]);
    }
  });

  it('a small write whose answer is lost is not sent again by itself, and says so', async () => {
    carried = 0;
    cuts = [1];
    await assert.rejects(mesh.meshfs.put('gem-pointer://data/once', 'x'), (error) => isError(error, OutcomeUnknown));
    assert.ok((await mesh.meshfs.list('gem-pointer://data/once')).length <= 1);
  });

  it('a download goes on where it was cut, within its range and with the version that it began with', async () => {
    const pointer = 'gem-pointer://data/download';
    const bytes = randomBytes(6 * 2 ** 20);
    await mesh.meshfs.put(pointer, bytes);
    for (const [start, end] of [
      [undefined, undefined],
      [1_000_000, undefined],
      [5, 5_000_000],
    ] as const) {
      const { body, version } = await mesh.meshfs.get(pointer, { start, end });
      const parts: Uint8Array[] = [];
      for await (const chunk of body) {
        if (parts.push(chunk) % 20 !== 1) continue;
        if (parts.length === 1) await used.mesh.meshfs.put(pointer, `newer than ${version}`);
        if (parts.length < 60) for (const socket of sockets) socket.destroy();
      }
      assert.equal(sha256(Buffer.concat(parts)), sha256(bytes.subarray(start, end)));
      await used.mesh.meshfs.put(pointer, bytes);
    }
  });

  it('a download that gets nowhere ends with an error, never as if it were whole, and at once by its signal', async () => {
    const pointer = 'gem-pointer://data/nowhere';
    await mesh.meshfs.put(pointer, randomBytes(6 * 2 ** 20));
    const cutAll = async (body: AsyncIterable<Uint8Array>) => {
      for await (const _ of body) for (const socket of sockets) socket.destroy();
    };
    const lost = await mesh.meshfs.get(pointer);
    await assert.rejects(cutAll(lost.body), (error) => isError(error, ConnectionLost));
    const left = await mesh.meshfs.get(pointer, { signal: AbortSignal.timeout(1_000) });
    await assert.rejects(cutAll(left.body), (error) => (error as Error).name === 'TimeoutError');
  });

  it('a watch goes on over cuts and misses nothing', async () => {
    const stop = new AbortController();
    const prefix = 'gem-pointer://data/watched/';
    const { revision } = await mesh.meshfs.snapshot();
    const seen: number[] = [];
    const watching = (async () => {
      for await (const { version } of mesh.meshfs.watch(prefix, { after: revision, signal: stop.signal }))
        seen.push(version);
    })();
    const direct = used.mesh.meshfs;
    for (let at = 1; at <= 30; at++) {
      await direct.put(`${prefix}page`, `${at}`);
      if (at % 10 === 5) {
        await until('the watch heard so far', () => seen.length >= at - 5);
        for (const socket of sockets) socket.destroy();
      }
    }
    await until('all changes were heard', () => seen.length >= 30);
    stop.abort();
    await watching;
    assert.deepEqual(
      seen,
      Array.from({ length: 30 }, (_, at) => at + 1),
    );
  });

  it('an upload is given up when it is aborted, or its source fails', async () => {
    const stop = new AbortController();
    const broken = new Error('the disk is gone');
    async function* failing(then: () => void) {
      yield randomBytes(9 * 2 ** 20);
      then();
    }
    const pointer = 'gem-pointer://data/aborted';
    const fail = () => {
      throw broken;
    };
    await assert.rejects(mesh.meshfs.put(pointer, failing(fail)), broken);
    const aborting = failing(() => stop.abort(broken));
    await assert.rejects(mesh.meshfs.put(pointer, aborting, { signal: stop.signal }), broken);
    await assert.rejects(mesh.meshfs.write(pointer, 'x', { create: true, if_match: 1 }), (error) =>
      isError(error, BadInput),
    );
    assert.deepEqual(await mesh.meshfs.list(pointer), []);
  });
});
