/**
 * The shell at a vault's edge: it answers the agent over the control transport, keeps the gate, and passes the guest's
 * wishes up. In lxc it shares the guest's process, in quickjs it stands outside the VM, in the thread that holds it.
 */
import type { Server, Socket } from 'node:net';
import { type Activity, BadInput, type ExpectedTicket, type FirstMessage, LIMITS, type Setup } from '@hauki/protocol';
import { Session, serve, type Transport } from '@hauki/rpc';
import { openGate } from './gate.ts';
import type { Inside, Outside } from './guest.ts';
import { outsideOver } from './outside.ts';
import { Redeemer } from './redeemer.ts';
import type { CallerSessions } from './sessions.ts';

/** Connections that wait for a worker to be given; the oldest make room. */
const EARLY = 8;

export interface ShellPowers {
  control: Transport;
  server: Server;
  /** Begins to accept, where the server does not yet; called once the worker is being loaded. */
  open?(): void;
  /** Makes the guest, given its way out. Called once, at `load`. */
  inside(setup: Setup, outside: Outside): Inside;
  /** Source as the guest can run it; `name`: of the module, where it is not the worker's own. */
  prepare?(source: string, language: string, name?: string): string;
  /** What is said of a source that was refused, where more is known of it than the guest knows. */
  explain?(refusal: unknown, source: string, language: string): unknown;
}

/** Resolves with the reason when the agent is gone: then the vault has no owner and must end. */
export function runShell(powers: ShellPowers): Promise<string> {
  let inside: Inside | undefined;
  let redeemer: Redeemer | undefined;
  let callers: CallerSessions | undefined;
  // Its owner may come before the worker does; nobody comes in before it is loaded.
  const early = new Set<Socket>();
  const wait = (socket: Socket) => {
    const leave = () => {
      if (early.delete(socket)) socket.destroy();
    };
    socket.on('error', leave);
    early.add(socket);
    if (early.size > EARLY) early.values().next().value!.destroy();
    socket.once('close', leave);
    setTimeout(leave, LIMITS.handshake_ms).unref();
  };
  powers.server.on('connection', wait);

  const shell = {
    async load(setup: Setup): Promise<string[]> {
      if (inside) throw new Error('a vault loads one worker, once');
      const { prepare = (source) => source } = powers;
      const modules = (setup.modules ?? []).map((module) => ({
        ...module,
        source: prepare(module.source, module.language, module.pointer),
      }));
      inside = powers.inside({ ...setup, modules }, outside);
      redeemer = new Redeemer(setup, setup.keys);
      redeemer.expect(setup.owner);
      const { server } = powers;
      const { promise: admitted, resolve, reject } = Promise.withResolvers<string[]>();
      admitted.catch(() => {});
      server.off('connection', wait);
      const methods = () => admitted;
      callers = openGate({ server, worker: setup.worker, redeemer, inside, methods, tls: setup.tls, early });
      early.clear();
      const { first, owner } = setup;
      const open = powers.open ?? (() => {});
      // Who comes before this waits in the kernel. A handshake computes, and the first answer would wait for it.
      if (!first) open();
      const ready = redeemer;
      const admit = (has: string[]) => {
        if (first) open();
        resolve(has);
        // While the answer travels, the first redemption's needs are loaded.
        setTimeout(() => ready.prepare(), 1);
      };
      try {
        const has = await inside.load(prepare(setup.source, setup.language), setup);
        // After the answer has left: what is called first is called on a worker that is there.
        // What it answers leaves at the end of a turn, and the gate opens in the next.
        if (first) setImmediate(() => void ride(first, owner).finally(() => setImmediate(admit, has)));
        else admit(has);
        return has;
      } catch (error) {
        const refusal = powers.explain?.(error, setup.source, setup.language) ?? error;
        reject(refusal);
        throw refusal;
      }
    },
    async expect(ticket: ExpectedTicket): Promise<void> {
      redeemer?.expect(ticket);
    },
    async sessions() {
      const stats = (await inside?.stats()) ?? {};
      return Object.entries(callers?.list() ?? {}).map(([session, info]) => ({
        session,
        ...info,
        ...(stats[session] ? { stats: { ...stats[session] } } : {}),
      }));
    },
    async activity(): Promise<Activity> {
      return (await inside?.activity?.()) ?? { calls: 0, under_way: 1, idle_ms: 0 };
    },
    async inspect(expression: string, timeout_ms: number): Promise<string> {
      if (!inside?.inspect)
        throw new BadInput({ what: 'inspect', why: 'this runtime cannot evaluate beside its worker' });
      return inside.inspect(expression, timeout_ms);
    },
    async call(method: string, args: unknown[]): Promise<unknown> {
      if (!inside) throw new BadInput({ what: method, why: 'there is no worker yet' });
      return inside.call(method, args, 'visitor');
    },
    async end(reason: string): Promise<void> {
      await inside?.end(reason);
    },
  };

  /** Says to the worker what its owner said with the request for it, and sends what it answers. */
  const ride = async (first: FirstMessage[], owner: ExpectedTicket) => {
    const guest = inside;
    if (!guest || !callers) return;
    const said = await callers.ride(owner, first, (channel) => guest.open(channel, owner.role, true, owner.jti));
    if (session.open) session.notify('first', [said]);
  };

  const session = new Session({
    transport: powers.control,
    dispatch: serve(shell, ['load', 'expect', 'sessions', 'activity', 'inspect', 'call', 'end']),
    timeout_ms: LIMITS.fetch_ms + 5_000,
  });
  const outside = outsideOver(session, powers.control);
  return session.closed;
}
