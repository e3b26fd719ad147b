/**
 * The kernel's link to the core of a mesh: one session through the core's port, made again whenever it is lost. Over it
 * the core sends requests and changes; what happens here is told. Without the core the kernel goes on by itself.
 *
 * What always holds: changes that have a line are told in the journal's order, and what the core has confirmed is not told
 * again: the number of the last one is kept after each, and read at the next start. Only where the kernel or the
 * connection ends between the two a line may come twice. What happened before the kernel first joined a mesh is not told.
 */
import {
  type Answer,
  type CoreForKernel,
  DeadlineExceeded,
  describe,
  type FlatHeaders,
  isError,
  KERNEL_LINK,
  type KernelForCore,
  LIMITS,
  MeshError,
  type ModuleSummary,
  ModuleUnknown,
  PluginFailed,
  PointerUnknown,
  RemoteError,
} from '@hauki/protocol';
import { type CallSignal, Gathered, onceForSame, remote, Session, serve } from '@hauki/rpc';
import { dialUpgrade, errorAnswer, isWhole, leavingOf, streamTransport } from '@hauki/rpc/node';
import { type KernelPage, readInside } from './inside.ts';
import { blamedFor } from './instance.ts';
import type { Kernel } from './kernel.ts';
import { LinkStreams, leave } from './link-streams.ts';
import { VERSION_HEADER } from './module.ts';
import { dialSocket } from './outside.ts';
import { checkEvolve } from './routes.ts';
import { failure, provenance, traced } from './server.ts';
import { asksForUpgrade } from './words.ts';

const RETRY_MS = { first: 100, most: 2_000 };
const REPORT_EVERY_MS = 1_000;
const REPORT_MS = 5_000;
/** Where the number of the last change that was told is kept: in a space where nothing else writes. */
const TOLD = 'gem-pointer://kernel/told';

type Fetch = Parameters<KernelForCore['fetch']>;

/** What a request's headers say to the kernel. */
const named = onceForSame((headers: FlatHeaders) => {
  let [named_host, asked]: (string | undefined)[] = [];
  for (let i = 0; i < headers.length; i += 2)
    if (headers[i] === 'host') named_host ??= headers[i + 1];
    else if (headers[i] === VERSION_HEADER) asked ??= headers[i + 1];
  return { named_host, asked };
});

export interface CoreLinkOptions {
  core_url: string;
  /** May be a node. */
  token: string;
  /** A Unix socket that leads to the core, in place of a connection of its own. */
  core_socket?: string | undefined;
  /** Where this kernel listens. */
  url: string;
  /** Answers for this kernel's own routes. */
  own: KernelForCore['own'];
  log(line: string, fields?: object): void;
}

export class CoreLink {
  readonly #kernel: Kernel;
  readonly #options: CoreLinkOptions;
  #session: Session | undefined;
  /** Changes up to this number are told; undefined while that is not known yet. */
  #told: number | undefined;
  #reporting = false;
  #report_again = false;
  #stopped = false;
  #wake = () => {};
  #unlisten = () => {};

  constructor(kernel: Kernel, options: CoreLinkOptions) {
    this.#kernel = kernel;
    this.#options = options;
  }

  /** Keeps the link up until `stop`. `first` settles when the kernel is registered for the first time. */
  run(): { first: Promise<void> } {
    const { promise: first, resolve } = Promise.withResolvers<void>();
    this.#unlisten = this.#kernel.onChange(() => void this.#report());
    void this.#keep(resolve);
    return { first };
  }

  stop(): void {
    this.#stopped = true;
    this.#unlisten();
    this.#session?.close('the kernel is shut down');
    this.#wake();
  }

