/**
 * The kernel's link to the core of a mesh: one session through the core's port, made again whenever it is lost. Over it
 * the core sends requests and changes; what happens here is told. Without the core the kernel goes on by itself.
 */
import {
  type Answer,
  type CoreForKernel,
  DeadlineExceeded,
  describe,
  isError,
  KERNEL_LINK,
  type KernelForCore,
  LIMITS,
  MeshError,
  type ModuleSummary,
  ModuleUnknown,
  PluginFailed,
  RemoteError,
} from '@hauki/protocol';
import { type CallSignal, Gathered, remote, Session, serve } from '@hauki/rpc';
import { dialUpgrade, errorAnswer, leavingOf, streamTransport } from '@hauki/rpc/node';
import type { Kernel } from './kernel.ts';
import { lineOf } from './lines.ts';
import { blamedFor, VERSION_HEADER } from './module.ts';
import { dialSocket } from './outside.ts';
import { checkEvolve } from './routes.ts';
import { failure, provenance } from './server.ts';

const RETRY_MS = { first: 100, most: 2_000 };
const REPORT_EVERY_MS = 1_000;
const REPORT_MS = 5_000;
/** Announcements that wait for the core to come back. */
const WAITING = 256;

type Fetch = Parameters<KernelForCore['fetch']>;

export interface CoreLinkOptions {
  core_url: string;
  /** May be a node. */
  token: string;
  /** A Unix socket that leads to the core, in place of a connection of its own. */
  core_socket?: string | undefined;
  /** Where this kernel listens. */
  url: string;
  log(line: string, fields?: object): void;
}

export class CoreLink {
  readonly #kernel: Kernel;
  readonly #options: CoreLinkOptions;
  readonly #lines: string[] = [];
  #session: Session | undefined;
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
    this.#unlisten = this.#kernel.onChange((announcement) => {
      this.#lines.push(lineOf(this.#kernel.name, announcement));
      if (this.#lines.length > WAITING) this.#lines.shift();
      void this.#report();
    });
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

  async #report(): Promise<void> {
    const session = this.#session;
    if (!session?.open) return;
    const line = this.#lines.shift() ?? null;
    try {
      await session.call('report', [this.#summaries(), line], { timeout_ms: REPORT_MS });
    } catch (error) {
      if (line !== null) this.#lines.unshift(line);
      if (isError(error, DeadlineExceeded)) session.close('the core does not answer');
      return;
    }
    if (this.#lines.length > 0) await this.#report();
  }

  async #keep(registered: () => void): Promise<void> {
    const { log, core_url } = this.#options;
    let wait_ms = RETRY_MS.first;
    let said = '';
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
      fetch: (...asked) => fetch(asked),
      fetchAll: (name, first, requests) => gatheredOf(name).fetchAll(first, requests),
      lateAnswer: (name, number, gone) => gatheredOf(name).lateAnswer(number, gone),
    };
    const fetch = async ([name, method, path, headers, body]: Fetch, signal?: CallSignal): Promise<Answer> => {
      const module = kernel.module(name);
      if (!module) throw new ModuleUnknown({ module: name });
      let [named_host, asked]: (string | undefined)[] = [];
      for (let i = 0; i < headers.length; i += 2)
        if (headers[i] === 'host') named_host ??= headers[i + 1];
        else if (headers[i] === VERSION_HEADER) asked ??= headers[i + 1];
      // As the client has it.
      const url = `http://${named_host ?? host}${path}`;
      try {
        const request = { method, url, headers, body, ...(signal && { signal }) };
        const { answer, instance } = await module.serve(request, asked);
        answer[1].push(...provenance(instance));
        return answer;
      } catch (error) {
        const own = isError(error, RemoteError) || isError(error, PluginFailed);
        if (error instanceof MeshError && !own) throw error;
        // A module's own fault is a failed request, not a kernel that is lost.
        return errorAnswer(failure(name, error, log), provenance(blamedFor(error)));
      }
    };
    const others = serve(mine, ['evolve', 'rollback', 'remove', 'modules', 'fetchAll']);
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
    try {
      await remote<CoreForKernel>(session).register({ kernel: kernel.name, url, gathers: true }, this.#summaries());
    } catch (error) {
      session.close('registering failed');
      throw error;
    }
    this.#session = session;
    void this.#report();
    return session;
  }
}
