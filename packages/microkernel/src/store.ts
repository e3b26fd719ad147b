/**
 * What a kernel remembers: each module's record, its versions with their sources, and the journal. The record says what
 * must run; a change of it, of the journal, and a new version with its source and facts, are one commit.
 *
 * What always holds: a record names no version whose source is not durable; a number is given once; the readable copies
 * under `uah_endpoints/` are written behind the commit and repaired at the next open. Nobody waits for them.
 */
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Backplane, entriesOf, type Write } from '@hauki/backplane';
import type { MeshFs } from '@hauki/meshfs';
import {
  type Bounds,
  type Language,
  ModuleUnknown,
  type Trial,
  type VersionFacts,
  VersionUnknown,
} from '@hauki/protocol';
import { damaged, JOURNAL, Journal, type NewEntry } from './journal.ts';

export interface ModuleRecord {
  module: string;
  /** The highest number given so far. */
  latest: number;
  /** What runs: weights add up to 100; one of 0 is reached by header only. Empty: the module is removed. */
  live: { version: number; weight: number }[];
  /** The version to go back to. */
  good: number | null;
  bounds: Bounds | null;
  alias: string | null;
  tests: Trial[];
  /** Evolves are refused until it is let go of. */
  pinned: boolean;
  /** The state that what runs began with, and whose it was: a kernel that comes back gives it again. */
  state?: { pointer: string; from: number } | null;
  /** The journal's entry that it was made with: a journal that was cut is known by it. */
  seq?: number;
}

export const emptyRecord = (module: string): ModuleRecord => ({
  module,
  latest: 0,
  live: [],
  good: null,
  bounds: null,
  alias: null,
  tests: [],
  pinned: false,
});

/** A module's readable copy is made so long after its change: not beside the first requests of a version, nor of each. */
const COPY_AFTER_MS = 200;

const MODULES = 'modules';
const VERSIONS = 'versions';
const versionKey = (module: string, version: number) => `${module}/${String(version).padStart(8, '0')}`;
export const pointerOf = (module: string, version: number) => `gem-pointer://plugins/${module}/${version}`;
const ENDINGS: Record<Language, string> = { javascript: 'js', typescript: 'ts', python: 'py' };

export class Store {
  readonly journal: Journal;
  readonly #backplane: Backplane;
  readonly #meshfs: MeshFs;
  readonly #folder: string;
  readonly #records = new Map<string, ModuleRecord>();
  /** Commits one after the other: the journal's entries are a chain. */
  #turn: Promise<unknown> = Promise.resolve();
  /** Modules whose readable copies are to be made, and when; those being made. */
  readonly #changed = new Set<string>();
  #soon: NodeJS.Timeout | undefined;
  #copies: Promise<void> = Promise.resolve();
  /** What the copies have, by module. */
  readonly #copied = new Map<string, { name: string; digest: string }>();

  private constructor(backplane: Backplane, meshfs: MeshFs, folder: string, journal: Journal) {
    this.#backplane = backplane;
    this.#meshfs = meshfs;
    this.#folder = folder;
    this.journal = journal;
  }

  static async open(backplane: Backplane, meshfs: MeshFs, folder: string): Promise<Store> {
    const store = new Store(backplane, meshfs, folder, await Journal.open(backplane.kv(JOURNAL)));
    for await (const { key, value } of entriesOf(backplane.kv(MODULES))) {
      try {
        store.#records.set(key, JSON.parse(value) as ModuleRecord);
      } catch {
        throw damaged(`The record of the module ${key}`, 'it cannot be read');
      }
    }
    // Of a record from before, carried on by a version that knows no such number, the journal may have more.
    for (const { module, seq } of store.records())
      if (seq !== undefined && seq > (store.journal.lastOf(module) ?? 0))
        throw damaged('The journal', `entry ${seq} should be the last of ${module}, and is not`);
    await store.#repair();
    return store;
  }

  record(module: string): ModuleRecord | undefined {
    return this.#records.get(module);
  }

