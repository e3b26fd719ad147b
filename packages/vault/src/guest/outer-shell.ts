/**
 * The shell of a vault that has no listening socket: gate, redeemer and callers' sessions run here, outside, and the
 * guest inside hears and speaks frames (`bridge.ts`). It runs in the gate host (`gates/host.ts`), never in the agent.
 *
 * What always holds, whatever the guest does: a channel is a caller's that was let in, or its frames mean nothing; what
 * the guest sends for callers who do not read is bounded for each of them and for the vault, and what callers send to a
 * guest that does not read holds those callers up; a guest that floods its control channel, or that breaks the bridge's
 * rules, ends its own vault and touches no other.
 */
import type { Server } from 'node:net';
import type { Duplex } from 'node:stream';
import { LIMITS, type Setup } from '@hauki/protocol';
import { type PortTransport, portTransport, remote, Session, type Transport } from '@hauki/rpc';
import { BRIDGE, Bridge, type Opened } from './bridge.ts';
import type { Inside, Outside } from './guest.ts';
import type { InnerControl } from './inner-shell.ts';
import { GUEST_BOUNDS, serveOutside } from './outside.ts';
import { runShell } from './shell.ts';

/** Sent to a guest that does not read; beyond it its callers are not read either. */
const HELD_UP_BYTES = 1024 * 1024;
/** Of one caller's channel: twice what an honest guest allows itself, since its own view comes late. */
const CHANNEL_UNSENT_BYTES = 2 * LIMITS.unsent_bytes;
/** Of all callers' channels of a vault: this memory is the host's, not the vault's. */
const VAULT_UNSENT_BYTES = 4 * LIMITS.unsent_bytes;
/** What a caller has not confirmed is told to the guest when it has changed by so much. */
const PRESSURE_STEP_BYTES = 256 * 1024;
const PRESSURE_EVERY_MS = 50;
/** Frames for channels that are gone: some are under way whenever one closes; so many in a window come of no accident. */
const STRAY_FRAMES = 100_000;
const STRAY_WINDOW_MS = 1_000;

export interface OuterShellPowers {
  control: Transport;
  server: Server;
  /** This end of the guest's fd 4. */
  link: Duplex;
}

/** Resolves when the vault must end: its agent is gone, or its guest is (`exited`), or broke the rules (`misbehaved`). */
export function runOuterShell(powers: OuterShellPowers): Promise<{ cause: 'exited' | 'misbehaved'; reason: string }> {
  return new Promise((resolve) => {
    const outer = new Outer(powers.link, (cause, reason) => {
      powers.control.close(reason);
      resolve({ cause, reason });
    });
    const { control, server } = powers;
    void runShell({ control, server, inside: (setup, outside) => outer.inside(setup, outside) }).then((reason) => {
      outer.close(reason);
      resolve({ cause: 'exited', reason });
    });
  });
}

interface Caller {
  transport: Transport;
  /** Bytes that it had not confirmed when last looked at, and when the guest was last told. */
  waiting: number;
  told: number;
}

class Outer {
  readonly #bridge: Bridge;
  readonly #control: PortTransport;
  readonly #callers = new Map<number, Caller>();
  readonly #ended: (cause: 'exited' | 'misbehaved', reason: string) => void;
  /** Those that are not read until the guest has read what it was sent. */
  readonly #held_up = new Set<Transport>();
  #next_channel = 1;
  /** Sum of `waiting`. */
  #waiting = 0;
  #pressure_timer: NodeJS.Timeout | undefined;
  #queued_chars = 0;
  #strays = 0;
  #strays_since = 0;

