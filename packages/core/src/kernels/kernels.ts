/**
 * The kernels of the mesh: which there are, what each holds, and to which of them a request goes. What brings modules to
 * them is `rollouts.ts`.
 *
 * What always holds: a kernel is listed exactly while its link lives; a request that may have been served is sent to a
 * second kernel only where that does no harm (RFC 9110, 9.2.2).
 */
import { createHash } from 'node:crypto';
import {
  type Answer,
  type Body,
  ConnectionLost,
  type EventName,
  type FlatHeaders,
  Forbidden,
  isError,
  type KernelForCore,
  type KernelInfo,
  LIMITS,
  type ModuleSummary,
  ModuleUnknown,
  NoNodeFits,
  OutcomeUnknown,
} from '@hauki/protocol';
import { type CallSignal, Gatherer, keepNewest, type Session } from '@hauki/rpc';
import { Comebacks } from '../comebacks.ts';
import { KERNELS_LIMITS } from './limits.ts';
import { ownAnswerOf } from './told.ts';

export interface RegisteredKernel {
  info: KernelInfo;
  modules: ModuleSummary[];
  rpc: KernelForCore;
  session: Session;
  /** By module; undefined where it takes requests one by one. */
  gatherers: Map<string, Gatherer> | undefined;
  since: number;
  /** When it reported last, by the monotonic clock. */
  heard_at: number;
}

/** Methods whose request may be made twice. */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS', 'TRACE']);
/** Kernels that one request is sent to at most. */
export const TRIES = 3;

export interface GatewayRequest {
  method: string;
  /** The module's own, with its query. */
  path: string;
  headers: FlatHeaders;
  body: Body;
  signal: CallSignal;
}

export class Kernels {
  readonly #kernels = new Map<string, RegisteredKernel>();
  /** Who holds a module, as far as it was asked for since anything changed. */
  readonly #holders = new Map<string, RegisteredKernel[]>();
  /** What those held that have left, oldest first, and when that was. */
  readonly #away = new Map<string, { held: ReadonlySet<string>; at: number }>();
  /** Where the next request of a module goes. */
  readonly #turns = new Map<string, number>();
  readonly #emit: (name: EventName, fields: object) => void;
  readonly #now: () => number;
  readonly #comebacks: Comebacks;

  constructor(emit: (name: EventName, fields: object) => void, now = () => performance.now()) {
    this.#emit = emit;
    this.#now = now;
    this.#comebacks = new Comebacks(KERNELS_LIMITS, now);
  }

  register(kernel: RegisteredKernel): void {
    const { kernel: name, url } = kernel.info;
    const before = this.#kernels.get(name);
    this.#kernels.set(name, kernel);
    this.#away.delete(name);
    this.#holders.clear();
    before?.session.close('the kernel registered again');
    this.#comebacks.came();
    this.#emit('KERNEL_ONLINE', { kernel: name, url, line: `[${name}] Online. Awaiting DNA Injection.` });
  }

