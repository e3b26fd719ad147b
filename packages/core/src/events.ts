/**
 * What happens in the mesh, told as events: numbered without a gap from the core's start, the newest kept in memory.
 *
 * What always holds: nothing here grows with its readers. A reader is a place in the ring and takes what it has not
 * seen when it can; one that the ring has overtaken hears, in the right place, how many it missed (EVENTS_LOST). After a restart
 * numbers begin anew under another core id, and whoever resumes hears that too. Events are kept in memory alone: they
 * tell of state, and are not the state.
 */
import { BadInput, EVENTS_LOST, type EventName, LIMITS, type MeshEvent } from '@hauki/protocol';
import { covers, may, owns, type Principal } from './rights.ts';

/** An event's id, or `0`. */
export const AFTER = /^(?:0|([A-Za-z0-9_-]{1,64})-(\d{1,15}))$/;

interface Kept extends MeshEvent {
  /** The event as JSON: written once, however many read it. */
  text: string;
}

export interface EventsOptions {
  /** Drawn anew at every start: letters, digits, `_` and `-`. */
  core_id: string;
  /** Milliseconds since 1970. */
  now?: () => number;
  log?: (line: string, fields: object) => void;
  /** Events that are remembered. */
  most?: number;
}

export interface Wanted {
  /** The id after which to begin; `0`: with the oldest kept; undefined: with what is still to come. */
  after?: string | undefined;
  match?: (event: MeshEvent) => boolean;
}

export class Events {
  readonly core_id: string;
  readonly #options: Required<EventsOptions>;
  readonly #ring = new Map<number, Kept>();
  readonly #readers = new Set<EventReader>();
  #chars = 0;
  #last = 0;

  constructor(options: EventsOptions) {
    this.#options = { now: Date.now, log: () => {}, most: LIMITS.events, ...options };
    this.core_id = options.core_id;
  }

  /** The number of the newest event, and of the oldest that is kept. */
  get last(): number {
    return this.#last;
  }
  get oldest(): number {
    return this.#last - this.#ring.size + 1;
  }

