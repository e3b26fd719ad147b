/**
 * One version of a module while it lives: a vault, a session to it, and what it is serving.
 *
 * What always holds: a request is counted from its call to the last byte of its answer's body, so that an instance which
 * serves nothing may be ended; whoever ends an instance ends its vault, and a vault that dies ends its instance.
 */

import type { Agent } from '@hauki/node';
import {
  type Answer,
  BadInput,
  type Body,
  Cancelled,
  ConnectionLost,
  DeadlineExceeded,
  describe,
  type FlatHeaders,
  type Grants,
  isError,
  type Language,
  LIMITS,
  MeshError,
  type ModuleLog,
  OutcomeUnknown,
  Overloaded,
  type PluginDescription,
  PluginFailed,
  RemoteError,
  type SocketClose,
  SourceRejected,
} from '@hauki/protocol';
import { type CallSignal, Gatherer, type Session } from '@hauki/rpc';
import { errorAnswer, isWhole } from '@hauki/rpc/node';
import type { Endings } from './endings.ts';
import { KERNEL_LIMITS } from './limits.ts';
import { Upload, watched } from './passing.ts';
import { VersionStats } from './stats.ts';
import { asksForUpgrade, checkAnswer } from './words.ts';

export interface InstanceSpec {
  module: string;
  version: number;
  digest: string;
  source: string;
  language: Language;
  driver: string;
  memory_mib: number;
  grants: Grants;
  load_timeout_ms: number;
}

export interface PluginRequest {
  method: string;
  url: string;
  headers: FlatHeaders;
  body: Body;
  signal?: CallSignal;
}

/** Closes the WebSockets of a version that is left and whose time is over: who asks again gets the one in its place. */
const LEFT: SocketClose = [1012, 'this version serves no longer'];

/** No Request can be made of it: the module would fail, and be counted out, by its caller's doing. */
const NO_TRACE = new MeshError(
  { ...BadInput.row, status: 501 },
  { what: 'the method', why: 'no module serves TRACE' },
  'no module serves TRACE',
);

export class Instance {
  readonly spec: InstanceSpec;
  readonly worker: string;
  readonly description: PluginDescription;
  /** The version's: a vault that is started again goes on with them. */
  stats = new VersionStats();
  /** By the steady clock. */
  readonly born_at = performance.now();
  /** Settles with the reason when the vault is gone, whoever ended it. */
  readonly gone: Promise<string>;
  readonly #session: Session;
  readonly #agent: Agent;
  readonly #endings: Endings;
  /** Where its guest takes requests together. */
  readonly #gatherer: Gatherer | undefined;
  #in_flight = 0;
  /** Of these, WebSockets. */
  #sockets = 0;
  /** And answers that have begun, and stream. */
  #streaming = 0;
  /** And requests whose body is still being sent, and that have no answer yet. */
  #sending = 0;
  /** Of those who wait for fewer. */
  readonly #lookers = new Set<() => void>();
  #ending: Promise<void> | undefined;
  /** Whether it serves nothing new: others have taken its place, or it was removed. */
  is_left = false;
  #retiring: Promise<void> | undefined;
  #watching: NodeJS.Timeout | undefined;
  /** Since when it has not said that it lives, while it should. */
  #silent_since: number | undefined;

  constructor(
    spec: InstanceSpec,
    worker: string,
    session: Session,
    description: PluginDescription,
    agent: Agent,
    endings: Endings,
  ) {
    this.spec = spec;
    this.worker = worker;
    this.description = description;
    this.#session = session;
    this.#agent = agent;
    this.#endings = endings;
    if (description.together)
      this.#gatherer = new Gatherer({ call: (method, params, options) => session.call(method, params, options) });
    this.gone = session.closed;
  }

  get version(): number {
    return this.spec.version;
  }

  get in_flight(): number {
    return this.#in_flight;
  }

  /** Of the requests under way, those whose answer is the version's to give. */
  get awaited(): number {
    return this.#in_flight - this.#streaming - this.#sending;
  }

  /** Whether it is being ended, or has ended. */
  get ends(): boolean {
    return this.#ending !== undefined;
  }

  get open(): boolean {
    return this.#session.open;
  }

  get has_state(): boolean {
    return this.description.state === 'hooks' || this.description.state === 'export';
  }

