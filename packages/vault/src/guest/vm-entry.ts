/**
 * What runs inside a QuickJS vault before the worker's module: the guest, joined to the thread outside by one channel
 * of control (0) and one for each redeemed connection. The bridge is two functions of the host, taken here and removed
 * from the global object, so that the worker's code finds none of it.
 */
import { LIMITS, type ModuleKind, toWire } from '@hauki/protocol';
import { joinBytes, type PortTransport, portTransport, Session, serve } from '@hauki/rpc';
import { createConsole, createContext } from './context.ts';
import { createGuest } from './guest.ts';
import { unwrapped } from './namespace.ts';
import { outsideOver } from './outside.ts';
import type { CompressionPowers } from './platform/compression.ts';
import type { VmConsolePowers } from './vm-console.ts';
import { LOADED, type Loaded, type VmBridge, type VmControl } from './vm-control.ts';
import type { Cryptography, CryptoPowers } from './vm-crypto.ts';
import type { VmEnglish } from './vm-english.ts';
import {
  CRYPTO,
  createTimers,
  FORMS,
  giveRandom,
  lazily,
  PLATFORM,
  STREAMS,
  VmAbortController,
  VmAbortSignal,
  withoutClock,
} from './vm-globals.ts';
import { refuseLocales } from './vm-locales.ts';
import type { Platform, PlatformPowers } from './vm-platform.ts';

interface HostBridge
  extends Pick<PlatformPowers, 'encode' | 'decode' | 'find' | keyof CompressionPowers>,
    Pick<CryptoPowers, 'digest' | 'verify'> {
  post(channel: number, text: string, bytes?: ArrayBuffer): void;
  shut(channel: number): void;
  /** Of what was posted on a channel so much has not left. */
  unsent(channel: number): number;
  arm(id: number, delay_ms: number): void;
  disarm(id: number): void;
  /** Entropy; throws without the grant. */
  random(bytes: number): ArrayBuffer;
  /** Runs `vm-platform.ts` (0), `vm-forms.ts` (1), `vm-crypto.ts` (2), `vm-streams.ts` (3), `vm-console.ts` (4) or `vm-english.ts` (5). */
  platform(part: number): void;
}

const scope = globalThis as any;
// Taken before the worker's code runs, which may replace it.
const { stringify } = JSON;
const { defineProperty } = Object;
/** Powers that ask no prototype for what they lack: one of the worker's making would be called with them at hand. */
const bare = <T extends object>(powers: T): T => Object.setPrototypeOf(powers, null);
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
const powers: PlatformPowers = bare({
  encode: host.encode,
  decode: host.decode,
  find: host.find,
  deflate: host.deflate,
  inflate: host.inflate,
  checksum: host.checksum,
  forms: () => {
    platform();
    if (!powers.made_forms) loadPart(1, powers);
    return powers.made_forms!;
  },
  streams: () => {
    platform();
    if (!powers.made_streams) loadPart(3, powers);
    return powers.made_streams!;
  },
});
const loadPart = (part: number, powers: PlatformPowers | CryptoPowers | VmConsolePowers | VmEnglish) => {
  // Whatever the worker has put in its place is replaced, not called.
  defineProperty(scope, '__platform', { __proto__: null, value: powers, configurable: true } as object);
  try {
    host.platform(part);
  } finally {
    delete scope.__platform;
  }
};
const platform = (): Platform => {
  if (!powers.platform) loadPart(0, powers);
  return powers.platform!;
};
lazily(scope, PLATFORM, platform);
lazily(scope, FORMS, powers.forms);
lazily(scope, STREAMS, powers.streams);

const channels = new Map<number, PortTransport>();
const channel = (number: number): PortTransport => {
  /** At most so much has not left: what was, and what was posted since. */
  let unsent = 0;
  const made = portTransport(
    (text, bytes) => {
      unsent += text.length;
      if (!bytes) return host.post(number, text);
      const joined = joinBytes(bytes);
      unsent += joined.byteLength;
      const whole = joined.byteLength === joined.buffer.byteLength ? joined : joined.slice();
      host.post(number, text, whole.buffer as ArrayBuffer);
    },
    (reason) => {
      channels.delete(number);
      host.shut(number);
      // There was no room for an answer: without the vault's end its callers would not hear why.
      if (reason.endsWith('out of memory')) throw new Error('out of memory');
    },
  );
  const asked = {
    __proto__: null,
    get() {
      if (unsent > LIMITS.unsent_bytes) unsent = host.unsent(number);
      return unsent;
    },
  };
  defineProperty(made, 'buffered_bytes', asked as object);
  channels.set(number, made);
  return made;
};

