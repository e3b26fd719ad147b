/**
 * Roll-outs: how a module comes to several kernels, wave by wave, and goes from them.
 *
 * What always holds: of one module there is one roll-out or removal at a time, so that none takes back what another was
 * answered with success for; one that fails leaves what was there before, and takes nothing from who changed the module
 * on a kernel itself meanwhile. One whose token has ended, or whose sender has gone, fails before its next wave; a removal
 * whose token has ended while it waited does not begin.
 */
import {
  BadInput,
  ConnectionLost,
  DeadlineExceeded,
  describe,
  type EventName,
  type Evolved,
  EvolveRejected,
  isError,
  LIMITS,
  MeshError,
  ModuleUnknown,
  type ModuleView,
  NoNodeFits,
  OutcomeUnknown,
  Overloaded,
  type Removed,
  type RolledOut,
  type RolloutRequest,
  Unauthorised,
} from '@hauki/protocol';
import type { CallSignal } from '@hauki/rpc';
import { covers, type Principal } from '../rights.ts';
import type { Kernels, RegisteredKernel } from './kernels.ts';
import { KERNELS_LIMITS } from './limits.ts';
import { evolvedOf } from './told.ts';

/** How often a roll-out that watches a wave looks at it. */
const WATCH_EVERY_MS = 250;

/** What a roll-out did to one kernel. */
interface Change {
  kernel: RegisteredKernel;
  /** What served before; undefined where nothing of the module did. */
  was: Pick<ModuleView, 'version' | 'live'> | undefined;
  /** Undefined where nobody knows whether it came about. */
  evolved?: Evolved;
}

/** Who changes a module. */
interface Sender {
  /** The owner that its token is. */
  by: string;
  /** Which kernels it may change. */
  reached(kernel: string): boolean;
  /** Aborted when it has gone. */
  signal?: CallSignal | undefined;
}

export class Rollouts {
  readonly #kernels: Kernels;
  readonly #emit: (name: EventName, fields: object) => void;
  readonly #asker: (owner: string) => Principal | undefined;
  readonly #turn_ms: number;
  /** Of each module that is being changed: how many changes wait, and when the last of them is over. */
  readonly #turns = new Map<string, { waiting: number; last: Promise<unknown> }>();

  constructor(
    kernels: Kernels,
    emit: (name: EventName, fields: object) => void,
    /** Whose token an owner is; undefined where that has ended. */
    asker: (owner: string) => Principal | undefined,
    { turn_ms = KERNELS_LIMITS.turn_ms }: { turn_ms?: number } = {},
  ) {
    this.#kernels = kernels;
    this.#emit = emit;
    this.#asker = asker;
    this.#turn_ms = turn_ms;
  }

