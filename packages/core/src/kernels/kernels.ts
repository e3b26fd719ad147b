/**
 * The kernels of the mesh: which there are, what each holds, and to which of them a request or a new module goes.
 *
 * What always holds: a kernel is listed exactly while its link lives; a request that may have been served is sent to a
 * second kernel only where that does no harm (RFC 9110, 9.2.2); a roll-out that fails leaves what was there before.
 */
import { createHash } from 'node:crypto';
import {
  type Answer,
  BadInput,
  type Body,
  ConnectionLost,
  DeadlineExceeded,
  describe,
  type EventName,
  type Evolved,
  EvolveRejected,
  type FlatHeaders,
  Forbidden,
  isError,
  type KernelForCore,
  type KernelInfo,
  LIMITS,
  MeshError,
  type ModuleSummary,
  ModuleUnknown,
  NoNodeFits,
  OutcomeUnknown,
  type Removed,
  type RolledOut,
  type RolloutRequest,
} from '@hauki/protocol';
import { type CallSignal, Gatherer, type Session } from '@hauki/rpc';

export interface RegisteredKernel {
  info: KernelInfo;
  modules: ModuleSummary[];
  rpc: KernelForCore;
  session: Session;
  /** By module; undefined where it takes requests one by one. */
  gatherers: Map<string, Gatherer> | undefined;
  since: number;
}

/** Methods whose request may be made twice. */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS', 'TRACE']);
/** Kernels that one request is sent to at most. */
export const TRIES = 3;
/** How often a roll-out that watches a wave looks at it. */
const WATCH_EVERY_MS = 250;