  /**
   * Tells that something has happened. `fields` is what JSON can carry, without secrets or content. Of the fields,
   * `owner`, `worker` and `pointer` say who may see it (`visibleTo`); an event with none of them is for `read` alone.
   */
  emit = (name: EventName, fields: object = {}): void => {
    this.#last += 1;
    const event = this.#event(name, this.#last, this.#options.now(), brief(fields));
    this.#ring.set(event.seq, event);
    this.#chars += event.text.length;
    while (this.#ring.size > this.#options.most || (this.#chars > LIMITS.events_chars && this.#ring.size > 1)) {
      const oldest = this.#ring.get(this.oldest)!;
      this.#chars -= oldest.text.length;
      this.#ring.delete(oldest.seq);
    }
    this.#options.log(name, event.fields);
    for (const reader of this.#readers) reader.wake();
  };

  /** A place in the stream of events. Throws BadInput for an `after` that is no id. */
  reader({ after, match = () => true }: Wanted = {}): EventReader {
    const reader = new EventReader(this, this.#begin(after), match, () => this.#readers.delete(reader));
    this.#readers.add(reader);
    return reader;
  }

  /** What the ring holds, oldest first: the last `limit` of all, or the first `limit` after an id. */
  recent({ after, match = () => true, limit }: Wanted & { limit: number }): MeshEvent[] {
    if (after === undefined) {
      const found: MeshEvent[] = [];
      for (let seq = this.#last; seq >= this.oldest && found.length < limit; seq--) {
        const event = this.#ring.get(seq)!;
        if (match(event)) found.push(event);
      }
      return found.reverse();
    }
    const reader = this.reader({ after, match });
    const found: MeshEvent[] = [];
    for (let event = reader.take(); event && found.length < limit; event = reader.take()) found.push(event);
    reader.close();
    return found;
  }

  /** One kept event. */
  at(seq: number): Kept | undefined {
    return this.#ring.get(seq);
  }

  /** What a reader is told in place of the events up to `seq`. */
  loss(seq: number, fields: { lost: number | null; why: string }): Kept {
    return this.#event(EVENTS_LOST, seq, this.#options.now(), fields);
  }

  #event(name: EventName, seq: number, at: number, fields: Record<string, unknown>): Kept {
    const event: MeshEvent = { id: `${this.core_id}-${seq}`, seq, at, name, fields };
    return { ...event, text: JSON.stringify(event) };
  }

  #begin(after: string | undefined): { seq: number; restarted: boolean } {
    if (after === undefined) return { seq: this.#last, restarted: false };
    if (after === '0') return { seq: this.oldest - 1, restarted: false };
    const [, core, number] = AFTER.exec(after) ?? [];
    if (core === undefined)
      throw new BadInput({ what: 'after', why: `${JSON.stringify(after.slice(0, 100))} is no id of an event` });
    if (core !== this.core_id) return { seq: this.oldest - 1, restarted: true };
    return { seq: Math.min(Number(number), this.#last), restarted: false };
  }
}

/** Reads on at its own pace. */
export class EventReader {
  readonly #events: Events;
  readonly #match: (event: MeshEvent) => boolean;
  readonly #left: () => void;
  #seq: number;
  #restarted: boolean;
  /** Called when there may be something to take. */
  wake: () => void = () => {};

  constructor(
    events: Events,
    begin: { seq: number; restarted: boolean },
    match: (event: MeshEvent) => boolean,
    left: () => void,
  ) {
    this.#events = events;
    this.#match = match;
    this.#left = left;
    this.#seq = begin.seq;
    this.#restarted = begin.restarted;
  }

  /** Where it stands: what to resume after. */
  get position(): string {
    return `${this.#events.core_id}-${this.#seq}`;
  }

  /** The next event that it may have, or word of what it missed; undefined when there is none yet. */
  take(): (MeshEvent & { text: string }) | undefined {
    const events = this.#events;
    const missed = events.oldest - 1 - this.#seq;
    if (this.#restarted || missed > 0) {
      const fields = this.#restarted
        ? { lost: null, why: 'the core was restarted: what it said last before is not known' }
        : { lost: missed, why: 'more happened than is remembered' };
      this.#seq = Math.max(this.#seq, events.oldest - 1);
      this.#restarted = false;
      return events.loss(this.#seq, fields);
    }
    while (this.#seq < events.last) {
      this.#seq += 1;
      const event = events.at(this.#seq)!;
      if (this.#match(event)) return event;
    }
    return undefined;
  }

  close(): void {
    this.wake = () => {};
    this.#left();
  }
}

/**
 * Whether a principal may see an event. Tokens' events: an admin, or whoever stands above. Pointers: who may read them.
 * Workers and jobs: their owner, whoever targets them, and `read`. All others: `read`.
 */
export function visibleTo(principal: Principal, { fields }: MeshEvent): boolean {
  const { owner, worker, pointer, token } = fields as Record<string, unknown>;
  const { scopes, targets } = principal;
  if (covers(scopes, 'admin') && targets.pointers.includes('gem-pointer://')) return true;
  const own = typeof owner === 'string' && owns(principal, owner);
  if (token !== undefined) return own || covers(scopes, 'admin');
  const all = covers(scopes, 'read');
  if (pointer !== undefined) return mayRead(principal, pointer);
  if (all || own) return true;
  return typeof worker === 'string' && (targets.workers.includes('*') || targets.workers.includes(worker));
}

function mayRead(principal: Principal, pointer: unknown): boolean {
  try {
    return may(principal, { scope: ['meshfs.read', 'read'], pointer: pointer as string });
  } catch {
    return false; // it is no pointer
  }
}

/** What a reader asked for: names that begin so, and one worker. */
export function asked(names: readonly string[], worker: string | undefined): (event: MeshEvent) => boolean {
  return (event) =>
    (names.length === 0 || names.some((name) => event.name.startsWith(name))) &&
    (worker === undefined || event.fields.worker === worker);
}

/** The fields as they are kept: a copy, with long texts cut, and without the longest fields where all is too much. */
function brief(fields: object): Record<string, unknown> {
  const cut = (_key: string, value: unknown) =>
    typeof value === 'string' && value.length > LIMITS.event_text_chars
      ? `${value.slice(0, LIMITS.event_text_chars).toWellFormed()}…`
      : value;
  const sizes = Object.entries(fields).map(([key, value]) => ({ key, text: JSON.stringify(value, cut) ?? '' }));
  let left = LIMITS.event_chars;
  const kept = new Set<string>();
  for (const { key, text } of sizes.toSorted((a, b) => a.text.length - b.text.length)) {
    left -= text.length;
    if (text !== '' && left >= 0) kept.add(key);
  }
  return Object.fromEntries(sizes.filter(({ key }) => kept.has(key)).map(({ key, text }) => [key, JSON.parse(text)]));
}
