/**
 * Requests without bodies that come for one module in one turn of the event loop go to whoever serves it as one call, and
 * their answers come back as one: a call for each would take as long as all else that is done for it. `gathered.ts` is
 * the other half.
 *
 * What always holds: a request is answered at its own place of the list, or alone where that says that it is late; what
 * comes is a stranger's word, and a list that cannot be one fails what it has not answered before; a late answer is
 * asked for also when nobody waits any more, so that the guest keeps none.
 */
import {
  type Answer,
  Cancelled,
  ConnectionLost,
  describe,
  type FlatHeaders,
  isError,
  OutcomeUnknown,
} from '@hauki/protocol';
import { ANSWERS_CHARS, AS_BEFORE, areAlike, charsIn } from './alike.ts';
import type { CallSignal } from './session.ts';

/** Requests of one call, and their characters: a message has 8 MiB, and JSON makes six of one. */
const [REQUESTS, REQUESTS_CHARS] = [64, 512 * 1024];
/** Where most answers were not there in time to go with others, so many requests go alone before that is tried again. */
const ALONE = 256;

export interface GathererPowers {
  call(method: 'fetchAll' | 'lateAnswer', params: unknown[], options: { signal?: CallSignal }): Promise<unknown>;
}

interface Waiting {
  signal: CallSignal | undefined;
  resolve(answer: Answer | Promise<Answer>): void;
  reject(error: unknown): void;
}

export class Gatherer {
  readonly #powers: GathererPowers;
  #waiting: Waiting[] = [];
  #requests: (string | number)[] = [];
  #chars = 0;
  /** Of the last request in it. */
  #headers: FlatHeaders | undefined;
  #next = 0;
  /** So many requests go alone, since most were late. */
  #alone = 0;

  constructor(powers: GathererPowers) {
    this.#powers = powers;
  }

  /** Whether the next request had better go with others. */
  takes(): boolean {
    if (this.#alone === 0) return true;
    this.#alone--;
    return false;
  }

  /** Gives what the guest calls its answer. Rejects as the call does. */
  fetch(method: string, url: string, headers: FlatHeaders, signal: CallSignal | undefined): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.push({ signal, resolve, reject }) === 1) setImmediate(this.#sendOf(this.#waiting));
      const alike = this.#headers !== undefined && areAlike(headers, this.#headers);
      this.#requests.push(method, url, alike ? AS_BEFORE : headers.length);
      this.#chars += url.length;
      if (!alike) {
        this.#headers = headers;
        this.#chars += charsIn(headers);
        for (const text of headers) this.#requests.push(text);
      }
      if (this.#waiting.length >= REQUESTS || this.#chars >= REQUESTS_CHARS) this.#send();
    });
  }

  readonly #sendOf = (waiting: Waiting[]) => () => {
    if (this.#waiting === waiting) this.#send();
  };

  #send(): void {
    const waiting = this.#waiting;
    const first = this.#next;
    this.#next += waiting.length;
    const answers = this.#powers.call('fetchAll', [first, this.#requests], {});
    this.#waiting = [];
    this.#requests = [];
    this.#chars = 0;
    this.#headers = undefined;
    answers.then(
      (list) => this.#settle(first, waiting, Array.isArray(list) ? list : []),
      (error) => {
        for (const { reject } of waiting) reject(error);
      },
    );
  }

  #settle(first: number, waiting: Waiting[], list: unknown[]): void {
    let at = 0;
    let late = 0;
    let headers: FlatHeaders | undefined;
    let chars: number | undefined;
    // Few characters may stand for many, which would all be written.
    let room = ANSWERS_CHARS;
    for (let i = 0; i < waiting.length; i++) {
      const { signal, resolve, reject } = waiting[i]!;
      const status = list[at++];
      if (status === 0) {
        late++;
        resolve(this.#late(first + i, signal));
        continue;
      }
      const length = list[at++] as number;
      if (length === AS_BEFORE) {
        chars ??= charsIn(headers ?? []);
        room -= chars;
      } else {
        headers = Number.isInteger(length) && length >= 0 ? (list.slice(at, at + length) as FlatHeaders) : undefined;
        chars = undefined;
        at += length;
      }
      if (!headers || room < 0 || !(at < list.length)) {
        const wrong = new TypeError('it gave no answers that can be passed on');
        for (const { reject } of waiting.slice(i)) reject(wrong);
        return;
      }
      const body = list[at++];
      // Bytes and streams come alone.
      const answer = [status, headers, typeof body === 'string' ? body : null];
      if (signal?.aborted) reject(left(signal));
      else resolve(answer as Answer);
    }
    if (late * 2 > waiting.length) this.#alone = ALONE;
  }

  /** An answer that was not there yet, or is more than a text. */
  async #late(number: number, signal: CallSignal | undefined): Promise<Answer> {
    const gone = signal?.aborted ?? false;
    const options = signal && !gone ? { signal } : {};
    const asked = this.#powers.call('lateAnswer', [number, gone], options).catch((error) => {
      // What was not sent is the question for the answer; the request itself was.
      throw isError(error, ConnectionLost) ? new OutcomeUnknown({ method: 'fetch', why: error.fields.why }) : error;
    });
    const answer = (await asked) as Answer;
    if (!gone) return answer;
    const body = Array.isArray(answer) ? (answer[2] as AsyncIterable<unknown> | null) : null;
    await body?.[Symbol.asyncIterator]?.().return?.();
    throw left(signal!);
  }
}

const left = (signal: CallSignal) =>
  new Cancelled({ method: 'fetch', why: describe(signal.reason), may_have_run: true });
