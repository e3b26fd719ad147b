/** What MeshFS promises of a real core's process: many writers at once, kill -9 at any moment, bounded memory. */
import assert from 'node:assert/strict';
import { createHash, randomBytes, randomInt } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type StartedCore, startCore } from '@hauki/cli';
import { connect, isError, type Mesh, PreconditionFailed } from '@hauki/mesh';
import { storm } from './support/meshfs-storm.ts';
import { seeded } from './support/seeded.ts';

const sha256 = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');

async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-durability-'));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function withCore<T>(folder: string, use: (mesh: Mesh, core: StartedCore) => Promise<T>): Promise<T> {
  const core = await startCore(folder);
  const mesh = await connect({ core: core.url, token: core.token });
  try {
    return await use(mesh, core);
  } finally {
    await mesh.close();
    await core.stop();
  }
}

/** Memory of a process at its highest so far, in MiB. */
const highest = (pid: number) =>
  Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;

describe('a real core keeps what it acknowledged', () => {
  it('1,000 writers to one pointer at once: each is a version, and none is lost', () =>
    inFolder((folder) =>
      withCore(folder, async (mesh) => {
        const pointer = 'gem-pointer://wiki/busy/page.md';
        const contents = Array.from({ length: 1_000 }, (_, at) => `writer ${at} ${'x'.repeat(at % 300)}`);
        const written = await Promise.all(
          contents.map((content, at) =>
            at % 2 ? mesh.meshfs.write(pointer, content) : mesh.meshfs.put(pointer, content),
          ),
        );
        const { versions } = await mesh.meshfs.history(pointer);
        assert.deepEqual(
          versions.map(({ version }) => version),
          Array.from({ length: 1_000 }, (_, at) => 1_000 - at),
        );
        const told = new Map(written.map(({ version, digest }) => [version, digest]));
        assert.equal(told.size, 1_000, 'no version was told twice');
        for (const { version, digest } of versions) assert.equal(digest, told.get(version));
        assert.deepEqual(new Set(written.map(({ digest }) => digest)), new Set(contents.map(sha256)));
        await mesh.meshfs.collect();
        for (const version of [1, 250, 999, 1_000]) {
          const { digest, content } = await mesh.meshfs.resolve(pointer, { version });
          assert.equal(sha256(content), digest);
        }
        assert.equal(sha256(readFileSync(join(folder, 'core/wiki/busy/page.md'))), versions[0]!.digest);
      }),
    ));

  it('of 100 who increment a counter by compare-and-set none is lost', () =>
    inFolder((folder) =>
      withCore(folder, async ({ meshfs }) => {
        const pointer = 'gem-pointer://data/counter';
        await meshfs.put(pointer, '0');
        const increment = async () => {
          for (;;) {
            const now = await meshfs.get(pointer);
            const next = String(Number(await now.text()) + 1);
            try {
              return await meshfs.put(pointer, next, { if_match: now.version });
            } catch (error) {
              if (!isError(error, PreconditionFailed)) throw error;
            }
          }
        };
        await Promise.all(Array.from({ length: 10 }, async () => {
          for (let at = 0; at < 10; at++) await increment();
        })); // biome-ignore format: one thought
        assert.equal(await (await meshfs.get(pointer)).text(), '100');
      }),
    ));

  it('killed at any moment: no write or deletion that was acknowledged is lost, and nothing half or unwanted is left', async (t) => {
    const seed = String(randomInt(2 ** 31));
    t.diagnostic(`npm run soak -- meshfs --kills 8 --lanes 4 --mean 300 --seed ${seed}`);
    const report = await storm({ kills: 8, lanes: 4, mean_ms: 300, random: seeded(seed) });
    assert.equal(report.kills, 8);
    assert.ok(report.acknowledged > 0, JSON.stringify(report));
  });

  it('an upload goes on after kill -9', () =>
    inFolder(async (folder) => {
      const bytes = randomBytes(300_000);
      const path = (more = '') => `/api/v2/meshfs/raw?pointer=gem-pointer://data/resumed&upload=resumed-upload${more}`;
      const send = (core: StartedCore, start: number, end: number, method = 'PUT') =>
        fetch(new URL(path(), core.url), {
          method,
          ...(method === 'PUT' && { body: bytes.subarray(start, end) }),
          headers: {
            authorization: `Bearer ${core.token}`,
            ...(method === 'PUT' && { 'content-range': `bytes ${start}-${end - 1}/${bytes.length}` }),
          },
        });
      const first = await startCore(folder);
      assert.equal((await send(first, 0, 200_000)).status, 202);
      await first.kill();
      await withCore(folder, async ({ meshfs }, core) => {
        const offset = Number((await send(core, 0, 0, 'HEAD')).headers.get('upload-offset'));
        assert.equal(offset, 200_000);
        assert.equal((await send(core, offset, bytes.length)).status, 201);
        assert.equal((await meshfs.get('gem-pointer://data/resumed')).digest, sha256(bytes));
      });
    }));
});

describe('a real core passes large content on in little memory', () => {
  const MIB = 2 ** 20;
  const LENGTH = 256 * MIB;

  it('256 MiB in and out, whole and in pieces', () =>
    inFolder((folder) =>
      withCore(folder, async ({ meshfs }, core) => {
        const pid = core.child.pid!;
        const chunk = randomBytes(MIB);
        const hash = createHash('sha256');
        for (let at = 0; at < LENGTH; at += MIB) hash.update(chunk);
        const digest = hash.digest('hex');
        async function* content() {
          for (let at = 0; at < LENGTH; at += MIB) yield chunk;
        }
        const before = highest(pid);
        const put = await new Promise<number>((resolve, reject) => {
          const url = new URL('/api/v2/meshfs/raw?pointer=gem-pointer://data/large', core.url);
          const headers = { authorization: `Bearer ${core.token}`, 'content-length': LENGTH };
          const sending = request(url, { method: 'PUT', headers }, (answer) => {
            answer.resume().on('end', () => resolve(answer.statusCode!));
          });
          sending.on('error', reject);
          void (async () => {
            for await (const bytes of content())
              if (!sending.write(bytes)) await new Promise((resolve) => sending.once('drain', resolve));
            sending.end();
          })();
        });
        assert.equal(put, 201);
        assert.equal((await meshfs.put('gem-pointer://wiki/large/film.mp4', content(), { digest })).bytes, LENGTH);
        for (const pointer of ['gem-pointer://data/large', 'gem-pointer://wiki/large/film.mp4']) {
          const got = await meshfs.get(pointer);
          const read = createHash('sha256');
          for await (const bytes of got.body) read.update(bytes);
          assert.equal(read.digest('hex'), digest);
        }
        const after = highest(pid);
        assert.ok(after < 150, `the core had ${after.toFixed()} MiB`);
        assert.ok(after - before < 32, `it grew by ${(after - before).toFixed()} MiB`);
      }),
    ));
});
