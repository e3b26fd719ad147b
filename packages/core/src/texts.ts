/**
 * Texts of any size in a key-value namespace, for records that live there: sources, parameters, results.
 *
 * What always holds: a text is durable when `keep` resolves; the same text is kept once, for as long as somebody holds
 * it; what a crash left without a holder goes at the next start. It stands apart from the object store, whose contents
 * are MeshFS's to collect.
 */
import { createHash } from 'node:crypto';
import type { KeyValue } from '@hauki/backplane';
import { Overloaded, StorageFailed } from '@hauki/protocol';

/** A text as a record holds it: itself where it is short, else where it is. */
export type Kept = { text: string } | { digest: string; chars: number };

/** Longer ones leave the record, so that records stay cheap to read and list. */
const INLINE_CHARS = 4 * 1024;
/** A piece fits a value also when each of its characters needs six for its escape. */
const PIECE_CHARS = 64 * 1024;

const PREFIX = 'text/';
const digestOf = (text: string) => createHash('sha256').update(Buffer.from(text, 'utf16le')).digest('hex');
const keysOf = (digest: string, chars: number) =>
  Array.from(
    { length: Math.ceil(chars / PIECE_CHARS) },
    (_, at) => `${PREFIX}${digest}/${String(at).padStart(6, '0')}`,
  );

/** A text is gone or damaged for good: reading it again gives nothing else. What it was part of can only be handed in anew. */
export class TextDamaged extends StorageFailed {
  constructor(digest: string) {
    super(
      { what: `the text ${digest}` },
      `The text ${digest} is damaged: what it was part of can only be handed in anew`,
    );
  }
}

interface Held {
  chars: number;
  holders: number;
  /** The last write or removal; they follow each other. */
  last: Promise<void>;
}

export class Texts {
  readonly #kv: KeyValue;
  readonly #limit_chars: number;
  readonly #held = new Map<string, Held>();
  #chars = 0;

  /** `limit_chars`: what is held outside records, all together. */
  constructor(kv: KeyValue, limit_chars: number) {
    this.#kv = kv;
    this.#limit_chars = limit_chars;
  }

  /** Characters that are held outside records. */
  get chars(): number {
    return this.#chars;
  }

  /**
   * To be called once, before all else, with what the records hold: removes everything else, as far as the disk lets it
   * now. What is left goes at the next start. `complete`: whether these are all records; of others, which could not be
   * read, the texts stay.
   */
  async open(kept: Iterable<Kept>, complete = true): Promise<void> {
    for (const one of kept) if ('digest' in one) this.#hold(one.digest, one.chars);
    if (!complete) return;
    for (let after = ''; ; ) {
      const page = await this.#kv.list(PREFIX, { after });
      const lost = page.entries.filter(({ key }) => !this.#held.has(key.slice(PREFIX.length).split('/')[0]!));
      await Promise.all(lost.map(({ key }) => this.#kv.delete(key).catch(() => {})));
      if (page.next === undefined) return;
      after = page.next;
    }
  }

  /**
   * Keeps a text and holds it once. Rejects with Overloaded or StorageFailed; then it is not held. `always`: whatever is
   * held already, for what must not be refused any more.
   */
  async keep(text: string, always = false): Promise<Kept> {
    if (text.length <= INLINE_CHARS) return { text };
    const digest = digestOf(text);
    const chars = text.length;
    if (!always && !this.#held.has(digest) && this.#chars + chars > this.#limit_chars)
      throw new Overloaded({ what: 'stored sources, parameters and results (characters)', limit: this.#limit_chars });
    const held = this.#hold(digest, chars);
    if (held.holders === 1)
      held.last = held.last
        .catch(() => {})
        .then(async () => {
          const pieces = keysOf(digest, chars).map((key, at) =>
            this.#kv.put(key, JSON.stringify(text.slice(at * PIECE_CHARS, (at + 1) * PIECE_CHARS))),
          );
          await Promise.all(pieces);
        });
    try {
      await held.last;
    } catch (error) {
      this.release({ digest, chars });
      throw error;
    }
    return { digest, chars };
  }

  /** Rejects with TextDamaged when it is gone or damaged, and with StorageFailed where the disk fails. */
  async read(kept: Kept): Promise<string> {
    if ('text' in kept) return kept.text;
    const pieces = await Promise.all(keysOf(kept.digest, kept.chars).map((key) => this.#kv.get(key)));
    try {
      const text = pieces.map((piece) => (piece ? (JSON.parse(piece.value) as string) : '')).join('');
      if (digestOf(text) === kept.digest) return text;
    } catch {
      // A piece is no JSON any more.
    }
    throw new TextDamaged(kept.digest);
  }

  /** As `keep`, of several: all are held, or none. What is undefined stays so. */
  async keepAll<T extends (string | undefined)[]>(
    texts: [...T],
  ): Promise<{ [K in keyof T]: Extract<T[K], undefined> | Kept }> {
    const kept: (Kept | undefined)[] = [];
    try {
      for (const text of texts) kept.push(text === undefined ? text : await this.keep(text));
    } catch (error) {
      this.release(...kept);
      throw error;
    }
    return kept as never;
  }

  /** Lets go of each once; with its last holder it goes. */
  release(...all: (Kept | null | undefined)[]): void {
    for (const kept of all) if (kept && 'digest' in kept) this.#release(kept);
  }

  #release({ digest, chars }: { digest: string; chars: number }): void {
    const held = this.#held.get(digest);
    if (!held || --held.holders > 0) return;
    held.last = held.last
      .catch(() => {})
      .then(async () => {
        if (held.holders > 0) return;
        this.#held.delete(digest);
        this.#chars -= chars;
        await Promise.all(keysOf(digest, chars).map((key) => this.#kv.delete(key)));
      });
    // What cannot be removed now has no holder at the next start.
    held.last.catch(() => {});
  }

  #hold(digest: string, chars: number): Held {
    let held = this.#held.get(digest);
    if (!held) {
      held = { chars, holders: 0, last: Promise.resolve() };
      this.#held.set(digest, held);
      this.#chars += chars;
    }
    held.holders += 1;
    return held;
  }
}
