/**
 * What a kernel remembers: each module's record, its versions with their sources, and the journal. The record says what
 * must run; a change of it, of a version's facts and of the journal is one commit.
 *
 * What always holds: a version's source is durable before a record names it; a number is given once; the readable copies
 * under `uah_endpoints/` are written behind the commit and repaired at the next open.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
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
import { JOURNAL, Journal, type NewEntry } from './journal.ts';

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
  /** The readable copies, in the order of the commits. */
  #copies: Promise<void> = Promise.resolve();
  /** What they have: digests by file. */
  readonly #copied = new Map<string, string>();

  private constructor(backplane: Backplane, meshfs: MeshFs, folder: string, journal: Journal) {
    this.#backplane = backplane;
    this.#meshfs = meshfs;
    this.#folder = folder;
    this.journal = journal;
  }

  static async open(backplane: Backplane, meshfs: MeshFs, folder: string): Promise<Store> {
    const store = new Store(backplane, meshfs, folder, await Journal.open(backplane.kv(JOURNAL)));
    for await (const { value } of entriesOf(backplane.kv(MODULES))) {
      const record = JSON.parse(value) as ModuleRecord;
      store.#records.set(record.module, record);
    }
    await store.#repair();
    return store;
  }

  record(module: string): ModuleRecord | undefined {
    return this.#records.get(module);
  }

  records(): ModuleRecord[] {
    return [...this.#records.values()];
  }

  /** Rejects with VersionUnknown. */
  async facts(module: string, version: number): Promise<VersionFacts> {
    const found = await this.#backplane.kv(VERSIONS).get(versionKey(module, version));
    if (!found) {
      const newest = this.#records.get(module)?.latest ?? 0;
      throw new VersionUnknown({ pointer: pointerOf(module, version), version, oldest: 1, newest });
    }
    return JSON.parse(found.value) as VersionFacts;
  }

  /** All versions, oldest first. Rejects with ModuleUnknown. */
  async versions(module: string): Promise<VersionFacts[]> {
    if (!this.#records.has(module)) throw new ModuleUnknown({ module, has: [...this.#records.keys()] });
    const found: VersionFacts[] = [];
    for await (const { value } of entriesOf(this.#backplane.kv(VERSIONS), `${module}/`))
      found.push(JSON.parse(value) as VersionFacts);
    return found;
  }

  async source(module: string, version: number): Promise<string> {
    return (await this.#meshfs.resolve(pointerOf(module, version))).content;
  }

  /** Keeps a version's source. The number is its own from then on, whether it ever runs or not. */
  async keepSource(module: string, version: number, source: string, language: Language): Promise<void> {
    await this.#meshfs.write({ pointer: pointerOf(module, version), content: source, language });
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

  /** Keeps a record in which no more has changed than the state to begin with: nothing for the journal. */
  async keepRecord(record: ModuleRecord): Promise<void> {
    await this.#backplane.commit([{ namespace: MODULES, key: record.module, value: JSON.stringify(record) }]);
    this.#records.set(record.module, record);
  }

  /**
   * One change of a module, with what it is about: all of it or nothing. Resolves when it is durable. `source`: of the
   * version that the first of `facts` tells of, where it is at hand.
   */
  commit(record: ModuleRecord, entry: NewEntry, facts: readonly VersionFacts[] = [], source?: string): Promise<void> {
    const run = this.#turn.then(async () => {
      const { write, done } = this.journal.next(entry);
      const writes: Write[] = [
        { namespace: MODULES, key: record.module, value: JSON.stringify(record) },
        ...facts.map((one) => ({
          namespace: VERSIONS,
          key: versionKey(one.module, one.version),
          value: JSON.stringify(one),
        })),
        write,
      ];
      await this.#backplane.commit(writes);
      done();
      this.#records.set(record.module, record);
      // Nobody waits for it here. What fails is tried again at the module's next change, and at the next open.
      this.#copies = this.#copies.then(() => this.#copy(record, facts, source)).catch(() => {});
    });
    this.#turn = run.catch(() => {});
    return run;
  }

  /** Resolves when the readable copies are as the commits so far have it. */
  copied(): Promise<void> {
    return this.#copies;
  }

  /** The readable copy of what runs. It is for people; what the kernel reads is the store. */
  async #copy({ module, live }: ModuleRecord, known: readonly VersionFacts[] = [], text?: string): Promise<void> {
    const main = [...live].sort((a, b) => b.weight - a.weight)[0];
    const found = known.find(({ version }) => version === main?.version);
    const wanted = found ?? (main && (await this.facts(module, main.version).catch(() => undefined)));
    const name = wanted && `${module}.${ENDINGS[wanted.language]}`;
    if (name !== undefined && this.#copied.get(name) === wanted?.digest) return;
    for (const ending of Object.values(ENDINGS)) this.#copied.delete(`${module}.${ending}`);
    for (const ending of Object.values(ENDINGS))
      if (`${module}.${ending}` !== name) rmSync(join(this.#folder, `${module}.${ending}`), { force: true });
    if (!wanted || !name) return;
    const file = join(this.#folder, name);
    const source = (wanted === known[0] ? text : undefined) ?? (await this.source(module, wanted.version));
    if (readIfThere(file) !== source) {
      writeFileSync(`${file}.tmp`, source, { mode: 0o600 });
      renameSync(`${file}.tmp`, file);
    }
    this.#copied.set(name, wanted.digest);
  }

  async #repair(): Promise<void> {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(this.#folder)) if (name.endsWith('.tmp')) rmSync(join(this.#folder, name));
    for (const record of this.#records.values()) await this.#copy(record);
  }
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
