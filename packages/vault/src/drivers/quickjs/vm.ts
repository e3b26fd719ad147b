/**
 * One QuickJS VM as a vault's inside. Every entry into the VM is bounded in time; a VM that overruns, or that lets a
 * host's error escape, is not entered again.
 */
import { LIMITS, type Setup } from '@hauki/protocol';
import { joinBytes, portTransport, remote, Session, type Transport } from '@hauki/rpc';
import { JSException, type JSValueHandle, QuickJS } from 'quickjs-wasi';
import type { Inside, Outside } from '../../guest/guest.ts';
import { isPointer, lookUp } from '../../guest/modules.ts';
import { GUEST_BOUNDS, serveOutside } from '../../guest/outside.ts';
import type { VmControl } from '../../guest/vm-entry.ts';

export interface VmOptions {
  wasm: WebAssembly.Module;
  /** The guest's script, compiled by the same QuickJS. */
  bytecode: Uint8Array;
  memory_mib: number;
  /** How long one turn inside may take. */
  turn_ms: number;
  /** Told when a turn begins (true) and ends (false), for the watchdog outside this thread. */
  busy(on: boolean): void;
}

/** What a VM has to do with once it is a vault's. */
export interface VmOwner {
  /** Set to 1 from outside when the VM must stop in the middle of its turn. */
  doom: Int32Array;
  /** The VM must be discarded: `reason` is for a person. */
  misbehaved(reason: string): void;
}

/** The handler is asked very often; the clock is looked at every so many times. */
const CLOCK_EVERY = 256;
/** A little above what the guest allows itself. */
const TIMERS = 11_000;
/** Depth of native stack for the VM; deep recursion must end inside it as a RangeError, not in the host. */
const STACK_BYTES = 256 * 1024;

/** Makes a VM with the guest's script run and no worker yet. */
export async function createVm(options: VmOptions): Promise<Vm> {
  const vm = new Vm(options);
  await vm.boot();
  return vm;
}

