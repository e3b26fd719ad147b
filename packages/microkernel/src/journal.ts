/**
 * The provenance journal: who changed which module into what, in one chain. It lives in the same store as the modules'
 * records, and an entry is written in the same commit as what it tells of.
 *
 * What always holds: entries are numbered without a gap; each holds the SHA-256 of the one before, so that none can be
 * changed, left out or put in between without all that follow being written anew; entries are only ever added.
 */
import { createHash } from 'node:crypto';
import { entriesOf, type KeyValue, type Write } from '@hauki/backplane';
import { type JournalEntry, ModuleUnknown, StorageFailed } from '@hauki/protocol';

export type NewEntry = Pick<JournalEntry, 'module' | 'deed' | 'by'> &
  Partial<Pick<JournalEntry, 'version' | 'digest' | 'note'>>;

export const JOURNAL = 'journal';
/** Of a change that is no version's. */
const NAMELESS = { version: null, digest: null, note: null };
const NOTHING = '0'.repeat(64);
const keyOf = (seq: number) => String(seq).padStart(12, '0');

function hashOf({ seq, at, module, deed, by, version, digest, note, before }: Omit<JournalEntry, 'hash'>): string {
  return createHash('sha256')
    .update(JSON.stringify([seq, at, module, deed, by, version, digest, note, before]))
    .digest('hex');
}

/** What breaks the chain, or undefined. Entries in their order, from the first. */
export function faultOf(entries: readonly JournalEntry[]): string | undefined {
  let before = NOTHING;
  for (const [i, entry] of entries.entries()) {
    if (entry.seq !== i + 1) return `entry ${i + 1} is missing`;
    if (entry.before !== before) return `entry ${entry.seq} does not follow the one before`;
    if (entry.hash !== hashOf(entry)) return `entry ${entry.seq} was changed`;
    before = entry.hash;
  }
  return undefined;
}

/** To be thrown where what a kernel keeps is not as it left it. */
export const damaged = (what: string, fault: string) =>
  new StorageFailed(
    { what: `${what}: ${fault}` },
    `${what} is damaged: ${fault}. Put back a copy of the kernel's data folder, or begin with another`,
  );

export class Journal {
  readonly #kv: KeyValue;
  readonly #now: () => number;
  #seq = 0;
  #last = NOTHING;
  /** The number of each module's last entry. */
  readonly #of = new Map<string, number>();

  private constructor(kv: KeyValue, now: () => number) {
    this.#kv = kv;
    this.#now = now;
  }

  /** Opens the journal and checks the whole chain. Rejects with StorageFailed where it is broken. */
  static async open(kv: KeyValue, now: () => number = () => Date.now()): Promise<Journal> {
    const journal = new Journal(kv, now);
    const entries = await journal.#all();
    const last = entries.at(-1);
    for (const { module, seq } of entries) journal.#of.set(module, seq);
    if (last) [journal.#seq, journal.#last] = [last.seq, last.hash];
    return journal;
  }

  /**
   * An entry that comes next, and the write that adds it to a commit. When that commit succeeded, `done` must be called
   * before the next is made; so one change at a time.
   */
  next(entry: NewEntry): { entry: JournalEntry; write: Write; done(): void } {
    const whole = { seq: this.#seq + 1, at: this.#now(), ...NAMELESS, ...entry, before: this.#last };
    const made: JournalEntry = { ...whole, hash: hashOf(whole) };
    return {
      entry: made,
      write: { namespace: JOURNAL, key: keyOf(made.seq), value: JSON.stringify(made), expect: 'absent' },
      done: () => {
        [this.#seq, this.#last] = [made.seq, made.hash];
        this.#of.set(made.module, made.seq);
      },
    };
  }

  /** The number of the last entry. */
  get last(): number {
    return this.#seq;
  }

  /** The number of a module's last entry. */
  lastOf(module: string): number | undefined {
    return this.#of.get(module);
  }

  /** The entries behind a number, oldest first, at most so many. */
  async after(seq: number, most: number): Promise<JournalEntry[]> {
    const numbers = Array.from({ length: Math.max(0, Math.min(most, this.#seq - seq)) }, (_, i) => seq + 1 + i);
    const found = await Promise.all(numbers.map((number) => this.#kv.get(keyOf(number))));
    return found.filter((entry) => entry !== undefined).map(({ value }) => JSON.parse(value) as JournalEntry);
  }

  /**
   * All entries, or those of one module, oldest first. Rejects with StorageFailed where the chain is broken or cut, and
   * with ModuleUnknown where there never was such a module.
   */
  async entries(module?: string): Promise<JournalEntry[]> {
    const seq = this.#seq;
    if (module !== undefined && !this.#of.has(module)) throw new ModuleUnknown({ module, has: [...this.#of.keys()] });
    const all = await this.#all();
    if (all.length < seq) throw damaged('The journal', `it ends with entry ${all.length} of ${seq}`);
    return module === undefined ? all : all.filter((entry) => entry.module === module);
  }

  async #all(): Promise<JournalEntry[]> {
    const found: JournalEntry[] = [];
    for await (const { key, value } of entriesOf(this.#kv)) {
      try {
        found.push(JSON.parse(value) as JournalEntry);
      } catch {
        throw damaged('The journal', `entry ${Number(key)} cannot be read`);
      }
    }
    const fault = faultOf(found);
    if (fault) throw damaged('The journal', fault);
    return found;
  }
}