  #summaries(): ModuleSummary[] {
    return this.#kernel.modules().map(({ module, version, digest, state }) => ({
      module,
      version: version ?? 0,
      digest: digest ?? '',
      serving: state !== 'failed',
    }));
  }

  /** Reports, one at a time. Never rejects. */
  async #report(): Promise<void> {
    this.#report_again = true;
    if (this.#reporting) return;
    this.#reporting = true;
    while (this.#report_again && this.#session?.open) {
      this.#report_again = false;
      await this.#tell(this.#session);
    }
    this.#reporting = false;
  }

  /** Tells the core what it has not heard yet, a line at a time, or at least what there is now. */
  async #tell(session: Session): Promise<void> {
    const report = (line: string | null) =>
      session.call('report', [this.#summaries(), line], { timeout_ms: REPORT_MS });
    const { log } = this.#options;
    try {
      const events = await this.#untold().catch((error): KernelPage['events'] => {
        log(`what has changed cannot be read, and is told later: ${describe(error)}`);
        return [];
      });
      const lines = events.filter(({ line }) => line !== null);
      for (const { seq, line } of lines) {
        await report(line);
        this.#told = seq;
        await this.#keepTold(seq).catch((error) => log(`not kept that change ${seq} was told: ${describe(error)}`));
      }
      const last = events.at(-1);
      if (last) this.#told = last.seq;
      // There may be another page.
      if (last) this.#report_again = true;
      else await report(null);
    } catch (error) {
      if (isError(error, DeadlineExceeded)) session.close('the core does not answer');
    }
  }

  /** What comes behind the last change that was told, a page of it. */
  async #untold(): Promise<KernelPage['events']> {
    const kernel = this.#kernel;
    this.#told ??= await this.#begin();
    if (kernel.journal.last <= this.#told) return [];
    const { content } = await readInside(kernel, '', `gem-pointer://kernel/events/${this.#told}`);
    return (JSON.parse(content) as KernelPage).events;
  }

  /** The number of the last change that need not be told. A kernel that joins for the first time begins with the next. */
  async #begin(): Promise<number> {
    const { meshfs, journal } = this.#kernel;
    const now = journal.last;
    try {
      return Number((await meshfs.resolve(TOLD)).content);
    } catch (error) {
      if (!isError(error, PointerUnknown)) throw error;
      await this.#keepTold(now);
      return now;
    }
  }

  async #keepTold(seq: number): Promise<void> {
    await this.#kernel.meshfs.write({ pointer: TOLD, content: String(seq) });
  }

  async #keep(registered: () => void): Promise<void> {
    const { log, core_url } = this.#options;
    let wait_ms = RETRY_MS.first;
    let said = '';
    // From now on nothing is left out, whenever the core is there.
    this.#told ??= await this.#begin().catch(() => undefined);
    while (!this.#stopped) {
      try {
        const session = await this.#connect();
        wait_ms = RETRY_MS.first;
        said = '';
        log(`registered with the core at ${core_url}`);
        registered();
        const reports = setInterval(() => void this.#report(), REPORT_EVERY_MS);
        await session.closed;
        clearInterval(reports);
      } catch (error) {
        const why = describe(error);
        if (why !== said) log(`cannot register with the core: ${why}; trying again`);
        said = why;
      }
      if (this.#stopped) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, wait_ms);
      });
      wait_ms = Math.min(wait_ms * 2, RETRY_MS.most);
    }
  }

  async #connect(): Promise<Session> {
    const kernel = this.#kernel;
    const { core_url, core_socket, token, url, log } = this.#options;
    const stream = core_socket
      ? await dialSocket(core_socket)
      : await dialUpgrade(core_url, KERNEL_LINK, token, LIMITS.handshake_ms);
    const host = new URL(url).host;
    const gathered = new Map<string, Gathered>();
    /** Of a module that there is: a name that is none is not kept. */
    const gatheredOf = (name: string): Gathered => {
      if (!kernel.module(name)) throw new ModuleUnknown({ module: name });
      const known = gathered.get(name);
      if (known) return known;
      const made = new Gathered((method, path, headers, body, call) =>
        fetch([name, method, path, headers, body], leavingOf(call)),
      );
      gathered.set(name, made);
      return made;
    };
    const mine: KernelForCore = {
      evolve: async (request, by) => kernel.evolve(checkEvolve(request), by),
      rollback: (module, version, by) => kernel.rollback(module, version ?? undefined, by),
      remove: (module, by) => kernel.remove(module, by),
      modules: async () => kernel.modules(),
      own: this.#options.own,
      fetch: (...asked) => fetch(asked),
      fetchAll: (name, first, requests) => gatheredOf(name).fetchAll(first, requests),
      lateAnswer: (name, number, gone) => gatheredOf(name).lateAnswer(number, gone),
    };
    const [uploads, streams] = [new LinkStreams(), new LinkStreams()];
    const fetch = async ([name, method, path, headers, body]: Fetch, signal?: CallSignal): Promise<Answer> => {
      const module = kernel.module(name);
      if (!module) throw new ModuleUnknown({ module: name });
      const { named_host = host, asked } = named(headers);
      // As the client has it.
      const url = `http://${named_host}${path}`;
      const sent = isWhole(body) || asksForUpgrade(headers) ? body : uploads.take(name, body);
      try {
        const request = { method, url, headers, body: sent, ...(signal && { signal }) };
        const { answer, instance } = await module.serve(request, asked);
        const [status, said, content] = answer;
        const given = isWhole(content) ? content : streams.take(name, content, status === 101);
        return [status, traced(said, instance), given];
      } catch (error) {
        // It may not have got to a version.
        if (sent !== body) leave(sent as AsyncIterableIterator<Uint8Array>);
        const own = isError(error, RemoteError) || isError(error, PluginFailed);
        if (error instanceof MeshError && !own) throw error;
        // A module's own fault is a failed request, not a kernel that is lost.
        return errorAnswer(failure(name, error, log), provenance(blamedFor(error)));
      }
    };
    const others = serve(mine, ['evolve', 'rollback', 'remove', 'modules', 'own', 'fetchAll']);
    const session = new Session({
      transport: streamTransport(stream),
      dispatch: (method, params, from, call) => {
        if (!Array.isArray(params)) return others(method, params, from, call);
        if (method === 'fetch') return fetch(params as Fetch, leavingOf(call));
        // The module may have been removed since: what it has begun it answers.
        if (method === 'lateAnswer')
          return (gathered.get(params[0]) ?? gatheredOf(params[0])).lateAnswer(params[1], params[2], call);
        return others(method, params, from, call);
      },
      timeout_ms: LIMITS.handshake_ms,
    });
    void session.closed.then(() => streams.close());
    try {
      await remote<CoreForKernel>(session).register({ kernel: kernel.name, url, together: true }, this.#summaries());
    } catch (error) {
      session.close('registering failed');
      throw error;
    }
    this.#session = session;
    void this.#report();
    return session;
  }
}