  /**
   * Has a request served. A streamed body must be read to its end or left: until then the request is under way. Rejects
   * as a call does.
   */
  async fetch({ method, url, headers, body, signal }: PluginRequest): Promise<Answer> {
    if (method === 'TRACE') {
      if (!isWhole(body))
        void body[Symbol.asyncIterator]()
          .return?.()
          .catch(() => {});
      return errorAnswer(NO_TRACE);
    }
    if (this.#in_flight >= KERNEL_LIMITS.requests)
      throw new Overloaded({ what: `requests of the module ${this.spec.module}`, limit: KERNEL_LIMITS.requests });
    const socket = !isWhole(body) && asksForUpgrade(headers);
    if (socket && this.#sockets >= KERNEL_LIMITS.sockets)
      throw new Overloaded({ what: `WebSockets of the module ${this.spec.module}`, limit: KERNEL_LIMITS.sockets });
    if (socket) this.#sockets++;
    if (this.#in_flight++ === 0) this.#watch();
    const began = performance.now();
    const sent = isWhole(body) || socket ? undefined : this.#sent(body);
    const { stats } = this;
    let streams = false;
    try {
      const asked =
        body === null && this.#gatherer?.takes()
          ? this.#gatherer.fetch(method, url, headers, signal)
          : this.#session.call('fetch', [method, url, headers, sent?.upload ?? body], signal ? { signal } : {});
      const answer = checkAnswer(await asked, headers);
      const number = stats.note(performance.now() - began, answer[0] >= 500 ? 'failed' : 'answered');
      const [, , stream] = answer;
      if (!isWhole(stream)) {
        streams = true;
        this.#streaming++;
        const over = (broke: boolean) => {
          // One whose client has gone may break off of that.
          if (broke && !signal?.aborted) stats.broke(number);
          this.#streaming--;
          sent?.upload.answered();
          this.#done(socket);
        };
        answer[2] = watched(stream, over, socket ? () => (this.is_left ? (LEFT as never) : undefined) : undefined);
      }
      return answer;
    } catch (error) {
      sent?.upload.drop();
      stats.note(performance.now() - began, signal?.aborted ? 'given_up' : 'failed');
      // A session's streams are bounded: whoever asks for one more may come again.
      if (isError(error, Overloaded) && this.#streaming >= LIMITS.streams)
        throw new Overloaded({ what: `streams of the module ${this.spec.module}`, limit: LIMITS.streams });
      throw blamed(this.spec.module, `${method} ${pathOf(url)}`, error);
    } finally {
      sent?.over();
      if (streams) this.#look();
      else {
        sent?.upload.answered();
        this.#done(socket);
      }
    }
  }

  /** A request's body, counted until it is sent, or `over` is called since its answer is there. */
  #sent(stream: AsyncIterable<Uint8Array>): { upload: Upload; over(): void } {
    let is_over = false;
    const over = () => {
      if (!is_over) this.#sending--;
      is_over = true;
    };
    this.#sending++;
    return { upload: new Upload(stream, over), over };
  }

  #done(socket: boolean): void {
    if (socket) this.#sockets--;
    this.#in_flight--;
    this.#look();
  }

  #look(): void {
    for (const look of this.#lookers) look();
  }

  /** True when it serves nothing within the time given, false when it still does. */
  idle(within_ms: number): Promise<boolean> {
    return this.#comesTo(() => this.#in_flight === 0, within_ms);
  }

  /** The same of requests that wait for their answer: bodies may stream on, both ways. */
  #answered(within_ms: number): Promise<boolean> {
    return this.#comesTo(() => this.awaited === 0, within_ms);
  }

  /**
   * Waits for what is under way, so that its state is at rest: for answers longer than for bodies, which may have no end.
   * False where an answer was not there in time.
   */
  async quiet(): Promise<boolean> {
    const until = performance.now() + KERNEL_LIMITS.answers_ms;
    await this.#answered(KERNEL_LIMITS.answers_ms);
    await this.idle(KERNEL_LIMITS.streams_ms);
    // Those whose body has come meanwhile.
    return this.#answered(Math.max(0, until - performance.now()));
  }

  async #comesTo(state: () => boolean, within_ms: number): Promise<boolean> {
    if (state()) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => resolve(false), within_ms);
    const look = () => state() && resolve(true);
    this.#lookers.add(look);
    void this.gone.then(() => resolve(true));
    return promise.finally(() => {
      clearTimeout(timer);
      this.#lookers.delete(look);
    });
  }

  dehydrate(timeout_ms: number): Promise<unknown> {
    return this.#session.call('dehydrate', [], { timeout_ms });
  }

  async hydrate(state: unknown, from_version: number, timeout_ms: number): Promise<void> {
    await this.#session.call('hydrate', [state, from_version], { timeout_ms });
  }

  /** While it serves something it must go on answering: code that never returns would hold its requests for ever. */
  #watch(): void {
    clearTimeout(this.#watching);
    this.#watching = setTimeout(() => void this.#check(), KERNEL_LIMITS.quiet_ms);
  }

  async #check(): Promise<void> {
    if (this.#in_flight === 0 || !this.#session.open) return;
    const before = await this.#cpu_ms();
    try {
      await this.#session.call('describe', [], { timeout_ms: KERNEL_LIMITS.ping_ms });
      this.#silent_since = undefined;
      return this.#watch();
    } catch {
      if (!this.#session.open) return;
    }
    this.#silent_since ??= performance.now() - KERNEL_LIMITS.ping_ms;
    const silent_ms = performance.now() - this.#silent_since;
    // One that has not computed all the while only waits for a busy machine; but not for ever.
    const computed = (await this.#cpu_ms()) - before > KERNEL_LIMITS.ping_ms / 2;
    if (!computed && silent_ms < KERNEL_LIMITS.silent_ms) return this.#watch();
    await this.end(`it did not answer for ${Math.round(silent_ms)} ms: its code never returns`);
  }

  async #cpu_ms(): Promise<number> {
    return (await this.#agent.usage(this.worker))?.cpu_ms ?? 0;
  }

  /** Whether it says that it lives; false also where it has no time to say so. */
  lives(within_ms: number): Promise<boolean> {
    const asked = this.#session.call('describe', [], { timeout_ms: within_ms });
    return asked.then(
      () => true,
      () => false,
    );
  }

  /** Why its vault is gone, by whoever knows best. Waits for its end. */
  async whyGone(): Promise<string> {
    const heard = await this.gone;
    return (await this.#endings.of(this.worker)) ?? heard;
  }

  /** The last lines that it logged. */
  log_tail(): string {
    return this.#agent.logTail(this.worker);
  }

  /** What it said, also after its end for as long as that is remembered; bounded by its agent. */
  async log(): Promise<ModuleLog> {
    const { version, worker } = this;
    const living = await this.#agent.logs(worker, -LIMITS.log_lines, 0).catch(() => undefined);
    if (living) return { version, worker, lines: living.lines };
    const { reason = 'nobody remembers why', lines = [] } = this.#endings.get(worker) ?? {};
    return { version, worker, ended: reason, lines };
  }

  /** Ends it in order: its end hook runs first, bounded in time; one that does not end in time is cut. */
  retire(reason: string): Promise<void> {
    this.#retiring ??= (async () => {
      if (!this.ends) await this.#agent.end(this.worker, 'destructed', reason, true);
      await this.end(reason);
    })();
    return this.#retiring;
  }

  /** Ends the vault at once. Resolves when nothing is left of it. */
  end(reason: string): Promise<void> {
    this.#ending ??= (async () => {
      clearTimeout(this.#watching);
      this.#session.close(reason);
      await this.#agent.destruct(this.worker, reason);
    })();
    return this.#ending;
  }
}