  constructor(link: Duplex, ended: (cause: 'exited' | 'misbehaved', reason: string) => void) {
    this.#ended = ended;
    this.#bridge = new Bridge(link, {
      frame: (kind, channel, text, bytes) => this.#heard(kind, channel, text, bytes),
      ended: (reason, violated) => this.#end(reason, violated),
    });
    const post = (text: string, bytes?: readonly Uint8Array[]) =>
      this.#bridge.send(bytes ? BRIDGE.tagged : BRIDGE.literal, 0, text, bytes);
    const bridge = this.#bridge;
    // The control session closes itself only where the guest broke its rules.
    const control = portTransport(post, (reason) => bridge.end(reason, true));
    // A session asks how much is unsent: here that is what the guest's pipe has not taken.
    this.#control = Object.defineProperty(control, 'buffered_bytes', { get: () => bridge.waiting_bytes });
  }

  /** The guest beyond the bridge, as a shell wants it. */
  inside(setup: Setup, outside: Outside): Inside {
    const session = new Session({
      transport: this.#control,
      dispatch: serveOutside(outside),
      timeout_ms: LIMITS.call_ms,
      bounds: GUEST_BOUNDS,
    });
    const guest = remote<InnerControl>(session);
    return {
      load: (source) => {
        const { source: _, tls: _tls, keys: _keys, owner: _owner, first: _first, ...inner } = setup;
        const { load_timeout_ms } = inner;
        return session.call('load', [source, inner], {
          // The guest keeps its own time; this is for one that cannot.
          timeout_ms: load_timeout_ms + 1_000,
        }) as Promise<string[]>;
      },
      open: (transport, role, tagged, session_id) => this.#open(transport, { role, tagged, session: session_id }),
      call: (method, params, role) => guest.call(method, params, role),
      stats: () => guest.stats(),
      activity: () => guest.activity(),
      inspect: (expression, timeout_ms) =>
        session.call('inspect', [expression, timeout_ms], { timeout_ms }) as Promise<string>,
      end: (reason) => guest.end(reason),
    };
  }

  close(reason: string): void {
    this.#bridge.end(reason);
  }

  #open(transport: Transport, opened: Opened): void {
    const channel = this.#next_channel++;
    this.#callers.set(channel, { transport, waiting: 0, told: 0 });
    this.#bridge.send(BRIDGE.open, channel, JSON.stringify(opened));
    transport.start({
      message: (text, bytes) => {
        this.#bridge.send(bytes ? BRIDGE.tagged : BRIDGE.literal, channel, text, bytes && [bytes]);
        if (this.#bridge.waiting_bytes > HELD_UP_BYTES) this.#holdUp(transport);
      },
      close: (reason) => {
        this.#held_up.delete(transport);
        if (this.#forget(channel)) this.#bridge.send(BRIDGE.close, channel, reason);
      },
    });
  }

  #holdUp(transport: Transport): void {
    if (this.#held_up.size === 0)
      this.#bridge.drained(() => {
        const held_up = [...this.#held_up];
        this.#held_up.clear();
        for (const one of held_up) one.read?.(true);
      });
    this.#held_up.add(transport);
    transport.read?.(false);
  }

  #heard(kind: number, channel: number, text: string, bytes: Uint8Array | undefined): void {
    if (kind === BRIDGE.open || kind === BRIDGE.pressure || kind > BRIDGE.pressure || kind < BRIDGE.literal)
      return this.#bridge.end(`it sent a frame of kind ${kind}`, true);
    if (channel === 0) {
      if (kind === BRIDGE.close) return this.#bridge.end(`it ended: ${text.slice(0, 200)}`);
      return this.#controlled(text, bytes);
    }
    const caller = this.#callers.get(channel);
    if (!caller) return this.#stray();
    if (kind === BRIDGE.close) {
      this.#forget(channel);
      return caller.transport.close(text.slice(0, 200) || 'closed by the worker');
    }
    caller.transport.send(text, bytes && [bytes]);
    this.#look(channel, caller);
  }

  /** The agent takes what it is told turn by turn; a guest that is faster than that for long is flooding it. */
  #controlled(text: string, bytes: Uint8Array | undefined): void {
    const size = text.length + (bytes?.length ?? 0);
    this.#queued_chars += size;
    if (this.#queued_chars > LIMITS.unsent_bytes) return this.#bridge.end('it flooded its control channel', true);
    setImmediate(() => {
      this.#queued_chars -= size;
      this.#control.deliver(text, bytes);
    });
  }

  #stray(): void {
    const now = performance.now();
    if (now - this.#strays_since > STRAY_WINDOW_MS) {
      this.#strays_since = now;
      this.#strays = 0;
    }
    if (++this.#strays > STRAY_FRAMES) this.#bridge.end('it flooded channels that are not there', true);
  }

  /** Looks how much of a channel its caller has not confirmed; tells the guest, or gives the caller up. */
  #look(channel: number, caller: Caller): void {
    const waiting = caller.transport.buffered_bytes;
    this.#waiting += waiting - caller.waiting;
    caller.waiting = waiting;
    if (waiting > CHANNEL_UNSENT_BYTES) return this.#giveUp(channel, caller);
    if (this.#waiting > VAULT_UNSENT_BYTES) {
      // The one for whom the most is held, whoever was sent something now.
      const [most] = [...this.#callers].sort(([, a], [, b]) => b.waiting - a.waiting);
      this.#giveUp(...most!);
      if (most![1] === caller) return;
    }
    if (Math.abs(waiting - caller.told) >= PRESSURE_STEP_BYTES || (waiting === 0 && caller.told > 0)) {
      caller.told = waiting;
      this.#bridge.send(BRIDGE.pressure, channel, String(waiting));
    }
    if (caller.told > 0) this.#lookAgain();
  }

  #giveUp(channel: number, { transport }: Caller): void {
    const reason = 'the caller does not read what it asked for';
    this.#forget(channel);
    this.#bridge.send(BRIDGE.close, channel, reason);
    transport.close(reason);
  }

  #lookAgain(): void {
    this.#pressure_timer ??= setTimeout(() => {
      this.#pressure_timer = undefined;
      for (const [channel, caller] of [...this.#callers]) if (caller.told > 0) this.#look(channel, caller);
    }, PRESSURE_EVERY_MS);
  }

  #forget(channel: number): boolean {
    const caller = this.#callers.get(channel);
    if (!caller) return false;
    this.#waiting -= caller.waiting;
    return this.#callers.delete(channel);
  }

  #end(reason: string, violated: boolean): void {
    clearTimeout(this.#pressure_timer);
    const callers = [...this.#callers.values()];
    this.#callers.clear();
    for (const { transport } of callers) transport.close('the vault has ended');
    this.#control.closed(reason);
    this.#ended(violated ? 'misbehaved' : 'exited', reason);
  }
}
