/**
 * The serving half of requests that come together (`gatherer.ts`): the answers that are there at the end of the turn
 * which brings the first of them go back as one.
 *
 * What always holds: each request has its place, answered there or told as late; a late one's answer is kept until it is
 * asked for, once; one that fails, or has a body that is no text, is late too, so that it goes the ordinary way.
 */
import { type Answer, type Body, Cancelled, type FlatHeaders, type GatheredAnswers } from '@hauki/protocol';
import { ANSWERS_CHARS, AS_BEFORE, areAlike, charsIn } from './alike.ts';
import { Served } from './served.ts';

/** Until the first is there; then all are late, and each is waited for by itself. */
const FIRST_MS = 20;
/** Where a platform does not tell turns apart: so many steps of waiting for what is there are one. */
const STEPS = 32;

// Taken before the worker's code runs, which may replace it.
const { setImmediate } = globalThis as { setImmediate?: (run: () => void) => unknown };

/** At the end of the turn. */
function afterTurn(run: () => void, steps = STEPS): void {
  if (setImmediate) setImmediate(run);
  else if (steps === 0) run();
  else queueMicrotask(() => afterTurn(run, steps - 1));
}

/** `call` is the request's own: it ends when its client leaves. */
type Fetch = (method: string, url: string, headers: FlatHeaders, body: Body, call: Served) => Answer | Promise<Answer>;

/** Serves a microkernel's requests for one module, or a core's. */
export class Gathered {
  readonly #fetch: Fetch;
  readonly #late = new Map<number, { answer: Answer | Promise<Answer>; call: Served }>();

  constructor(fetch: Fetch) {
    this.#fetch = fetch;
  }

  /** As `PluginForKernel.fetchAll`. */
  fetchAll(first: number, requests: (string | number)[]): GatheredAnswers | Promise<GatheredAnswers> {
    const given: (Answer | Promise<Answer>)[] = [];
    const calls: Served[] = [];
    let waits = 0;
    let settled = () => {};
    let headers: FlatHeaders = [];
    for (let at = 0; at < requests.length; ) {
      const length = requests[at + 2] as number;
      const [method, url] = [requests[at] as string, requests[at + 1] as string];
      at += 3;
      if (length !== AS_BEFORE) {
        headers = requests.slice(at, at + length) as string[];
        at += headers.length;
      }
      const place = given.length;
      const call = new Served(undefined);
      calls.push(call);
      const answer = this.#begin(method, url, headers, call);
      given.push(answer);
      if (Array.isArray(answer)) continue;
      waits++;
      const settle = (there: Answer | Promise<Answer>) => {
        given[place] = there;
        waits--;
        settled();
      };
      // One that fails stays as it is: whoever asks for it late hears why.
      answer.then(settle, () => settle(answer));
    }
    if (waits === 0) return this.#laid(first, given, calls);
    return new Promise((resolve) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      let is_last_turn = waits < given.length;
      let over = false;
      const finish = () => {
        if (over) return;
        over = true;
        clearTimeout(timer);
        resolve(this.#laid(first, given, calls));
      };
      settled = () => {
        if (waits === 0) finish();
        else if (!is_last_turn) afterTurn(finish);
        is_last_turn = true;
      };
      afterTurn(() => {
        if (is_last_turn) finish();
        else timer = setTimeout(finish, FIRST_MS);
      });
    });
  }

  #begin(method: string, url: string, headers: FlatHeaders, call: Served): Answer | Promise<Answer> {
    try {
      return this.#fetch(method, url, headers, null, call);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #laid(first: number, given: (Answer | Promise<Answer>)[], calls: Served[]): GatheredAnswers {
    const laid: GatheredAnswers = [];
    // An answer that goes beyond goes alone.
    let room = ANSWERS_CHARS;
    let before: FlatHeaders | undefined;
    for (let place = 0; place < given.length; place++) {
      const answer = given[place]!;
      const chars = Array.isArray(answer) ? charsOf(answer) : Number.POSITIVE_INFINITY;
      if (chars > room) {
        this.#late.set(first + place, { answer, call: calls[place]! });
        laid.push(0);
        continue;
      }
      room -= chars;
      const [status, headers, body] = answer as [number, FlatHeaders, string | null];
      const alike = before !== undefined && areAlike(headers, before);
      laid.push(status, alike ? AS_BEFORE : headers.length);
      if (!alike) for (const text of headers) laid.push(text);
      laid.push(body);
      before = headers;
    }
    return laid;
  }

  /** As `PluginForKernel.lateAnswer`; with the call that asks for it ends the request's own. */
  async lateAnswer(number: number, gone: boolean, by?: Pick<Served, 'onabort'>): Promise<Answer> {
    const late = this.#late.get(number);
    this.#late.delete(number);
    if (late === undefined) throw new RangeError(`there is no late answer ${number}`);
    if (gone) late.call.abort(new Cancelled({ method: 'fetch', why: 'the client has gone', may_have_run: true }));
    else if (by) by.onabort = (reason) => late.call.abort(reason);
    return late.answer;
  }
}

/** Of an answer that a gathered message can have; of another infinitely many. */
function charsOf([, headers, body]: Answer): number {
  if (body !== null && typeof body !== 'string') return Number.POSITIVE_INFINITY;
  return charsIn(headers) + (body?.length ?? 0);
}