/** Of a URL the path, as far as an error's words need it. */
const pathOf = (url: string): string =>
  url
    .replace(/^https?:\/\/[^/]*/, '')
    .split('?', 1)[0]!
    .slice(0, 200);

/**
 * Why a request failed, as its caller is told. What the session says of itself stands; any other error is the guest's
 * word, and must not pass for one of the kernel's.
 */
function blamed(module: string, asked: string, error: unknown): unknown {
  // In the caller's words: of the calls by which the kernel asks a module it knows nothing.
  if (isError(error, DeadlineExceeded))
    return new DeadlineExceeded({ ...error.fields, what: `The module ${module}, asked for ${asked},` });
  if (isError(error, OutcomeUnknown)) {
    const { why } = error.fields;
    const said = `${asked} was sent to the module ${module}, but its answer was lost (${why}). It may or may not have run`;
    return new OutcomeUnknown({ method: asked, why }, said);
  }
  const own = [ConnectionLost, Cancelled, RemoteError];
  if (!(error instanceof MeshError) || own.some((kind) => isError(error, kind as never))) return error;
  return new PluginFailed({ module, why: `${error.name}: ${error.message}` });
}

/** Where in the source an error of loading lies, where it says so. */
export function lineOf(error: unknown): number | undefined {
  if (!isError(error, SourceRejected)) return undefined;
  const found = /worker\.(?:ts|mjs|js|py):(\d+)/.exec(describe(error));
  return found ? Number(found[1]) : undefined;
}

const faults = new WeakMap<object, Instance>();

/** Says whose fault an error is; gives the error. */
export function blame(instance: Instance, error: unknown): unknown {
  if (typeof error === 'object' && error !== null) faults.set(error, instance);
  return error;
}

/** Which version a request's failure is the fault of, where it got to one. */
export const blamedFor = (error: unknown): Instance | undefined => faults.get(error as object);
