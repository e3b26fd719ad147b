/**
 * Instances of the engine's WebAssembly, for one VM after the other of the same thread, and so of the same owner. V8 counts
 * for each instance what the whole module takes, 1.3 MB, as if none were shared: a thread that made one for each VM stopped
 * for every second dozen of them to collect all it has (ADR 0029).
 *
 * What always holds: an instance that is handed out is as a new one in all that its code can tell. That is its memory, all
 * zeros but for what the image brings, and its stack pointer: it has no other global that changes, and nothing sets its
 * table. One whose memory grew, or whose VM was cut off within a turn, is not kept.
 */
import { QuickJS, type QuickJSOptions } from 'quickjs-wasi';
import { type VmImage, writtenPages } from './image.ts';
import { SPARES } from './limits.ts';

/** What is a VM's own. `clock_ns`: what one of WASI's clocks says. */
export interface VmPowers extends Omit<QuickJSOptions, 'wasm' | 'wasi'> {
  clock_ns(clock: number): bigint;
}

/** What the library's class keeps to itself; its version is pinned, and a test compares what comes of it. */
interface Blank {
  new (wasm: WebAssembly.Module): QuickJS;
  applyLimits(vm: QuickJS, options: Omit<QuickJSOptions, 'wasm' | 'wasi'>): void;
}
const Library = QuickJS as unknown as Blank;
interface Parts {
  module: WebAssembly.Module;
  instance: WebAssembly.Instance;
  exports: WebAssembly.Exports;
}

const WASM_PAGE_BYTES = 65_536;
/** Nothing of a VM yet: an image brings it. */
const NOTHING = { memory: new Uint8Array(0), stackPointer: 0, runtimePtr: 0, contextPtr: 0, extensions: [] };
/** WASI's "not supported". */
const NOT_HERE = () => 52;

export class Engine {
  #vm!: QuickJS;
  #clock_ns: VmPowers['clock_ns'] = () => 0n;
  /** What it began with. */
  readonly #memory_bytes: number;

  private constructor(memory_bytes: number) {
    this.#memory_bytes = memory_bytes;
  }

  /** A new instance with so many bytes of memory. */
  static async create(wasm: WebAssembly.Module, memory_bytes: number): Promise<Engine> {
    const engine = new Engine(memory_bytes);
    engine.#vm = await QuickJS.restore(NOTHING, {
      wasm,
      wasi: (memory) => ({
        clock_time_get: (clock, _precision, at) => {
          new DataView(memory.buffer).setBigUint64(at, engine.#clock_ns(clock), true);
          return 0;
        },
        // Nothing in the VM may ask for these; what the engine itself prints is nobody's.
        random_get: NOT_HERE,
        fd_write: NOT_HERE,
      }),
    });
    const memory = engine.#vm._getMemory();
    memory.grow((memory_bytes - memory.buffer.byteLength) / WASM_PAGE_BYTES);
    engine.clear();
    return engine;
  }

  get hasGrown(): boolean {
    return this.#vm._getMemory().buffer.byteLength !== this.#memory_bytes;
  }

  /** A VM as the image has it. Its host functions are for the caller to register. */
  begin(image: VmImage, { clock_ns, ...options }: VmPowers): QuickJS {
    const vm = this.#vm;
    this.#clock_ns = clock_ns;
    const into = new Uint8Array(vm._getMemory().buffer);
    let from = 0;
    for (const [at, length] of image.runs) {
      into.set(image.pages.subarray(from, from + length), at);
      from += length;
    }
    (vm._getExports() as unknown as { __stack_pointer: WebAssembly.Global }).__stack_pointer.value =
      image.stack_pointer;
    Library.applyLimits(vm, options);
    return vm;
  }

  /** Forgets the VM that it served. Nothing of that may be used any more, its handles neither. */
  clear(): void {
    const vm = this.#vm;
    const { module, instance, exports } = vm as unknown as Parts;
    Object.assign(vm, new Library(module), { instance, exports });
    this.#clock_ns = () => 0n;
    for (const [, page] of writtenPages(new Uint8Array(vm._getMemory().buffer))) page.fill(0);
  }
}

export class Engines {
  readonly #wasm: WebAssembly.Module;
  readonly #memory_bytes: number;
  readonly #free: Engine[] = [];

  /** `memory_bytes`: what all images have. */
  constructor(wasm: WebAssembly.Module, memory_bytes: number) {
    this.#wasm = wasm;
    this.#memory_bytes = memory_bytes;
  }

  /** One that served before, if there is such a one. */
  async take(): Promise<Engine> {
    return this.#free.pop() ?? Engine.create(this.#wasm, this.#memory_bytes);
  }

  /** Its VM has ended and is not entered again. */
  give(engine: Engine): void {
    if (this.#free.length >= SPARES || engine.hasGrown) return;
    engine.clear();
    this.#free.push(engine);
  }
}
