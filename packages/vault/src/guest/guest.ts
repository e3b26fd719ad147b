/**
 * The guest: what stands between callers' sessions and the worker, inside the vault. The same code runs in Node (lxc)
 * and in QuickJS. It trusts nobody above it with more than calls, and nobody outside trusts it: leases, grants and
 * tickets are decided elsewhere.
 */
import {
  type Activity,
  DeadlineExceeded,
  LIMITS,
  type ModuleKind,
  NoSuchMethod,
  SourceRejected,
  type TicketRole,
  toWire,
} from '@hauki/protocol';
import { type Dispatch, encode, Served, Session, type SessionStats, type Transport } from '@hauki/rpc';
import { ActivityCounter } from './activity.ts';
import { Parked } from './parked.ts';
import { type MakeRequest, pluginObject } from './plugin.ts';
import { type WorkerObject, workerObject } from './worker-object.ts';

/** How an effect is waited for. */
export interface EffectCall {
  readonly signal?: AbortSignal | undefined;
  /** How long; otherwise as long as for most. */
  readonly timeout_ms?: number | undefined;
  /** For log lines: it leaves before this returns. */
  readonly at_once?: boolean | undefined;
}

/** What the guest may ask of the world outside; every answer is decided on the host's side. */
export interface Outside {
  /** `call.signal`: nobody waits for it any more. Asked for only where it is of use. */
  effect(name: string, args: unknown[], call?: EffectCall): Promise<unknown>;
  heartbeat(challenge: string, mac: string): Promise<unknown>;
  destruct(mac: string): Promise<unknown>;
}

/** What the shell asks of the guest. */
export interface Inside {
  load(
    source: string,
    context: { worker: string; language: string; kind?: ModuleKind | undefined; load_timeout_ms: number },
  ): Promise<string[]>;
  /** A redeemed connection: its session's calls go to the worker. `tagged`: with whole values and references. */
  open(transport: Transport, role: TicketRole, tagged: boolean, session: string): void;
  /** What the open sessions have done, by their ids. */
  stats(): Promise<Record<string, SessionStats>>;
  call(method: string, params: unknown, role: TicketRole): Promise<unknown>;
  /** What calls the worker has had; a runtime without it is never taken for idle. */
  activity?(): Promise<Activity>;
  /** Evaluates an expression beside the worker, `worker` and `hauki` in scope; its result as text. */
  inspect?(expression: string, timeout_ms: number): Promise<string>;
  end(reason: string): Promise<void>;
}

export interface Guest extends Inside {
  /** Makes a session with whole values ahead, for the first `open` if that comes over this transport. */
  prepare(transport: Transport): void;
}

interface Seat {
  session: Session;
  caller: { role: TicketRole };
}

// Taken before the worker's code runs, which may replace it.
const AsyncFunction = (async () => {}).constructor as new (
  ...source: string[]
) => (...args: unknown[]) => Promise<unknown>;

/** Evaluates a module and gives its exports. */
export type Evaluate = (source: string, language: string) => Promise<Record<string, unknown>>;

