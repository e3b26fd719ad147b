/**
 * The inside half of a vault whose gate is outside (`outer-shell.ts`): the guest, joined to it by one stream of frames.
 * For Node guests; `python/bridge.py` is the same for Python.
 */
import type { Duplex } from 'node:stream';
import type { Activity, Setup, TicketRole } from '@hauki/protocol';
import { type PortTransport, portTransport, Session, type SessionStats, serve, type Transport } from '@hauki/rpc';
import { BRIDGE, Bridge, type Opened } from './bridge.ts';
import type { Inside, Outside } from './guest.ts';
import { outsideOver } from './outside.ts';

/** The argument that tells a Node guest that its gate is outside. */
export const GATE_OUTSIDE = 'gate-outside';

/** The guest as the outer shell calls it over channel 0. */
export interface InnerControl {
  load(source: string, setup: InnerSetup): Promise<string[]>;
  call(method: string, params: unknown, role: TicketRole): Promise<unknown>;
  stats(): Promise<Record<string, SessionStats>>;
  activity(): Promise<Activity>;
  inspect(expression: string, timeout_ms: number): Promise<string>;
  end(reason: string): Promise<void>;
}

/** What of a setup comes in: no keys, no tickets. */
export type InnerSetup = Omit<Setup, 'source' | 'tls' | 'keys' | 'owner' | 'first'>;

interface Held {
  port: PortTransport;
  /** What the outer end says that the caller has not taken. */
  pressure: number;
  /** What has not left for the outer end. */
  unsent: number;
}

/** Serves until the stream ends; resolves with the reason. `inside` makes the guest, once, at `load`. */
export function runInnerShell(link: Duplex, inside: (setup: InnerSetup, outside: Outside) => Inside): Promise<string> {
  let guest: Inside | undefined;
  const channels = new Map<number, Held>();
  const { promise: over, resolve } = Promise.withResolvers<string>();

  const make = (number: number): Transport => {
    const held: Held = {
      pressure: 0,
      unsent: 0,
      port: portTransport(
        (text, bytes) => {
          // Its own bytes alone: what others are sent does not make this caller a slow one.
          const size = bridge.send(bytes ? BRIDGE.tagged : BRIDGE.literal, number, text, bytes, () => {
            held.unsent -= size;
          });
          held.unsent += size;
        },
        (reason) => {
          channels.delete(number);
          bridge.send(BRIDGE.close, number, reason);
        },
      ),
    };
    channels.set(number, held);
    return Object.defineProperty(held.port, 'buffered_bytes', { get: () => held.pressure + held.unsent });
  };

  const bridge = new Bridge(link, {
    frame(kind, number, text, bytes) {
      if (kind === BRIDGE.open) {
        const { role, tagged, session } = JSON.parse(text) as Opened;
        return guest?.open(make(number), role, tagged, session);
      }
      const held = channels.get(number);
      if (!held) return;
      if (kind === BRIDGE.pressure) held.pressure = Number(text);
      else if (kind === BRIDGE.close) {
        channels.delete(number);
        held.port.closed(text);
      } else held.port.deliver(text, bytes);
    },
    ended(reason) {
      for (const { port } of channels.values()) port.closed(reason);
      resolve(reason);
    },
  });

  const control: InnerControl = {
    async load(source, setup) {
      if (guest) throw new Error('a vault loads one worker, once');
      guest = inside(setup, outside);
      return guest.load(source, setup);
    },
    async call(method, params, role) {
      return guest!.call(method, params, role);
    },
    stats: async () => guest?.stats() ?? {},
    activity: async () => guest!.activity!(),
    inspect: async (expression, timeout_ms) => guest!.inspect!(expression, timeout_ms),
    async end(reason) {
      await guest?.end(reason);
    },
  };
  const transport = make(0);
  transport.flush = () => bridge.flush();
  const session = new Session({
    transport,
    dispatch: serve(control, ['load', 'call', 'stats', 'activity', 'inspect', 'end']),
  });
  const outside = outsideOver(session, transport);
  return over;
}
