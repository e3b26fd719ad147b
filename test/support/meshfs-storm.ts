/**
 * A core is killed with -9 at random moments while writers, conditional writers and deleters share a few pointers and
 * collections run; after each restart all that was told is held against what is there. Shared by
 * `test/meshfs-durability.test.ts` (a few kills) and `npm run soak -- meshfs` (200).
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type StartedCore, startCore } from '@hauki/cli';
import {
  ConnectionLost,
  connect,
  type FileInfo,
  isError,
  type Mesh,
  OutcomeUnknown,
  PointerDeleted,
  PointerUnknown,
  PreconditionFailed,
} from '@hauki/mesh';

export interface StormOptions {
  kills: number;
  /** How many write at once. */
  lanes: number;
  /** Mean pause between a restart and the next kill. */
  mean_ms: number;
  /** Numbers in [0, 1). */
  random: () => number;
  note?: (text: string) => void;
}

export interface StormReport {
  kills: number;
  acknowledged: number;
  /** Refused because of what was there instead. */
  refused: number;
  /** Whose answer a kill took, and those of them that had happened. */
  unanswered: number;
  happened: number;
  /** At the end. */
  versions: number;
  contents: number;
}

/** Contents up to this size are rows of the database, larger ones files. */
const SMALL_BYTES = 32 * 1024;
/** Contents read back after each kill, besides the newest; at the end all are. */
const SAMPLE = 20;
const POINTERS = ['wiki/storm/a.md', 'wiki/storm/b.md', 'wiki/storm/deep/c.md', 'data/d', 'data/e', 'data/deep/f'].map(
  (name) => `gem-pointer://${name}`,
);

const sha256 = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');

/** What is known of a pointer. An empty digest is a deletion. */
interface Known {
  told: Map<number, string>;
  /** What may be there although nobody was told. */
  tried: Set<string>;
}

