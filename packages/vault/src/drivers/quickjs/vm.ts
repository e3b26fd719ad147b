/**
 * One QuickJS VM as a vault's inside. Every entry into the VM is bounded in time; a VM that overruns, or that lets a
 * host's error escape, is not entered again. What is for a VM that is paused, or has used up its share of the thread,
 * waits in order and within a bound.
 */
import { LIMITS, type Setup } from '@hauki/protocol';
import { joinBytes, portTransport, remote, Session, type Transport } from '@hauki/rpc';
import { JSValueHandle, type QuickJS } from 'quickjs-wasi';
import type { Inside, Outside } from '../../guest/guest.ts';
import { lookUp } from '../../guest/modules.ts';
import { GUEST_BOUNDS, serveOutside } from '../../guest/outside.ts';
import { LOADED, type VmControl } from '../../guest/vm-control.ts';
import { checkPlain, decoded, found } from './decoded.ts';
import { digested, verified } from './digest.ts';
import type { Engine, VmPowers } from './engines.ts';
import {
  ENTRIES,
  type Entry,
  HOST_FUNCTIONS,
  type HostFunction,
  isFull,
  limitMemory,
  type VmImage,
  wasFull,
} from './image.ts';
import { runJobs } from './jobs.ts';
import { RANDOM_BYTES, STACK_BYTES } from './limits.ts';
import { moduleLoader, told } from './loader.ts';
import { Loading } from './loading.ts';
import type { Limits, Used } from './messages.ts';
import type { Meter } from './meter.ts';
import { Place, type Rota } from './rota.ts';
import { Strays } from './strays.ts';
import { VmTimers } from './timers.ts';
import { Turn, TurnOver } from './turn.ts';
import { type Argument, Waiting } from './waiting.ts';
import { checksum, deflated, inflated } from './zip.ts';

export interface VmOptions {
  /** With memory of the image's size. */
  engine: Engine;
  image: VmImage;
  /** Nothing of the VM is needed any more, which was not cut off within a turn. */
  ended(engine: Engine): void;
  /** Of its thread's VMs. */
  rota: Rota;
  /** Told when a turn begins, with what it may take, and when it has ended (0), for the watchdog outside this thread. */
  busy(turn_ms: number): void;
  /** The turn may go on for so long from now. */
  extend(more_ms: number): void;
  /** Something escaped from a VM: whatever else happens in this thread may suffer from it. */
  soiled(): void;
}

/** Why a VM is given up. */
export type VmCause = 'misbehaved' | 'out_of_memory';

/** What a VM has to do with once it is a vault's. */
export interface VmOwner {
  /** Not 0: the VM must stop in the middle of its turn. 1 is set from outside, 2 by the VM's own keeper. */
  doom: Int32Array;
  /** The VM must be discarded: `reason` is for a person. */
  lost(cause: VmCause, reason: string): void;
}

const FIRST_CALL = '{"jsonrpc":"2.0","id":1,"method":"stats","params":[]}';