  records(): ModuleRecord[] {
    return [...this.#records.values()];
  }

  /** Rejects with VersionUnknown or ModuleUnknown. */
  async facts(module: string, version: number): Promise<VersionFacts> {
    const found = await this.#backplane.kv(VERSIONS).get(versionKey(module, version));
    if (!found) {
      const { latest: newest } = this.#known(module);
      throw new VersionUnknown(
        { pointer: pointerOf(module, version), version, oldest: 1, newest },
        `The module ${module} has no version ${version}; there are 1 to ${newest}`,
      );
    }
    return JSON.parse(found.value) as VersionFacts;
  }

  #known(module: string): ModuleRecord {
    const record = this.#records.get(module);
    if (!record) throw new ModuleUnknown({ module, has: [...this.#records.keys()] });
    return record;
  }

  /** All versions, oldest first. Rejects with ModuleUnknown. */
  async versions(module: string): Promise<VersionFacts[]> {
    this.#known(module);
    const found: VersionFacts[] = [];
    for await (const { value } of entriesOf(this.#backplane.kv(VERSIONS), `${module}/`))
      found.push(JSON.parse(value) as VersionFacts);
    return found;
  }

  /** The version that serves most, where any does. */
  async main({ module, live }: ModuleRecord): Promise<VersionFacts | undefined> {
    const [most] = live.toSorted((a, b) => b.weight - a.weight);
    return most && this.facts(module, most.version);
  }

  /** The last version with this digest. */
  async base(module: string, digest: string): Promise<{ version: number; source: string } | undefined> {
    const version = (await this.versions(module)).findLast((one) => one.digest === digest)?.version;
    return version === undefined ? undefined : { version, source: await this.source(module, version) };
  }

  async source(module: string, version: number): Promise<string> {
    return (await this.#meshfs.resolve(pointerOf(module, version))).content;
  }

  /** The next number that nobody has used, also not for a version that came to nothing. */
  async nextVersion(module: string): Promise<number> {
    for (let version = (this.#records.get(module)?.latest ?? 0) + 1; ; version++) {
      const taken = await this.#meshfs.open(pointerOf(module, version)).then(
        () => true,
        () => false,
      );
      if (!taken) return version;
    }
  }

  /** Keeps a state as it was when its version was left. Gives the pointer. */
  async keepState(module: string, version: number, state: Uint8Array): Promise<string> {
    const pointer = `${pointerOf(module, version)}/state`;
    await this.#meshfs.put({ pointer, content: state, media_type: 'application/octet-stream' });
    return pointer;
  }

  async state(pointer: string): Promise<Uint8Array> {
    const chunks: Buffer[] = [];
    for await (const chunk of (await this.#meshfs.open(pointer)).read()) chunks.push(Buffer.from(chunk));
    return Buffer.concat(chunks);
  }

  /** Keeps the state that a version is to begin with, if it still serves alone: nothing for the journal. */
  keepPresent(module: string, state: { pointer: string; from: number }): Promise<void> {
    const run = this.#turn.then(async () => {
      const record = this.#records.get(module);
      if (record?.live.length !== 1 || record.live[0]!.version !== state.from) return;
      const kept: ModuleRecord = { ...record, state };
      await this.#backplane.commit([{ namespace: MODULES, key: module, value: JSON.stringify(kept) }]);
      this.#records.set(module, kept);
    });
    this.#turn = run.catch(() => {});
    return run;
  }

  /**
   * One change of a module, with what it is about: all of it or nothing. Resolves when it is durable. `source`: that of
   * the first of `facts`, where this is what brings the version about.
   */
  commit(record: ModuleRecord, entry: NewEntry, facts: readonly VersionFacts[] = [], source?: string): Promise<void> {
    const run = this.#turn.then(async () => {
      const { entry: made, write, done } = this.journal.next(entry);
      const kept: ModuleRecord = { ...record, seq: made.seq };
      const writes: Write[] = [
        { namespace: MODULES, key: record.module, value: JSON.stringify(kept) },
        ...facts.map((one) => ({
          namespace: VERSIONS,
          key: versionKey(one.module, one.version),
          value: JSON.stringify(one),
        })),
        write,
      ];
      const [first] = facts;
      if (first && source !== undefined) {
        const { module, version, language } = first;
        await this.#meshfs.write({ pointer: pointerOf(module, version), content: source, language }, writes);
      } else await this.#backplane.commit(writes);
      done();
      this.#records.set(record.module, kept);
      this.#changed.add(record.module);
      this.#soon ??= setTimeout(() => void this.copy(), COPY_AFTER_MS);
    });
    this.#turn = run.catch(() => {});
    return run;
  }

  /** Resolves when the readable copies are as the commits so far have it. */
  copy(): Promise<void> {
    clearTimeout(this.#soon);
    this.#soon = undefined;
    this.#copies = this.#copies.then(async () => {
      for (const module of this.#changed) {
        this.#changed.delete(module);
        // What fails is tried again at the module's next change, and at the next open.
        await this.#copy(this.#records.get(module)!).catch(() => {});
      }
    });
    return this.#copies;
  }

  /** The readable copy of what runs. It is for people; what the kernel reads is the store. */
  async #copy({ module, live }: ModuleRecord): Promise<void> {
    const main = [...live].sort((a, b) => b.weight - a.weight)[0];
    const wanted = main && (await this.facts(module, main.version).catch(() => undefined));
    const name = wanted && `${module}.${ENDINGS[wanted.language]}`;
    const before = this.#copied.get(module);
    if (before && before.name === name && before.digest === wanted?.digest) return;
    this.#copied.delete(module);
    // What an earlier run has left is not known here.
    const others = Object.values(ENDINGS).map((ending) => `${module}.${ending}`);
    for (const other of others)
      if (other !== name && (before?.name ?? other) === other) await rm(join(this.#folder, other), { force: true });
    if (!wanted || !name) return;
    const file = join(this.#folder, name);
    const source = await this.source(module, wanted.version);
    if ((await readFile(file, 'utf8').catch(() => undefined)) !== source) {
      await writeFile(`${file}.tmp`, source, { mode: 0o600 });
      await rename(`${file}.tmp`, file);
    }
    this.#copied.set(module, { name, digest: wanted.digest });
  }

  async #repair(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    for (const name of await readdir(this.#folder))
      if (name.endsWith('.tmp')) await rm(join(this.#folder, name), { recursive: true, force: true });
    for (const module of this.#records.keys()) this.#changed.add(module);
    await this.copy();
  }
}