const control: VmControl = {
  call: (method, params, role) => inside.call(method, params, role),
  stats: () => inside.stats(),
  activity: () => inside.activity!(),
  inspect: (expression, timeout_ms) => inside.inspect!(expression, timeout_ms),
  end: (reason) => inside.end(reason),
};
const transport = channel(0);
const session = new Session({
  transport,
  dispatch: serve(control, ['call', 'stats', 'activity', 'inspect', 'end']),
});

// All that is the same for every worker is made before there is one: then each VM is born with it.
const outside = outsideOver(session, transport);
const late_console = () => {
  if (!console_powers.console) loadPart(4, console_powers);
  return console_powers.console!;
};
const context = createContext(
  '',
  outside,
  {
    respond: (fetched) => platform().fetched(fetched),
    pack: (body) => platform().pack(body),
    sent: (given) => (powers.platform ? powers.platform.sent(given) : given.body),
  },
  late_console,
);
const { write_log } = context;
// The worker's own clock, which it may not have.
const console_powers = bare<VmConsolePowers>({ write_log, now: () => scope.performance.now() });
Object.assign(scope, {
  hauki: context,
  fetch: context.fetch,
  console: createConsole(write_log, late_console),
});
const texts = bare<VmEnglish>({});
refuseLocales(scope, () => {
  if (!texts.english) loadPart(5, texts);
  return texts.english!;
});
const giveClock = withoutClock(scope);
const random = giveRandom(scope);
const crypto_powers = bare<CryptoPowers>({ digest: host.digest, verify: host.verify, draw: random.draw });
const cryptography = (): Cryptography => {
  if (!crypto_powers.crypto) loadPart(2, crypto_powers);
  return crypto_powers.crypto!;
};
lazily(scope, CRYPTO, cryptography);
lazily(scope.crypto, ['subtle'], cryptography);
const inside = createGuest({
  outside,
  context,
  request: (...given) => platform().arrived(...given) as unknown as globalThis.Request,
  present: (value, most_chars) => late_console().present(value, most_chars),
  evaluate: async () => unwrapped(await import('wrapped.mjs' as string)),
});
inside.prepare(channel(1));

async function load(kind: ModuleKind, load_timeout_ms: number): Promise<Loaded> {
  const { worker } = context;
  try {
    return { methods: await inside.load('', { worker, language: 'javascript', kind, load_timeout_ms }) };
  } catch (error) {
    return { error: toWire(error) };
  }
}

/** Promises of the present turn that were rejected with nobody there to hear it. */
const strays = new Map<object, unknown>();

const bridge: VmBridge = {
  load(worker, kind, load_timeout_ms, time, may_draw) {
    context.worker = worker;
    if (time) giveClock();
    if (may_draw) random.allow(host.random);
    void load(kind, load_timeout_ms).then((loaded) => host.post(LOADED, stringify(loaded)));
  },
  deliver: (number, text, bytes) => channels.get(number)?.deliver(text, bytes && new Uint8Array(bytes)),
  open: (number, role, tagged, session) =>
    inside.open(channels.get(number) ?? channel(number), role, tagged === 1, session),
  closed(number, reason) {
    channels.get(number)?.closed(reason);
    channels.delete(number);
  },
  fire: (timer) => timers.fire(timer),
  stray(what, promise, reason) {
    if (what === 0) strays.delete(promise!);
    else if (what === 1) strays.set(promise!, reason);
    else if (what === 3) {
      write_log('error', ['uncaught exception:', reason]);
      // The engine throws null where it has no memory left even for an error.
      const full = reason === null || (reason as { message?: unknown } | undefined)?.message === 'out of memory';
      if (full) throw reason;
    } else {
      // As in Node's vaults: the worker's own affair, which is logged.
      const unheard = [...strays.values()];
      strays.clear();
      for (const reason of unheard) write_log('error', ['unhandled rejection:', reason]);
      // But where memory ran out unheard, somebody may wait for ever for what was to be said.
      const full = unheard.find((reason) => reason instanceof Error && reason.message === 'out of memory');
      if (full) throw full;
    }
  },
};
scope.__vm = bridge;