export class Vm {
  readonly #options: VmOptions;
  #owner: VmOwner = { doom: new Int32Array(1), misbehaved: () => {} };
  #vm!: QuickJS;
  #bridge!: Record<'deliver' | 'open' | 'closed' | 'fire', JSValueHandle>;
  #deadline = Number.POSITIVE_INFINITY;
  #asked = 0;
  #depth = 0;
  #over = false;
  #overran = false;
  #source = '';
  #find = lookUp({});
  #next_channel = 1;
  #queued_bytes = 0;
  readonly #timers = new Map<number, NodeJS.Timeout>();
  readonly #channels = new Map<number, Transport>();
  readonly #control = portTransport((text, bytes) =>
    bytes ? this.#enter('deliver', 0, text, joinBytes(bytes)) : this.#enter('deliver', 0, text),
  );

  constructor(options: VmOptions) {
    this.#options = options;
  }

  async boot(): Promise<void> {
    const { wasm, bytecode, memory_mib } = this.#options;
    this.#vm = await QuickJS.create({
      wasm,
      memoryLimit: memory_mib * 1024 * 1024,
      maxStackSize: STACK_BYTES,
      timezoneOffset: 0,
      interruptHandler: () => this.#interrupted(),
      moduleLoader: {
        normalize: (base, name) => {
          if (!isPointer(name)) return name;
          const found = this.#find(name, base);
          return found === 'worker' ? 'worker.mjs' : found.pointer;
        },
        load: (name) => {
          if (name === 'worker.mjs') return this.#source;
          const found = isPointer(name) ? this.#find(name, name) : 'worker';
          if (found !== 'worker') return found.source;
          throw new Error(`a worker is one module: ${JSON.stringify(name)} cannot be imported here. Bundle it in`);
        },
      },
    });
    const vm = this.#vm;
    using host = vm.newObject();
    const give = (name: string, run: (...args: JSValueHandle[]) => void) => {
      using made = vm.newFunction(name, (...args) => {
        run(...args);
        return vm.undefined;
      });
      vm.setProp(host, name, made);
    };
    give('post', (channel, text, bytes) =>
      this.#post(channel!.toNumber(), text!.toString(), bytes?.isArrayBuffer ? bytes.toArrayBuffer() : undefined),
    );
    give('shut', (channel) => this.#shut(channel!.toNumber()));
    give('arm', (id, delay) => this.#arm(id!.toNumber(), delay!.toNumber()));
    give('disarm', (id) => this.#disarm(id!.toNumber()));
    vm.setProp(vm.global, '__host', host);
    this.#turn(() => vm.evalBytecode(bytecode).dispose());
    using bridge = vm.global.getProp('__vm');
    this.#bridge = {
      deliver: bridge.getProp('deliver'),
      open: bridge.getProp('open'),
      closed: bridge.getProp('closed'),
      fire: bridge.getProp('fire'),
    };
    using _gone = vm.evalCode('delete globalThis.__vm');
  }

  /** Makes a VM that was prepared beforehand a vault's own. False when it did not survive its preparation. */
  own(owner: VmOwner): boolean {
    this.#owner = owner;
    return !this.#over;
  }

  /** The guest in this VM, as a shell wants it. */
  inside(setup: Setup, outside: Outside): Inside {
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
        const { worker, language, kind, load_timeout_ms } = setup;
        return session.call('load', [{ worker, language, kind, load_timeout_ms }], {
          timeout_ms: load_timeout_ms + 1_000,
        }) as Promise<string[]>;
      },
      open: (transport, role, tagged, session_id) => {
        const channel = this.#next_channel++;
        this.#channels.set(channel, transport);
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

  /** Frees everything; nothing runs inside afterwards. */
  dispose(): void {
    if (this.#over) return;
    this.#over = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    for (const transport of this.#channels.values()) transport.close('the vault has ended');
    this.#control.closed('the vault has ended');
    // A VM that was cut off in the middle of a turn may not be sound enough to be freed in order; its memory goes with
    // the WASM instance as soon as nothing refers to it.
    this.#vm = undefined as never;
  }

  #interrupted(): boolean {
    if (++this.#asked % CLOCK_EVERY !== 0) return false;
    if (performance.now() < this.#deadline && Atomics.load(this.#owner.doom, 0) === 0) return false;
    this.#overran = true;
    return true;
  }

  #enter(entry: 'deliver' | 'open' | 'closed' | 'fire', ...args: (number | string | Uint8Array)[]): void {
    if (this.#over) return;
    const vm = this.#vm;
    this.#turn(() => {
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

  #turn(run: () => void): void {
    // Entered from within (a host function that enters again): one turn, one deadline.
    if (this.#depth > 0) return run();
    this.#depth++;
    this.#deadline = performance.now() + this.#options.turn_ms;
    this.#options.busy(true);
    try {
      run();
      this.#vm.executePendingJobs();
    } catch (error) {
      if (error instanceof JSException && !this.#overran) {
        // Thrown by the guest outside any call: out of memory, mostly. The calls that wait will meet their deadline.
        const text = `${error.name}: ${error.message}`;
        error.dispose();
        this.#discard(`its runtime failed: ${text}`);
      } else if (!this.#overran)
        this.#discard(`an error escaped the VM: ${error instanceof Error ? error.message : error}`);
    } finally {
      this.#depth--;
      this.#deadline = Number.POSITIVE_INFINITY;
      this.#options.busy(false);
      if (this.#overran) this.#discard(`one turn of its code ran for more than ${this.#options.turn_ms} ms`);
    }
  }

  #discard(reason: string): void {
    if (this.#over) return;
    this.dispose();
    this.#owner.misbehaved(reason);
  }

  #post(channel: number, text: string, bytes: ArrayBuffer | undefined): void {
    // The guest's own bounds are the guest's to remove: these are not.
    if (text.length + (bytes?.byteLength ?? 0) > LIMITS.message_bytes)
      return this.#discardLater('it sent a message beyond all bounds');
    if (channel !== 0) {
      const transport = this.#channels.get(channel);
      if (transport && transport.buffered_bytes > LIMITS.unsent_bytes)
        return transport.close('the caller does not read what it asked for');
      return transport?.send(text, bytes && [new Uint8Array(bytes)]);
    }
    const size = text.length + (bytes?.byteLength ?? 0);
    this.#queued_bytes += size;
    if (this.#queued_bytes > LIMITS.unsent_bytes) return this.#discardLater('it flooded its control channel');
    setImmediate(() => {
      this.#queued_bytes -= size;
      this.#control.deliver(text, bytes && new Uint8Array(bytes));
    });
  }

  // Called from within a turn: the VM is let go of when the turn has ended.
  #discardLater(reason: string): void {
    this.#owner.doom[0] = 1;
    setImmediate(() => this.#discard(reason));
  }

  #shut(channel: number): void {
    const transport = this.#channels.get(channel);
    this.#channels.delete(channel);
    transport?.close('closed by the worker');
  }

  #arm(id: number, delay_ms: number): void {
    if (this.#timers.size >= TIMERS) return this.#discardLater('it set too many timers');
    clearTimeout(this.#timers.get(id));
    this.#timers.set(
      id,
      setTimeout(
        () => {
          this.#timers.delete(id);
          this.#enter('fire', id);
        },
        Math.max(0, Math.min(Number(delay_ms) || 0, 0x7fffffff)),
      ),
    );
  }

  #disarm(id: number): void {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
  }
}