/** `context` is what a class's constructor gets. */
export function createGuest(powers: {
  outside: Outside;
  evaluate: Evaluate;
  context: { call?: Served; write_log?(level: string, values: unknown[]): void };
  /** Makes a plugin's requests. */
  request?: MakeRequest;
  /** Any value as text, at most so long (`present.ts`). */
  present(value: unknown, most_chars: number): string;
}): Guest {
  const { outside, evaluate, context, present } = powers;
  let worker: WorkerObject | undefined;

  const sessions = new Map<string, Session>();
  const parked = new Parked();
  const activity = new ActivityCounter();

  const call = (method: string, params: unknown, role: TicketRole, served: Served): unknown => {
    if (!method.startsWith('rpc.')) {
      if (!worker) throw new NoSuchMethod({ method, has: [] });
      // The worker sees which call it serves until it first waits for something.
      const before = context.call;
      context.call = served;
      try {
        const outcome = worker.call(method, params);
        activity.begun(outcome);
        return outcome;
      } finally {
        if (before) context.call = before;
        else delete context.call;
      }
    }
    const list = Array.isArray(params) ? params : [];
    if (method === 'rpc.methods') return worker?.methods ?? [];
    if (role === 'owner' && method === 'rpc.heartbeat') return outside.heartbeat(list[0], list[1]);
    if (role === 'owner' && method === 'rpc.destruct') return outside.destruct(list[0]);
    throw new NoSuchMethod({ method });
  };

  /** A session with a caller. One whose role is not known yet may as little as can be. */
  const seat = (transport: Transport, tagged: boolean, role: TicketRole = 'visitor'): Seat => {
    // Its first message may come while the session is being made.
    const caller = { role };
    const dispatch: Dispatch = (method, params, _session, served) => {
      const answer = parked.bound(call(method, params, caller.role, served), method, served.timeout_ms);
      return method.startsWith('rpc.') ? activity.own(answer) : answer;
    };
    const session = new Session({ transport, dispatch, ...(tagged ? {} : { literal: encode }) });
    return { session, caller };
  };
  let ready: (Seat & { transport: Transport }) | undefined;

  return {
    async load(source, { language, kind, load_timeout_ms }) {
      activity.born();
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(
          () =>
            reject(
              new SourceRejected({ stage: 'load', reason: `it did not finish loading within ${load_timeout_ms} ms` }),
            ),
          load_timeout_ms,
        );
      });
      try {
        const module = await Promise.race([evaluate(source, language), late]);
        worker = kind === 'plugin' ? pluginObject(module, context, powers.request) : workerObject(module, context);
        return worker.methods;
      } catch (error) {
        if (error instanceof SourceRejected) throw error;
        throw rejected(error);
      } finally {
        clearTimeout(timer);
      }
    },
    prepare(transport) {
      ready = { transport, ...seat(transport, true) };
    },
    open(transport, role, tagged, id) {
      const taken = tagged && ready?.transport === transport ? ready : seat(transport, tagged, role);
      ready = undefined;
      const { session, caller } = taken;
      caller.role = role;
      sessions.set(id, session);
      void session.closed.then(() => {
        activity.over(session);
        if (sessions.get(id) === session) sessions.delete(id);
      });
    },
    async call(method, params, role) {
      const run = () => parked.bound(call(method, params, role, new Served(undefined)), method);
      return method.startsWith('rpc.') ? run() : activity.plain(run);
    },
    activity: async () => activity.look(sessions.values()),
    async inspect(expression, timeout_ms) {
      if (!worker) throw new Error('there is no worker yet');
      // On lines of its own, so that a comment at its end hides nothing.
      const run = new AsyncFunction('worker', 'hauki', `return (\n${expression}\n);`);
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(
          () => reject(new DeadlineExceeded({ what: 'The expression', timeout_ms, may_have_run: true })),
          timeout_ms,
        );
      });
      try {
        return present(await Promise.race([run(worker.self, context), late]), LIMITS.inspect_chars);
      } finally {
        clearTimeout(timer);
      }
    },
    async stats() {
      return Object.fromEntries([...sessions].map(([id, session]) => [id, session.stats()]));
    },
    async end(reason) {
      await worker?.end(reason);
    },
  };
}

/** What a module threw as it was loaded, in words; it may be anything, also what cannot be shown. */
function rejected(thrown: unknown): Error {
  try {
    const failure = thrown as Error;
    const stage = failure?.name === 'SyntaxError' ? 'parse' : 'load';
    const where = /(?:worker\.(?:ts|mjs|js)|gem-pointer:\/\/[^\s:)]+):\d+(?::\d+)?/.exec(String(failure?.stack))?.[0];
    const what =
      failure instanceof Error
        ? `${failure.name}: ${failure.message}`
        : `it threw ${toWire(thrown).message.replace(/^Error: /, '')}`;
    return new SourceRejected({ stage, reason: where ? `${what} (at ${where})` : what });
  } catch {
    return new SourceRejected({ stage: 'load', reason: 'it threw what cannot be shown' });
  }
}