  /** One change of a module at a time; others wait their turn, bounded. Rejects with Overloaded for one beyond. */
  async #exclusive<T>(module: string, run: () => Promise<T>): Promise<T> {
    const turn = this.#turns.get(module) ?? { waiting: 0, last: Promise.resolve() };
    const limit = KERNELS_LIMITS.changes_waiting;
    if (turn.waiting >= limit) throw new Overloaded({ what: `changes of the module ${module} that wait`, limit });
    this.#turns.set(module, turn);
    turn.waiting++;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const why = `${module} is being rolled out or removed, and was still after ${this.#turn_ms} ms. Nothing was changed: try again when that is over`;
      const what = `changes of the module ${module}`;
      timer = setTimeout(() => reject(new Overloaded({ what, limit: 1 }, why)), this.#turn_ms);
    });
    const begun = Promise.race([turn.last, late]).finally(() => {
      clearTimeout(timer);
      turn.waiting--;
    });
    const mine = begun.then(run);
    // One that gave up is over when those before it are.
    const last: Promise<unknown> = turn.last
      .then(() => mine)
      .catch(() => {})
      .then(() => {
        if (turn.last === last) this.#turns.delete(module);
      });
    turn.last = last;
    return mine;
  }

  /**
   * Evolves a module on one kernel or several, wave by wave. The first wave that fails ends it, and those before it are
   * taken back. When all serve, those that hold it beyond the `replicas` asked for have it removed. `reached`: which
   * kernels it may change. `signal`: aborted when whoever sent it has gone. Rejects with Forbidden where a kernel that is
   * named is none of these, with Overloaded where others are under way for too long, with Unauthorised where the token has
   * ended meanwhile, or as the kernel that refused did, saying which that was. What differs from the source that runs is
   * told to admins alone.
   */
  async rollOut(
    request: RolloutRequest,
    by: string,
    reached: (kernel: string) => boolean,
    signal?: CallSignal,
  ): Promise<RolledOut> {
    const module = String(request.target_module).replace(/\.[a-z]+$/, '');
    const run = () => this.#rollOut(module, request, { by, reached, signal });
    // What changes nothing waits for nobody.
    return request.dry_run ? run() : this.#exclusive(module, run);
  }

  async #rollOut(module: string, request: RolloutRequest, sender: Sender): Promise<RolledOut> {
    const { by, reached } = sender;
    const { kernel, replicas, wave = 1, watch_ms = 0, ...evolve } = request;
    const targets = this.#targets(module, kernel, replicas, reached);
    const waves: RegisteredKernel[][] = [];
    for (let at = 0; at < targets.length; at += wave) waves.push(targets.slice(at, at + wave));
    const done: Change[] = [];
    for (const [i, kernels] of waves.entries()) {
      const over = this.#over(sender);
      const outcomes = await Promise.allSettled(
        kernels.map(async (one) => {
          if (over) throw over;
          // Its report may be a moment old.
          const held = await viewOf(one, module);
          const change: Change = { kernel: one, was: held?.version == null ? undefined : held };
          try {
            const args = [evolve, by];
            const answer = await one.session.call('evolve', args, { timeout_ms: LIMITS.evolve_ms });
            done.push(change);
            change.evolved = evolvedOf(answer);
          } catch (error) {
            // It may have come about all the same, or come about later.
            if (isError(error, OutcomeUnknown) || isError(error, DeadlineExceeded)) done.push(change);
            throw error;
          }
        }),
      );
      const failed = outcomes.find((outcome) => outcome.status === 'rejected');
      const fallen = failed ? undefined : await this.#watch(done, watch_ms, sender);
      const fault = failed?.reason ?? fallen?.fault;
      if (fault === undefined) continue;
      const left = evolve.dry_run ? [] : await this.#takeBack(module, done, by);
      const which = fallen?.kernel ?? kernels[outcomes.indexOf(failed!)]!.info.kernel;
      const why = describe(fault);
      const halted = { module, wave: i + 1, waves: waves.length, kernel: which, why };
      this.#emit('ROLLOUT_HALTED', { ...halted, ...(left.length > 0 ? { not_taken_back: left } : {}) });
      const told = halt(fault, { module, kernel: which, wave: i + 1, waves: waves.length, left });
      throw this.#seesSources(by) ? told : withoutDiff(told);
    }
    const surplus =
      replicas === undefined ? [] : this.#holding(module, reached).filter((one) => !targets.includes(one));
    const left = evolve.dry_run ? undefined : await this.#remove(module, surplus, by);
    const removed = left ? left.removed : surplus.map(({ info }) => info.kernel);
    const away = this.#awayWith(module, kernel, reached);
    const { version: _, digest: __, diff, ...common } = done[0]!.evolved!;
    return {
      ...common,
      ...(diff !== undefined && this.#seesSources(by) ? { diff } : {}),
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
      ...(away.length > 0 ? { away } : {}),
    };
  }

  /**
   * Removes a module from the kernel that is named, or from all that hold it. Rejects with ModuleUnknown where none does,
   * with Overloaded and Unauthorised as `rollOut` does, and as the kernel did where it is one.
   */
  remove(
    module: string,
    named: string | undefined,
    by: string,
    reached: (kernel: string) => boolean,
  ): Promise<Removed> {
    return this.#exclusive(module, async () => {
      const over = this.#over({ by, reached });
      if (over) throw over;
      return this.#removeFrom(module, named, by, reached);
    });
  }

  async #removeFrom(
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
    const gone = from.length === 1 ? only : await this.#remove(module, from, by);
    const away = this.#awayWith(module, named, reached);
    return { module, ...gone, not_removed: [...gone.not_removed, ...away] };
  }

  /** Those that held a module and are away, where no kernel was `named`. */
  #awayWith(module: string, named: string | undefined, reached: (kernel: string) => boolean): string[] {
    return named === undefined ? this.#kernels.awayWith(module).filter(reached) : [];
  }

  /** Kernels that hold a module, whether it serves there or not, by name. */
  #holding(module: string, reached: (kernel: string) => boolean): RegisteredKernel[] {
    return this.#kernels
      .all()
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
    // Else it would be removed from all others that hold it.
    if (named !== undefined && replicas !== undefined)
      throw new BadInput({ what: 'replicas', why: 'with replicas the core chooses the kernels: name none beside it' });
    if (named !== undefined) return [this.#kernels.named(named, reached)];
    const all = this.#kernels.all().filter(({ info }) => reached(info.kernel));
    if (all.length === 0) throw new NoNodeFits({ wanted: { kernel: 'any' }, have: [] });
    // Those that serve it first; one where it fails needs the change most.
    const serves = (one: RegisteredKernel) => one.modules.some((held) => held.module === module && held.serving);
    const holding = this.#holding(module, reached);
    const holders = [...holding.filter(serves), ...holding.filter((one) => !serves(one))];
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

  /** Why nothing more may be done for a sender; undefined while it may. */
  #over({ by, signal }: Sender): Error | undefined {
    if (signal?.aborted) return new ConnectionLost({ why: 'whoever sent the roll-out has gone' });
    return this.#asker(by) ? undefined : new Unauthorised({ why: 'The token of this change has ended' });
  }

  /** Sources are for admins (`routes/kernels.ts`). */
  #seesSources(by: string): boolean {
    const asker = this.#asker(by);
    return asker !== undefined && covers(asker.scopes, 'admin');
  }

  /** Looks on for a while; gives what went wrong. */
  async #watch(
    done: readonly Change[],
    watch_ms: number,
    sender: Sender,
  ): Promise<{ kernel: string; fault: Error } | undefined> {
    for (const until = performance.now() + watch_ms; performance.now() < until; ) {
      await new Promise((resolve) => setTimeout(resolve, WATCH_EVERY_MS));
      const over = this.#over(sender);
      if (over) return { kernel: done.at(-1)!.kernel.info.kernel, fault: over };
      for (const { kernel, evolved } of done) {
        const { kernel: name } = kernel.info;
        const views = await kernel.rpc.modules().catch(() => undefined);
        const view = views?.find(({ module }) => module === evolved!.module);
        const fallen = (why: string) => ({ kernel: name, fault: new Error(`${name} ${why}`) });
        if (!views) return fallen('went away');
        const serves = view?.live.some(({ version, draining }) => version === evolved!.version && !draining);
        if (!view || !(serves || view.version === evolved!.version))
          return fallen(`took ${Number.isInteger(evolved!.version) ? `version ${evolved!.version}` : 'it'} back`);
        if (view.state === 'failed') return fallen('cannot keep it alive: it dies again and again');
      }
    }
    return undefined;
  }

  /** Gives the kernels where that failed. */
  async #takeBack(module: string, done: readonly Change[], by: string): Promise<string[]> {
    const outcomes = await Promise.allSettled(done.map((change) => this.#undo(module, change, by)));
    return done.filter((_, i) => outcomes[i]!.status === 'rejected').map(({ kernel }) => kernel.info.kernel);
  }

  /** Has one kernel serve what it served before, unless somebody else has had it serve another version meanwhile. */
  async #undo(module: string, { kernel: then, was, evolved }: Change, by: string): Promise<void> {
    // It may have come back meanwhile.
    const kernel = this.#kernels.get(then.info.kernel) ?? then;
    const call = (method: string, ...args: unknown[]) =>
      kernel.session.call(method, args, { timeout_ms: LIMITS.evolve_ms });
    try {
      // One that serves a part of the requests only leaves the version before in its place.
      const serving = evolved && (await viewOf(kernel, module))?.version;
      if (evolved && serving !== evolved.version && (!was || serving !== was.version)) return;
      if (!was) return void (await call('remove', module, by));
      await call('rollback', module, was.version, by);
      const live = was.live.filter(({ draining }) => !draining);
      if (live.length < 2) return;
      const versions = Object.fromEntries(live.map(({ version, weight }) => [version, weight]));
      const [status] = (await call('own', 'POST', `/api/modules/${module}/weights`, { versions }, by)) as [number];
      if (status !== 200) throw new Error('its weights could not be set again');
    } catch (error) {
      if (evolved || !isError(error, ModuleUnknown)) throw error;
    }
  }
}

const viewOf = async ({ rpc }: RegisteredKernel, module: string): Promise<ModuleView | undefined> =>
  (await rpc.modules()).find((one) => one.module === module);

/** An error without what differs between two sources. */
function withoutDiff(error: Error): Error {
  if (!(error instanceof MeshError) || !('diff' in error.fields)) return error;
  const { name, code, status, retryable, message } = error;
  const { diff: _, ...fields } = error.fields as { diff?: unknown };
  return new MeshError({ name, code, status, retryable }, fields, message);
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
  const told = `${fault.message} (${place}). What it had changed on other kernels is taken back`;
  return new MeshError({ name, code, status, retryable }, fields, wave > 1 ? told : `${fault.message} (${place})`);
}