  away(kernel: RegisteredKernel, reason: string): void {
    const { kernel: name } = kernel.info;
    if (this.#kernels.get(name) !== kernel) return;
    this.#kernels.delete(name);
    this.#holders.clear();
    this.#away.delete(name);
    this.#away.set(name, { held: new Set(kernel.modules.map(({ module }) => module)), at: this.#now() });
    keepNewest(this.#away, KERNELS_LIMITS.away);
    this.expect();
    this.#emit('KERNEL_AWAY', { kernel: name, reason });
  }

  /** Kernels may come (back) at any moment: a module that nobody holds need not be unknown. */
  expect(): void {
    this.#comebacks.expect();
  }

  /** Waits until a kernel holds the module, as long as one that may is expected. */
  async held(module: string): Promise<void> {
    while (this.holders(module).length === 0 && (await this.#comebacks.wait()));
  }

  /** What a kernel says of itself. `line`: in a person's words, what has just happened. */
  report(kernel: RegisteredKernel, modules: ModuleSummary[], line: string | null): void {
    kernel.modules = modules;
    kernel.heard_at = this.#now();
    this.#holders.clear();
    this.#comebacks.came();
    const { gatherers } = kernel;
    // Some are of modules that it has no more.
    if (gatherers && gatherers.size > modules.length) {
      const held = new Set(modules.map(({ module }) => module));
      for (const module of gatherers.keys()) if (!held.has(module)) gatherers.delete(module);
    }
    if (line !== null) this.#emit('KERNEL_EVOLVED', { kernel: kernel.info.kernel, line: line.slice(0, 500) });
  }

  all(): RegisteredKernel[] {
    return [...this.#kernels.values()];
  }

  /** The kernel of this name that is there now. */
  get(name: string): RegisteredKernel | undefined {
    return this.#kernels.get(name);
  }

  list(): (KernelInfo & { since: number; modules: ModuleSummary[] })[] {
    return [...this.#kernels.values()]
      .map(({ info, since, modules }) => ({ ...info, since, modules }))
      .sort((a, b) => (a.kernel < b.kernel ? -1 : 1));
  }

  /** What a kernel's own routes answer. Throws NoNodeFits where there is no such kernel, and Forbidden. */
  async own(
    name: string,
    reached: (kernel: string) => boolean,
    ...asked: Parameters<KernelForCore['own']>
  ): Promise<[status: number, answer: unknown]> {
    const { session, info } = this.named(name, reached);
    const told = await session.call('own', asked, { timeout_ms: LIMITS.evolve_ms });
    return ownAnswerOf(told, info.kernel);
  }

  /** A kernel by its name, or by its number alone. Throws as `own` does. */
  named(name: string, reached: (kernel: string) => boolean): RegisteredKernel {
    const found = this.#kernels.get(name) ?? this.#kernels.get(`Microkernel-${name}`);
    if (!found) throw new NoNodeFits({ wanted: { kernel: name }, have: [...this.#kernels.keys()].filter(reached) });
    const { kernel } = found.info;
    if (!reached(kernel))
      throw new Forbidden({ why: `This token does not reach the kernel ${kernel}`, target: kernel });
    return found;
  }

  /** Kernels that held a module and have left a while ago: they come back with it as it was. */
  awayWith(module: string): string[] {
    const since = this.#now() - KERNELS_LIMITS.away_ms;
    return [...this.#away].flatMap(([name, { held, at }]) => (at >= since && held.has(module) ? [name] : [])).sort();
  }

  /** Kernels that hold a module, those that serve it first. */
  holders(module: string): readonly RegisteredKernel[] {
    const known = this.#holders.get(module);
    if (known) return known;
    const holding = (kernel: RegisteredKernel) => kernel.modules.find((one) => one.module === module);
    const all = [...this.#kernels.values()].filter(holding);
    const healthy = all.filter((kernel) => holding(kernel)!.serving);
    const found = healthy.length > 0 ? healthy : all;
    // What nobody holds may be called anything.
    if (found.length > 0) this.#holders.set(module, found);
    return found;
  }

  /**
   * Has a request served by a kernel that holds the module: in turn, or with a `key` always by the same one while it is
   * there. Rejects with ModuleUnknown, or as the last kernel that was tried.
   */
  async fetch(module: string, request: GatewayRequest, key?: string): Promise<{ answer: Answer; kernel: string }> {
    const { method, path, headers, body, signal } = request;
    let last: unknown;
    // Where one holds it, as nearly always, nothing is waited for: requests go together.
    if (this.holders(module).length === 0) await this.held(module);
    const order = this.order(module, key);
    for (let i = 0; i < order.length && i < TRIES; i++) {
      const kernel = order[i]!;
      try {
        const gatherer = body === null ? gathererOf(kernel, module) : undefined;
        const answer = gatherer?.takes()
          ? await gatherer.fetch(method, path, headers, signal)
          : ((await kernel.session.call('fetch', [module, method, path, headers, body], { signal })) as Answer);
        return { answer, kernel: kernel.info.kernel };
      } catch (error) {
        last = error;
        const whole = body === null || typeof body === 'string' || body instanceof Uint8Array;
        if (!whole || signal.aborted || !mayGoElsewhere(error, method)) throw error;
      }
    }
    throw last;
  }

  /**
   * The kernels for a request, the one that is to have it first; those that have been silent for a while come last. Throws
   * ModuleUnknown where none holds the module.
   */
  order(module: string, key: string | undefined): readonly RegisteredKernel[] {
    const holders = this.holders(module);
    if (holders.length === 0) throw new ModuleUnknown({ module });
    if (holders.length === 1) return holders;
    const order = key === undefined ? this.#inTurn(module, holders) : byKey(key, holders);
    const heard_since = this.#now() - KERNELS_LIMITS.silent_ms;
    const reports = (kernel: RegisteredKernel) => kernel.heard_at >= heard_since;
    if (order.every(reports)) return order;
    return [...order.filter(reports), ...order.filter((kernel) => !reports(kernel))];
  }

  #inTurn(module: string, holders: readonly RegisteredKernel[]): readonly RegisteredKernel[] {
    const turn = this.#turns.get(module) ?? 0;
    this.#turns.set(module, (turn + 1) % 0x3fffffff);
    keepNewest(this.#turns, KERNELS_LIMITS.turns);
    const at = turn % holders.length;
    return [...holders.slice(at), ...holders.slice(0, at)];
  }
}

/** What a kernel's requests for a module are gathered by. */
function gathererOf({ gatherers, session }: RegisteredKernel, module: string): Gatherer | undefined {
  const known = gatherers?.get(module);
  if (known || !gatherers) return known;
  const made = new Gatherer({ call: (method, params, options) => session.call(method, [module, ...params], options) });
  gatherers.set(module, made);
  return made;
}

/** Whether a request that failed so may be sent to another kernel. */
export function mayGoElsewhere(error: unknown, method: string): boolean {
  // Not sent; or moved away meanwhile: the list is a moment old.
  if (isError(error, ConnectionLost) || isError(error, ModuleUnknown)) return true;
  return isError(error, OutcomeUnknown) && IDEMPOTENT.has(method);
}

/** Rendezvous hashing: a kernel that comes or goes moves only the keys that are its own. */
function byKey(key: string, kernels: readonly RegisteredKernel[]): RegisteredKernel[] {
  const weight = ({ info }: RegisteredKernel) =>
    createHash('sha256').update(`${key}\n${info.kernel}`).digest().readUIntBE(0, 6);
  return [...kernels].sort((a, b) => weight(b) - weight(a));
}