/** What a roll-out did to one kernel. */
interface Change {
  kernel: RegisteredKernel;
  /** What served before; undefined where the module was not there. */
  was: number | undefined;
  /** Undefined where nobody knows whether it came about. */
  evolved?: Evolved;
}

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
  /** Where the next request of a module goes. */
  readonly #turns = new Map<string, number>();
  readonly #emit: (name: EventName, fields: object) => void;

  constructor(emit: (name: EventName, fields: object) => void) {
    this.#emit = emit;
  }

  register(kernel: RegisteredKernel): void {
    const { kernel: name, url } = kernel.info;
    const before = this.#kernels.get(name);
    this.#kernels.set(name, kernel);
    this.#holders.clear();
    before?.session.close('the kernel registered again');
    this.#emit('KERNEL_ONLINE', { kernel: name, url, line: `[${name}] Online. Awaiting DNA Injection.` });
  }

  away(kernel: RegisteredKernel, reason: string): void {
    const { kernel: name } = kernel.info;
    if (this.#kernels.get(name) !== kernel) return;
    this.#kernels.delete(name);
    this.#holders.clear();
    this.#emit('KERNEL_AWAY', { kernel: name, reason });
  }

  /** What a kernel says of itself. `line`: in a person's words, what has just happened. */
  report(kernel: RegisteredKernel, modules: ModuleSummary[], line: string | null): void {
    kernel.modules = modules;
    this.#holders.clear();
    if (line !== null) this.#emit('KERNEL_EVOLVED', { kernel: kernel.info.kernel, line: line.slice(0, 500) });
  }

  list(): (KernelInfo & { since: number; modules: ModuleSummary[] })[] {
    return [...this.#kernels.values()]
      .map(({ info, since, modules }) => ({ ...info, since, modules }))
      .sort((a, b) => (a.kernel < b.kernel ? -1 : 1));
  }

  /** What a kernel's own routes answer. Throws NoNodeFits where there is no such kernel, and Forbidden. */
  own(
    name: string,
    reached: (kernel: string) => boolean,
    ...asked: Parameters<KernelForCore['own']>
  ): Promise<[status: number, answer: unknown]> {
    const { session } = this.#named(name, reached);
    return session.call('own', asked, { timeout_ms: LIMITS.evolve_ms }) as Promise<[number, unknown]>;
  }

  /** A kernel by its name, or by its number alone. */
  #named(name: string, reached: (kernel: string) => boolean): RegisteredKernel {
    const found = this.#kernels.get(name) ?? this.#kernels.get(`Microkernel-${name}`);
    if (!found) throw new NoNodeFits({ wanted: { kernel: name }, have: [...this.#kernels.keys()].filter(reached) });
    const { kernel } = found.info;
    if (!reached(kernel))
      throw new Forbidden({ why: `This token does not reach the kernel ${kernel}`, target: kernel });
    return found;
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

  /** The kernels for a request, the one that is to have it first. Throws ModuleUnknown where none holds the module. */
  order(module: string, key: string | undefined): readonly RegisteredKernel[] {
    const holders = this.holders(module);
    if (holders.length === 0) throw new ModuleUnknown({ module });
    return key === undefined ? this.#inTurn(module, holders) : byKey(key, holders);
  }

  #inTurn(module: string, holders: readonly RegisteredKernel[]): readonly RegisteredKernel[] {
    if (holders.length === 1) return holders;
    const turn = this.#turns.get(module) ?? 0;
    this.#turns.set(module, (turn + 1) % 0x3fffffff);
    const at = turn % holders.length;
    return [...holders.slice(at), ...holders.slice(0, at)];
  }

  /**
   * Evolves a module on one kernel or several, wave by wave. The first wave that fails ends it, and those before it are
   * taken back. When all serve, those that hold it beyond the `replicas` asked for have it removed. `reached`: which kernels it may change. Rejects with Forbidden where a kernel that is named is none of
   * these, or as the kernel that refused did, saying which that was.
   */
  async rollOut(request: RolloutRequest, by: string, reached: (kernel: string) => boolean): Promise<RolledOut> {
    const { kernel, replicas, wave = 1, watch_ms = 0, ...evolve } = request;
    const module = String(evolve.target_module).replace(/\.[a-z]+$/, '');
    const targets = this.#targets(module, kernel, replicas, reached);
    const waves: RegisteredKernel[][] = [];
    for (let at = 0; at < targets.length; at += wave) waves.push(targets.slice(at, at + wave));
    const done: Change[] = [];
    for (const [i, kernels] of waves.entries()) {
      const outcomes = await Promise.allSettled(
        kernels.map(async (one) => {
          // Its report may be a moment old.
          const was = (await one.rpc.modules()).find((held) => held.module === module)?.version ?? undefined;
          const change: Change = { kernel: one, was };
          try {
            const args = [evolve, by];
            change.evolved = (await one.session.call('evolve', args, { timeout_ms: LIMITS.evolve_ms })) as Evolved;
            done.push(change);
          } catch (error) {
            // It may have come about all the same, or come about later.
            if (isError(error, OutcomeUnknown) || isError(error, DeadlineExceeded)) done.push(change);
            throw error;
          }
        }),
      );
      const failed = outcomes.find((outcome) => outcome.status === 'rejected');
      const fallen = failed ? undefined : await this.#watch(done, watch_ms);
      const fault = failed?.reason ?? fallen?.fault;
      if (fault === undefined) continue;
      const left = evolve.dry_run ? [] : await this.#takeBack(module, done, by);
      const which = fallen?.kernel ?? kernels[outcomes.indexOf(failed!)]!.info.kernel;
      const why = describe(fault);
      const halted = { module, wave: i + 1, waves: waves.length, kernel: which, why };
      this.#emit('ROLLOUT_HALTED', { ...halted, ...(left.length > 0 ? { not_taken_back: left } : {}) });
      throw halt(fault, { module, kernel: which, wave: i + 1, waves: waves.length, left });
    }
    const surplus =
      replicas === undefined ? [] : this.#holding(module, reached).filter((one) => !targets.includes(one));
    const left = evolve.dry_run ? undefined : await this.#remove(module, surplus, by);
    const removed = left ? left.removed : surplus.map(({ info }) => info.kernel);
    const { version: _, digest: __, ...common } = done[0]!.evolved!;
    return {
      ...common,
      kernels: done.map(({ kernel: { info }, evolved }) => ({
        kernel: info.kernel,
        version: evolved!.version,
        digest: evolved!.digest,
        driver: evolved!.vault.driver,
        level: evolved!.vault.level,
      })),
      waves: waves.length,
      ...(removed.length > 0 ? { removed } : {}),
      ...(left && left.not_removed.length > 0 ? { not_removed: left.not_removed } : {}),
    };
  }

  /**
   * Removes a module from the kernel that is named, or from all that hold it. Rejects with ModuleUnknown where none does,
   * and as the kernel did where it is one.
   */
  async remove(
    module: string,
    named: string | undefined,
    by: string,
    reached: (kernel: string) => boolean,
  ): Promise<Removed> {
    const from =
      named === undefined ? this.#holding(module, reached) : this.#targets(module, named, undefined, reached);
    if (from.length === 0) throw new ModuleUnknown({ module });
    if (from.length === 1) await from[0]!.session.call('remove', [module, by], { timeout_ms: LIMITS.evolve_ms });
    const only = { removed: from.map(({ info }) => info.kernel), not_removed: [] };
    return { module, ...(from.length === 1 ? only : await this.#remove(module, from, by)) };
  }

  /** Kernels that hold a module, whether it serves there or not, by name. */
  #holding(module: string, reached: (kernel: string) => boolean): RegisteredKernel[] {
    return [...this.#kernels.values()]
      .filter(({ info, modules }) => reached(info.kernel) && modules.some((one) => one.module === module))
      .sort((a, b) => (a.info.kernel < b.info.kernel ? -1 : 1));
  }

  /** Takes a module from kernels. Never rejects. */
  async #remove(
    module: string,
    from: readonly RegisteredKernel[],
    by: string,
  ): Promise<Pick<Removed, 'removed' | 'not_removed'>> {
    const gone = await Promise.all(
      from.map(({ session }) =>
        session.call('remove', [module, by], { timeout_ms: LIMITS.evolve_ms }).then(
          () => true,
          // Somebody else was quicker.
          (error) => isError(error, ModuleUnknown),
        ),
      ),
    );
    const names = (wanted: boolean) => from.filter((_, i) => gone[i] === wanted).map(({ info }) => info.kernel);
    return { removed: names(true), not_removed: names(false) };
  }

  #targets(
    module: string,
    named: string | undefined,
    replicas: RolloutRequest['replicas'],
    reached: (kernel: string) => boolean,
  ): RegisteredKernel[] {
    if (named !== undefined) return [this.#named(named, reached)];
    const all = [...this.#kernels.values()].filter(({ info }) => reached(info.kernel));
    if (all.length === 0) throw new NoNodeFits({ wanted: { kernel: 'any' }, have: [] });
    const holders = this.holders(module).filter((one) => all.includes(one));
    if (replicas === undefined && holders.length > 0) return holders;
    const count = replicas === 'all' ? all.length : (replicas ?? 1);
    if (!(Number.isInteger(count) && count >= 1))
      throw new BadInput({ what: 'replicas', why: 'a number from 1, or all' });
    if (count > all.length)
      throw new NoNodeFits({ wanted: { kernels: count }, have: all.map(({ info }) => info.kernel) });
    // Those that hold it already, then those that hold the least.
    const rest = all.filter((one) => !holders.includes(one)).sort((a, b) => a.modules.length - b.modules.length);
    return [...holders, ...rest].slice(0, count);
  }

  /** Looks on for a while; gives what went wrong. */
  async #watch(done: readonly Change[], watch_ms: number): Promise<{ kernel: string; fault: Error } | undefined> {
    for (const until = Date.now() + watch_ms; Date.now() < until; ) {
      await new Promise((resolve) => setTimeout(resolve, WATCH_EVERY_MS));
      for (const { kernel, evolved } of done) {
        const { kernel: name } = kernel.info;
        const views = await kernel.rpc.modules().catch(() => undefined);
        const view = views?.find(({ module }) => module === evolved!.module);
        const fallen = (why: string) => ({ kernel: name, fault: new Error(`${name} ${why}`) });
        if (!views) return fallen('went away');
        if (!view?.live.some(({ version }) => version === evolved!.version) && view?.version !== evolved!.version)
          return fallen(`took version ${evolved!.version} back`);
        if (view.state === 'failed') return fallen('cannot keep it alive: it dies again and again');
      }
    }
    return undefined;
  }

  /** Gives the kernels where that failed. */
  async #takeBack(module: string, done: readonly Change[], by: string): Promise<string[]> {
    const outcomes = await Promise.allSettled(
      done.map(async ({ kernel, was, evolved }) => {
        // It may have come back meanwhile.
        const { session } = this.#kernels.get(kernel.info.kernel) ?? kernel;
        const [method, ...args] = was === undefined ? ['remove', module, by] : ['rollback', module, was, by];
        try {
          await session.call(method as string, args, { timeout_ms: LIMITS.evolve_ms });
        } catch (error) {
          if (evolved || !isError(error, ModuleUnknown)) throw error;
        }
      }),
    );
    return done.filter((_, i) => outcomes[i]!.status === 'rejected').map(({ kernel }) => kernel.info.kernel);
  }
}

/** What a roll-out ended of, as its sender is told: on which kernel, and where the new version may still serve. */
function halt(
  fault: Error,
  at: { module: string; kernel: string; wave: number; waves: number; left: readonly string[] },
): Error {
  const { module, kernel, wave, waves, left } = at;
  const place = `on ${kernel}, in wave ${wave} of ${waves}`;
  if (left.length > 0) {
    const why = `${describe(fault)} (${place})`;
    const told = `${module}: ${why}. It could not be taken back from ${left.join(', ')}, and may still serve there`;
    return new MeshError(
      { ...EvolveRejected.row, status: 422 },
      { module, stage: 'watch', why, not_taken_back: left },
      told,
    );
  }
  if (isError(fault, EvolveRejected))
    return new EvolveRejected({ ...fault.fields, why: `${fault.fields.why} (${place})` });
  if (!(fault instanceof MeshError))
    return new EvolveRejected({ module, stage: 'watch', why: `${fault.message} (${place})` });
  const { name, code, status, retryable, fields } = fault;
  return new MeshError({ name, code, status, retryable }, fields, `${fault.message} (${place})`);
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
