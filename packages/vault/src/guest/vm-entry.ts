/**
 * What runs inside a QuickJS vault before the worker's module: the guest, joined to the thread outside by one channel
 * of control (0) and one for each redeemed connection. The bridge is two functions of the host, taken here and removed
 * from the global object, so that the worker's code finds none of it.
 */
import type { Activity, ModuleKind, TicketRole } from '@hauki/protocol';
import { joinBytes, type PortTransport, portTransport, Session, type SessionStats, serve } from '@hauki/rpc';
import { createConsole, createContext } from './context.ts';
import { createGuest, type Inside } from './guest.ts';
import { unwrapped } from './namespace.ts';
import { outsideOver } from './outside.ts';
import { createTimers, giveRandom, lazily, VmAbortController, VmAbortSignal, withoutClock } from './vm-globals.ts';
import type { Platform, PlatformPowers } from './vm-platform.ts';

interface HostBridge {
  post(channel: number, text: string, bytes?: ArrayBuffer): void;
  shut(channel: number): void;
  arm(id: number, delay_ms: number): void;
  disarm(id: number): void;
  /** Entropy; throws without the grant. */
  random(bytes: number): ArrayBuffer;
  encode(text: string): ArrayBuffer;
  decode(bytes: ArrayBuffer, encoding: string, fatal: number, keep_bom: number): string;
  /** Runs `vm-platform.ts`. */
  platform(): void;
}

/** What the thread calls; see `drivers/quickjs/vm.ts`. */
export interface VmBridge {
  deliver(channel: number, text: string, bytes?: ArrayBuffer): void;
  open(channel: number, role: TicketRole, tagged: number, session: string): void;
  closed(channel: number, reason: string): void;
  fire(timer: number): void;
  /** A promise was rejected unheard (1), or has been heard since (0); 2: that was all of a turn. */
  stray(what: number, promise?: object, reason?: unknown): void;
}

/** The guest as the thread sees it over channel 0. */
export interface VmControl {
  /** The source lies ready with the thread's module loader. */
  load(setup: {
    worker: string;
    language: string;
    kind?: ModuleKind | undefined;
    load_timeout_ms: number;
    time: boolean;
    random: boolean;
  }): Promise<string[]>;
  call(method: string, params: unknown, role: TicketRole): Promise<unknown>;
  stats(): Promise<Record<string, SessionStats>>;
  activity(): Promise<Activity>;
  inspect(expression: string, timeout_ms: number): Promise<string>;
  end(reason: string): Promise<void>;
}

const scope = globalThis as any;
const host: HostBridge = scope.__host;
delete scope.__host;

const timers = createTimers(host.arm, host.disarm);
scope.setTimeout = timers.setTimeout;
scope.setInterval = timers.setInterval;
scope.clearTimeout = timers.clearTimeout;
scope.clearInterval = timers.clearTimeout;
for (const [name, value] of Object.entries({ AbortController: VmAbortController, AbortSignal: VmAbortSignal })) {
  Object.defineProperty(value, 'name', { value: name, configurable: true });
  scope[name] = value;
}
// What few workers touch is loaded when one does: it then takes its room and its millisecond there alone.
const powers: PlatformPowers = { encode: host.encode, decode: host.decode };
const platform = (): Platform => {
  if (powers.platform) return powers.platform;
  scope.__platform = powers;
  try {
    host.platform();
  } finally {
    delete scope.__platform;
  }
  return powers.platform!;
};
lazily(scope, platform);

const channels = new Map<number, PortTransport>();
const channel = (number: number): PortTransport => {
  const made = portTransport(
    (text, bytes) => {
      if (!bytes) return host.post(number, text);
      const joined = joinBytes(bytes);
      const whole = joined.byteLength === joined.buffer.byteLength ? joined : joined.slice();
      host.post(number, text, whole.buffer as ArrayBuffer);
    },
    () => {
      channels.delete(number);
      host.shut(number);
    },
  );
  channels.set(number, made);
  return made;
};

let inside: Inside | undefined;
const strays = new Map<object, unknown>();
let write_log: (level: string, values: unknown[]) => void = () => {};
const control: VmControl = {
  async load(setup) {
    const outside = outsideOver(session);
    const context = createContext(setup.worker, outside, {
      respond: (fetched) => platform().fetched(fetched),
      pack: (body) => platform().pack(body),
    });
    write_log = context.write_log;
    Object.assign(scope, {
      hauki: context,
      fetch: context.fetch,
      console: createConsole(context.write_log),
    });
    if (!setup.time) withoutClock(scope);
    giveRandom(scope, setup.random ? host.random : undefined);
    inside = createGuest({
      outside,
      context,
      request: (...given) => platform().arrived(...given) as unknown as globalThis.Request,
      evaluate: async () => unwrapped(await import('wrapped.mjs' as string)),
    });
    const methods = await inside.load('', setup);
    // A plugin's first request needs it, and its kernel has yet to connect: not that request waits for it.
    if (setup.kind === 'plugin') timers.setTimeout(platform, 0);
    return methods;
  },
  async call(method, params, role) {
    return inside!.call(method, params, role);
  },
  stats: async () => inside?.stats() ?? {},
  activity: async () => inside!.activity!(),
  inspect: async (expression, timeout_ms) => inside!.inspect!(expression, timeout_ms),
  async end(reason) {
    await inside?.end(reason);
  },
};
const session = new Session({
  transport: channel(0),
  dispatch: serve(control, ['load', 'call', 'stats', 'activity', 'inspect', 'end']),
});

const bridge: VmBridge = {
  deliver: (number, text, bytes) => channels.get(number)?.deliver(text, bytes && new Uint8Array(bytes)),
  open: (number, role, tagged, session) => inside?.open(channel(number), role, tagged === 1, session),
  closed(number, reason) {
    channels.get(number)?.closed(reason);
    channels.delete(number);
  },
  fire: (timer) => timers.fire(timer),
  stray(what, promise, reason) {
    if (what === 0) strays.delete(promise!);
    else if (what === 1) strays.set(promise!, reason);
    else {
      // As in Node's vaults: the worker's own affair, which is logged.
      for (const unheard of strays.values()) write_log('error', ['unhandled rejection:', unheard]);
      strays.clear();
    }
  },
};
scope.__vm = bridge;