export async function storm({ kills, lanes, mean_ms, random, note = () => {} }: StormOptions): Promise<StormReport> {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-storm-'));
  const known = new Map(POINTERS.map((pointer): [string, Known] => [pointer, { told: new Map(), tried: new Set() }]));
  const report = { kills: 0, acknowledged: 0, refused: 0, unanswered: 0, happened: 0, versions: 0, contents: 0 };
  const pick = (count: number) => Math.floor(random() * count);
  let count = 0;

  /** Often of a kind that nobody wrote yet, sometimes what others write too; small and large. */
  function content(): string {
    const length = 1 + pick(random() < 0.5 ? SMALL_BYTES : 200_000);
    const text = random() < 0.2 ? `shared ${pick(5)} ` : `content ${count++} `;
    return text.startsWith('shared') ? text.repeat(5000) : text.repeat(Math.ceil(length / text.length));
  }

  /** One random thing with one random pointer. */
  async function act({ meshfs }: Mesh): Promise<void> {
    const pointer = POINTERS[pick(POINTERS.length)]!;
    const { told, tried } = known.get(pointer)!;
    const newest = Math.max(0, ...told.keys());
    const kind = pick(5);
    const text = content();
    const digest = kind === 4 ? '' : sha256(text);
    tried.add(digest);
    const if_match = newest > 0 ? newest : undefined;
    let written: FileInfo;
    try {
      if (kind === 0) written = await meshfs.write(pointer, text);
      else if (kind === 1) written = await meshfs.put(pointer, text, { digest });
      else if (kind === 2) written = await meshfs.put(pointer, text, { if_match });
      else if (kind === 3) written = await meshfs.write(pointer, text, { create: true });
      else written = await meshfs.delete(pointer, { if_match });
    } catch (error) {
      if (![PreconditionFailed, PointerDeleted, PointerUnknown].some((one) => isError(error, one as never)))
        throw error;
      report.refused += 1;
      return;
    }
    report.acknowledged += 1;
    assert.equal(written.digest, digest);
    assert.ok(!told.has(written.version), `version ${written.version} of ${pointer} was told twice`);
    if ((kind === 2 || kind === 4) && if_match !== undefined) assert.equal(written.version, if_match + 1);
    told.set(written.version, digest);
  }

  async function work(core: StartedCore): Promise<void> {
    const mesh = await connect({ core: core.url, token: core.token });
    let over = false;
    const first = Promise.withResolvers<void>();
    const until_killed = async (work: () => Promise<unknown>, counts: boolean) => {
      while (!over)
        try {
          await work();
          if (counts) first.resolve();
        } catch (error) {
          const is_cut = isError(error, ConnectionLost) || isError(error, OutcomeUnknown);
          if (!over || !is_cut) throw error;
          if (counts) report.unanswered += 1;
        }
    };
    const collecting = async () => {
      await mesh.meshfs.collect();
      await new Promise((resolve) => setTimeout(resolve, random() * 100));
    };
    const all = Promise.all([
      ...Array.from({ length: lanes }, () => until_killed(() => act(mesh), true)),
      until_killed(collecting, false),
    ]);
    all.catch(first.reject);
    // Now and then at once: while a core repairs its files, and collects what the one before has left.
    if (random() < 0.8) await first.promise;
    await new Promise((resolve) => setTimeout(resolve, 2 * mean_ms * random() ** 2));
    over = true;
    await core.kill();
    report.kills += 1;
    await all;
    await mesh.close().catch(() => {});
  }

  /** Holds what is there against what was told. */
  async function check({ meshfs }: Mesh, every: boolean): Promise<void> {
    const digests = new Map<string, number>();
    const contents: [string, number, string][] = [];
    const files: Record<string, string> = {};
    report.versions = 0;
    for (const [pointer, { told, tried }] of known) {
      const { versions } = await meshfs.history(pointer).catch((error) => {
        if (isError(error, PointerUnknown)) return { versions: [] };
        throw error;
      });
      const newest = versions[0]?.version ?? 0;
      const oldest = versions.at(-1)?.version ?? 1;
      report.versions += versions.length;
      for (const [at, { version, digest, bytes }] of versions.entries()) {
        assert.equal(version, newest - at, `${pointer} has a gap`);
        if (!told.has(version)) {
          assert.ok(tried.has(digest), `nobody ever wrote version ${version} of ${pointer}`);
          report.happened += 1;
          told.set(version, digest);
        }
        assert.equal(digest, told.get(version), `${pointer} version ${version} is another`);
        if (digest === '') continue;
        digests.set(digest, bytes);
        contents.push([pointer, version, digest]);
      }
      for (const version of told.keys()) {
        assert.ok(version <= newest, `version ${version} of ${pointer} was acknowledged, and is lost`);
        if (version < oldest) told.delete(version);
      }
      const now = versions[0]?.digest;
      if (now && pointer.startsWith('gem-pointer://wiki/')) files[pointer.slice('gem-pointer://wiki/'.length)] = now;
    }
    const { kept } = await meshfs.collect();
    assert.equal(kept, digests.size, 'contents that nothing names, or that are missing');
    const store = join(folder, 'core/store/objects');
    const names = readdirSync(store, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    assert.equal(names.length, [...digests.values()].filter((bytes) => bytes > SMALL_BYTES).length);
    report.contents = digests.size;
    const wiki = join(folder, 'core/wiki');
    const there = readdirSync(wiki, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const found = there.map(({ parentPath, name }) => {
      const path = join(parentPath, name);
      return [path.slice(wiki.length + 1), sha256(readFileSync(path))];
    });
    assert.deepEqual(Object.fromEntries(found), files, 'the readable files are the newest versions, and nothing else');
    const sample = every ? contents : Array.from({ length: SAMPLE }, () => contents[pick(contents.length)] ?? []);
    for (const [pointer, version, digest] of sample) {
      if (pointer === undefined) continue;
      assert.equal(sha256(await (await meshfs.get(pointer, { version })).whole()), digest, `${pointer} ${version}`);
    }
  }

  try {
    for (let at = 0; at <= kills; at++) {
      const core = await startCore(folder);
      try {
        const mesh = await connect({ core: core.url, token: core.token });
        await check(mesh, at === kills);
        await mesh.close();
        if (at < kills) await work(core);
      } finally {
        await core.stop();
      }
      if (at % 20 === 19) note(`${report.kills} kills, ${report.acknowledged} acknowledged`);
    }
    return report;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