/** A VM with the guest's script run and no worker yet. */
export class Vm {
  readonly #options: Omit<VmOptions, 'engine'>;
  #engine: Engine;
  #owner: VmOwner | undefined;
  /** Where it is a vault's. */
  #place: Place | undefined;
  #most_bytes = Infinity;
  #vm: QuickJS;
  #bridge: Record<Entry, JSValueHandle>;
  readonly #turn: Turn;
  /** A source is parsed in one go: on a busy machine that takes longer than it computes. */
  #loading: Loading | undefined;
  #inside = false;
  #over = false;
  #paused = false;
  /** Why its keeper gives it up, where that is so. */
  #why: string | undefined;
  #source = '';
  #find = lookUp({});
  #granted = { time: false, random: false };
  readonly #born_at = performance.now();
  #next_channel = 1;
  /** What it said in turns of its own, until that is heard in one of the thread's. */
  readonly #said = new Set<() => void>();
  #queued_bytes = 0;
  /** Its callers are not read until nothing waits any more. */
  #holds_up = false;
  readonly #waiting = new Waiting();
  /** As it was last seen, also when its memory is gone. */
  #memory_bytes = 0;
  #lent: JSValueHandle | undefined;
  readonly #strays = new Strays();
  readonly #timers = new VmTimers((id) => this.#enter('fire', id));
  readonly #channels = new Map<number, Transport>();
  readonly #control = portTransport((text, bytes) =>
    bytes ? this.#enter('deliver', 0, text, joinBytes(bytes)) : this.#enter('deliver', 0, text),
  );

  constructor(options: VmOptions) {
    const { engine, ...rest } = options;
    this.#options = rest;
    this.#engine = engine;
    this.#turn = new Turn(options.extend);
    const powers: VmPowers = {
      maxStackSize: STACK_BYTES,
      timezoneOffset: 0,
      interruptHandler: () => this.#turn.stops(),
      onUnhandledRejection: this.#strays.hear,
      clock_ns: (clock) => this.#clock_ns(clock),
      moduleLoader: moduleLoader({ source: () => this.#source, find: (name, importer) => this.#find(name, importer) }),
    };
    const vm = engine.begin(rest.image, powers);
    this.#vm = vm;
    const hosts: Record<HostFunction, (...args: JSValueHandle[]) => unknown> = {
      post: (channel, text, bytes) =>
        this.#post(channel!.toNumber(), text!.toString(), bytes?.isArrayBuffer ? bytes.toArrayBuffer() : undefined),
      shut: (channel) => this.#shut(channel!.toNumber()),
      unsent: (channel) => this.#lend(vm.newNumber(this.#channels.get(channel!.toNumber())?.buffered_bytes ?? 0)),
      arm: (id, delay) => {
        if (!this.#timers.arm(id!.toNumber(), delay!.toNumber())) this.#discardLater('it set too many timers');
      },
      disarm: (id) => this.#timers.disarm(id!.toNumber()),
      random: (bytes) => this.#random(bytes!.toNumber()),
      encode: (text) => this.#lend(vm.newArrayBuffer(new TextEncoder().encode(text!.toString()))),
      decode: (bytes, encoding, fatal, keep_bom) =>
        this.#lend(vm.newString(decoded(bytes!, encoding!, fatal!.toNumber() === 1, keep_bom!.toNumber() === 1))),
      find: (bytes, what, most) => this.#reckon(() => found(bytes!, what!, most!.toNumber())),
      digest: (hash, bytes, key) => this.#reckon(() => digested(hash!, bytes!, key)),
      verify: (hash, bytes, key, mac) => this.#reckon(() => (verified(hash!, bytes!, key!, mac!) ? 1 : 0)),
      deflate: (piece, before) => this.#reckon(() => deflated(piece!, before!)),
      inflate: (format, packed) => this.#reckon(() => inflated(format!, packed!)),
      checksum: (format, piece, before) => this.#reckon(() => checksum(format!, piece!, before!)),
      platform: (part) => vm.evalBytecode(rest.image.parts[part!.toNumber()]!).dispose(),
    };
    for (const name of HOST_FUNCTIONS)
      vm.registerHostCallback(name, (...args) => {
        try {
          checkPlain(args);
          const given = hosts[name](...args);
          return given instanceof JSValueHandle ? given : vm.undefined;
        } catch (error) {
          throw this.#turn.overran ? new TurnOver() : told(error);
        }
      });
    const bridge = ENTRIES.map((name) => [name, vm.importHandle(rest.image.entries[name])]);
    this.#bridge = Object.fromEntries(bridge) as Record<Entry, JSValueHandle>;
    // It answers once, to nobody: its memory is then at hand when its first call comes.
    this.#enter('deliver', 0, FIRST_CALL);
  }

  /** Makes a VM that was prepared beforehand a vault's own. False when it did not survive its preparation. */
  own(owner: VmOwner): boolean {
    this.#owner = owner;
    this.#turn.doom = owner.doom;
    return !this.#over;
  }

  /** Sets its limits, before it has a worker. */
  limit({ memory_mib, turn_ms }: Limits, meter: Meter): void {
    if (this.#over) return;
    this.#turn.most_ms = turn_ms;
    this.#place = new Place(this.#options.rota, meter, () => this.#drain());
    this.#most_bytes = memory_mib * 1024 * 1024;
    limitMemory(this.#vm, this.#most_bytes);
  }

  /** The guest in this VM, as a shell wants it. */
  inside(setup: Setup, outside: Outside): Inside {
    const { time = false, random = false } = setup.grants ?? {};
    this.#granted = { time, random };
    const session = new Session({
      transport: this.#control,
      dispatch: serveOutside(outside),
      timeout_ms: LIMITS.call_ms,
      bounds: GUEST_BOUNDS,
    });
    const guest = remote<VmControl>(session);
    return {
      load: (source) => {
        this.#source = source;
        this.#find = lookUp(setup);
        const { worker, kind = 'worker', load_timeout_ms } = setup;
        const loading = new Loading(load_timeout_ms + 1_000);
        this.#loading = loading;
        if (this.#over) loading.ended('the vault has ended');
        this.#enter('load', worker, kind, load_timeout_ms, time ? 1 : 0, random ? 1 : 0);
        return loading.methods;
      },
      open: (transport, role, tagged, session_id) => {
        const channel = this.#next_channel++;
        this.#channels.set(channel, transport);
        if (this.#holds_up) transport.read?.(false);
        this.#enter('open', channel, role, tagged ? 1 : 0, session_id);
        transport.start({
          message: (text, bytes) =>
            bytes ? this.#enter('deliver', channel, text, bytes) : this.#enter('deliver', channel, text),
          close: (reason) => {
            if (this.#channels.delete(channel)) this.#enter('closed', channel, reason);
          },
        });
      },
      call: (method, params, role) => guest.call(method, params, role),
      stats: () => guest.stats(),
      activity: () => guest.activity(),
      inspect: (expression, timeout_ms) => guest.inspect(expression, timeout_ms),
      end: (reason) => guest.end(reason),
    };
  }

  /** Not entered while it is paused; what comes waits. */
  pause(on: boolean): void {
    this.#paused = on;
    if (!on) this.#drain();
  }

  used(): Used {
    const { memory_bytes: whole, pages } = this.#options.image;
    // What lies untouched since its birth, most of its stack, takes no memory.
    if (!this.#over) this.#memory_bytes = this.#vm._getMemory().buffer.byteLength - whole + pages.length;
    return { cpu_ms: Math.round(this.#place?.spent_ms ?? 0), memory_bytes: this.#memory_bytes };
  }

  /** Frees everything; nothing runs inside afterwards. `sound`: it was not given up. */
  dispose(sound = true): void {
    if (this.#over) return;
    this.used();
    // Not within a turn of its own.
    if (sound) setImmediate(this.#options.ended, this.#engine);
    this.#over = true;
    // Its last words tell why it ended; where it flooded, they are too many.
    if (this.#queued_bytes <= LIMITS.unsent_bytes) for (const hear of this.#said) hear();
    this.#timers.clear();
    this.#waiting.clear();
    for (const transport of this.#channels.values()) transport.close('the vault has ended');
    this.#loading?.ended('the vault has ended');
    this.#control.closed('the vault has ended');
    // A VM that was cut off in the middle of a turn may not be sound enough to be freed in order; its memory goes with
    // the WASM instance as soon as nothing refers to it.
    this.#vm = undefined as never;
    this.#engine = undefined as never;
    this.#bridge = undefined as never;
    // No handle outlives its VM: what it leads to may be another's by then.
    this.#lent = undefined;
    this.#strays.clear();
  }

  /** Without the grant no clock of the VM tells more than how long the VM has been there. */
  #clock_ns(clock: number): bigint {
    if (!this.#granted.time) return BigInt(Math.floor(performance.now() - this.#born_at)) * 1_000_000n;
    if (clock === 0) return BigInt(Date.now()) * 1_000_000n;
    // From where the image has its origin: the time since 1970.
    return BigInt(Math.floor((performance.timeOrigin + performance.now()) * 1_000)) * 1_000n;
  }

  #enter(entry: Entry, ...args: Argument[]): void {
    if (this.#over) return;
    if (this.#mayEnter()) {
      this.#run(entry, args);
      return this.#drain();
    }
    if (!this.#waiting.add(entry, args))
      this.#discardLater('more came for it than it takes: it was paused, or had used up its share of the processor');
    if (this.#waiting.are_many && !this.#holds_up) this.#holdUp(true);
  }

  #holdUp(on: boolean): void {
    this.#holds_up = on;
    for (const transport of this.#channels.values()) transport.read?.(!on);
  }

  /** Enters with what waits, as far as it may. */
  #drain(): void {
    while (this.#mayEnter()) {
      const next = this.#waiting.next();
      if (!next) return this.#holds_up ? this.#holdUp(false) : undefined;
      this.#run(next.entry, next.args);
    }
  }

  #mayEnter(): boolean {
    return !this.#over && !this.#inside && !this.#paused && (this.#place?.may() ?? true);
  }

  #run(entry: Entry, args: Argument[]): void {
    const vm = this.#vm;
    this.#takeTurn(() => {
      const handles = args.map((arg) => {
        if (typeof arg === 'number') return vm.newNumber(arg);
        return typeof arg === 'string' ? vm.newString(arg) : vm.newArrayBuffer(arg);
      });
      try {
        vm.callFunction(this.#bridge[entry], vm.undefined, ...handles).dispose();
      } finally {
        for (const handle of handles) handle.dispose();
      }
    });
  }

  #takeTurn(run: () => void): void {
    const { most_ms } = this.#turn;
    this.#inside = true;
    this.#turn.begin(this.#loading?.under_way);
    this.#options.busy(most_ms);
    let failed: string | undefined;
    let full = false;
    try {
      const jobs = () => runJobs(this.#vm, this.#turn, this.#bridge.stray, this.#most_bytes);
      run();
      jobs();
      if (!this.#turn.overran && this.#strays.tell(this.#vm, this.#bridge.stray)) jobs();
      full = isFull(this.#vm, this.#most_bytes);
    } catch (error) {
      // Thrown by the guest outside any call, so that nobody hears of it: out of memory, mostly.
      const escaped = error instanceof WebAssembly.RuntimeError || (error as object).constructor === RangeError;
      failed = `${escaped ? 'an error escaped the VM' : 'its runtime failed'}: ${told(error).message}`;
      full = !escaped && wasFull(this.#vm, this.#most_bytes);
      if (escaped) this.#options.soiled();
    } finally {
      this.#inside = false;
      this.#options.busy(0);
    }
    const { took_ms, overran } = this.#turn;
    this.#place?.ended(took_ms);
    if (overran) failed = `one turn of its code ran for more than ${most_ms} ms`;
    else if (full) return this.#discard(`its memory of ${this.#most_bytes / 2 ** 20} MiB is full`, 'out_of_memory');
    if (failed !== undefined) this.#discard(failed);
  }

  #discard(reason: string, cause: VmCause = 'misbehaved'): void {
    if (this.#over) return;
    this.dispose(false);
    this.#owner?.lost(this.#why ? 'misbehaved' : cause, this.#why ?? reason);
  }

  #post(channel: number, text: string, bytes: ArrayBuffer | undefined): void {
    if (!this.#owner) return;
    // The guest's own bounds are the guest's to remove: these are not.
    if (text.length + (bytes?.byteLength ?? 0) > LIMITS.message_bytes)
      return this.#discardLater('it sent a message beyond all bounds');
    if (channel === LOADED) return this.#loading?.answered(text, this.#queued_bytes > 0);
    if (channel !== 0) {
      const transport = this.#channels.get(channel);
      // Twice what an honest guest has its caller read first.
      if (transport && transport.buffered_bytes > 2 * LIMITS.unsent_bytes)
        return transport.close('the caller does not read what it asked for');
      return transport?.send(text, bytes && [new Uint8Array(bytes)]);
    }
    const size = text.length + (bytes?.byteLength ?? 0);
    this.#queued_bytes += size;
    if (this.#queued_bytes > LIMITS.unsent_bytes) return this.#discardLater('it flooded its control channel');
    const hear = () => {
      if (!this.#said.delete(hear)) return;
      this.#queued_bytes -= size;
      this.#control.deliver(text, bytes && new Uint8Array(bytes));
    };
    this.#said.add(hear);
    setImmediate(hear);
  }

  // Called from within a turn: the VM is let go of when the turn has ended.
  #discardLater(reason: string): void {
    this.#why ??= reason;
    if (this.#owner) Atomics.store(this.#owner.doom, 0, 2);
    setImmediate(() => this.#discard(reason));
  }

  #shut(channel: number): void {
    const transport = this.#channels.get(channel);
    this.#channels.delete(channel);
    transport?.close('closed by the worker');
  }

  /** What takes a while takes of the turn's time. The engine asks only now and then whether it must stop: here each time. */
  #reckon(run: () => Uint8Array | number): JSValueHandle {
    if (this.#turn.stops()) throw new Error('its turn is over');
    const made = run();
    return this.#lend(typeof made === 'number' ? this.#vm.newNumber(made) : this.#vm.newArrayBuffer(made));
  }

  #random(bytes: number): JSValueHandle {
    if (!this.#granted.random) throw new Error('it has no grant for random');
    if (!(bytes > 0 && bytes <= RANDOM_BYTES)) throw new Error(`at most ${RANDOM_BYTES} random bytes at once`);
    return this.#lend(this.#vm.newArrayBuffer(crypto.getRandomValues(new Uint8Array(Math.floor(bytes)))));
  }

  /** What is given back to the guest: what was given before has been taken, so its handle goes. */
  #lend(handle: JSValueHandle): JSValueHandle {
    this.#lent?.dispose();
    this.#lent = handle;
    return handle;
  }
}
