/**
 * The guest: what stands between callers' sessions and the worker, inside the vault. The same code runs in Node (lxc)
 * and in QuickJS. It trusts nobody above it with more than calls, and nobody outside trusts it: leases, grants and
 * tickets are decided elsewhere.
 */
import { type ModuleKind, NoSuchMethod, SourceRejected, type TicketRole } from '@hauki/protocol';
import { type Dispatch, encode, Served, Session, type SessionStats, type Transport } from '@hauki/rpc';
import { type MakeRequest, pluginObject } from './plugin.ts';
import { type WorkerObject, workerObject } from './worker-object.ts';

/** What the guest may ask of the world outside; every answer is decided on the host's side. */
export interface Outside {
  effect(name: string, args: unknown[]): Promise<unknown>;
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
  end(reason: string): Promise<void>;
}

/** Evaluates a module and gives its exports. */
export type Evaluate = (source: string, language: string) => Promise<Record<string, unknown>>;

/** `context` is what a class's constructor gets. */
export function createGuest(powers: {
  outside: Outside;
  evaluate: Evaluate;
  context: { call?: Served };
  /** Makes a plugin's requests. */
  request?: MakeRequest;
}): Inside {
  const { outside, evaluate, context } = powers;
  let worker: WorkerObject | undefined;

  const sessions = new Map<string, Session>();

  const call = (method: string, params: unknown, role: TicketRole, served: Served): unknown => {
    if (!method.startsWith('rpc.')) {
      if (!worker) throw new NoSuchMethod({ method, has: [] });
      // The worker sees which call it serves until it first waits for something.
      const before = context.call;
      context.call = served;
      try {
        return worker.call(method, params);
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

  return {
    async load(source, { language, kind, load_timeout_ms }) {
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
        const failure = error as Error;
        const stage = failure?.name === 'SyntaxError' ? 'parse' : 'load';
        const where = /(?:worker\.(?:ts|mjs|js)|gem-pointer:\/\/[^\s:)]+):\d+(?::\d+)?/.exec(
          String(failure?.stack),
        )?.[0];
        const what = failure instanceof Error ? `${failure.name}: ${failure.message}` : `it threw ${String(error)}`;
        throw new SourceRejected({ stage, reason: where ? `${what} (at ${where})` : what });
      } finally {
        clearTimeout(timer);
      }
    },
    open(transport, role, tagged, id) {
      const dispatch: Dispatch = (method, params, _session, served) => call(method, params, role, served);
      const session = new Session({ transport, dispatch, ...(tagged ? {} : { literal: encode }) });
      sessions.set(id, session);
      void session.closed.then(() => sessions.delete(id));
    },
    call: async (method, params, role) => call(method, params, role, new Served(undefined)),
    async stats() {
      return Object.fromEntries([...sessions].map(([id, session]) => [id, session.stats()]));
    },
    async end(reason) {
      await worker?.end(reason);
    },
  };
}
