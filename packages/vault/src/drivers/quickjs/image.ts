/**
 * A VM's memory after it has run the guest's script and before it has seen any worker: made once, in the host process,
 * from our own code only. A new VM is a WebAssembly instance (`engines.ts`) into which the pages are copied that are not
 * all zeros: measured four times as fast as running the script's bytecode, and no larger (ADR 0015).
 */
import { CompileFlags, EvalFlags, type JSValueHandle, QuickJS, type QuickJSOptions } from 'quickjs-wasi';
import type { Scripts } from '../../guest/bundle.ts';
import { ANSWER_BYTES, STACK_BYTES } from './limits.ts';

/** What the thread calls in the guest (`guest/vm-entry.ts`). */
export const ENTRIES = ['load', 'deliver', 'open', 'closed', 'fire', 'stray'] as const;
export type Entry = (typeof ENTRIES)[number];
/** What the guest calls in the thread. */
export const HOST_FUNCTIONS = [
  'post',
  'shut',
  'unsent',
  'arm',
  'disarm',
  'random',
  'encode',
  'decode',
  'find',
  'digest',
  'verify',
  'deflate',
  'inflate',
  'checksum',
  'platform',
] as const;
export type HostFunction = (typeof HOST_FUNCTIONS)[number];

export interface VmImage {
  /** The pages, end to end; shared by all threads. */
  pages: Uint8Array;
  /** Where they go: address and length, in their order. */
  runs: readonly (readonly [number, number])[];
  memory_bytes: number;
  stack_pointer: number;
  /** Tokens of the guest's functions. */
  entries: Record<Entry, number>;
  /** Bytecode of what is loaded when a worker first touches it: `guest/vm-platform.ts` and so on. */
  parts: readonly Uint8Array[];
}

/** The machine's. */
const PAGE_BYTES = 4096;
/** What the engine's allocator writes into a free block at most (dlmalloc: four links and an index), generously. */
const NOTES_BYTES = 64;
const EMPTY_PAGE = new Uint8Array(PAGE_BYTES);
/** Bytecode without its source, which nobody asks a function of ours for: a third of the size. */
const BARE = CompileFlags.STRIP_SOURCE;

export interface VmImages {
  /** Without what is loaded when a worker first touches it. */
  bare: VmImage;
  /** With that, for workers that need it as they load. */
  web: VmImage;
}

/** Compiles the guest's scripts, and runs the first; for the second image the platform too. */
export async function makeImages(wasm: WebAssembly.Module, from: Omit<Scripts, 'thread'>): Promise<VmImages> {
  const compiler = await QuickJS.create({ wasm });
  const compile = (script: string, name: string) => compiler.compile(script, name, EvalFlags.TYPE_GLOBAL, BARE);
  const guest = compile(from.guest, 'guest.js');
  const platform = compile(from.platform, 'platform.js');
  const others = (['forms', 'crypto', 'streams', 'console', 'english'] as const).map((name) =>
    compile(from[name], `${name}.js`),
  );
  compiler.dispose();
  const options: QuickJSOptions = {
    wasm,
    maxStackSize: STACK_BYTES,
    interruptHandler: () => false,
    onUnhandledRejection: () => {},
    moduleLoader: { load: () => '' },
  };
  const vm = await QuickJS.create(options);
  const host = vm.newObject();
  for (const name of HOST_FUNCTIONS)
    vm.setProp(
      host,
      name,
      vm.newFunction(name, () => {
        if (name === 'platform') vm.evalBytecode(platform).dispose();
        return vm.undefined;
      }),
    );
  vm.setProp(vm.global, '__host', host);
  vm.evalBytecode(guest).dispose();
  vm.executePendingJobs();
  const bridge = vm.global.getProp('__vm');
  const handles = ENTRIES.map((name): [Entry, JSValueHandle] => [name, bridge.getProp(name)]);
  const entries = Object.fromEntries(
    handles.map(([name, handle]) => [name, vm.exportHandle(handle)]),
  ) as VmImage['entries'];
  vm.evalCode('delete globalThis.__vm').dispose();
  const parts = [platform, ...others].map(copied);
  const take = async () => ({ ...(await pagesOf(vm, options)), entries, parts });
  const bare = await take();
  // To touch one of it loads all of it.
  vm.evalCode('void Response').dispose();
  const web = await take();
  // The same of both, so that an engine may serve either: the smaller has some more behind it.
  return { bare: { ...bare, memory_bytes: web.memory_bytes }, web };
}

/**
 * The pages of a memory that are not all zeros, and where they are. It is looked at page by page, so that what was never
 * touched stays untouched.
 */
export function* writtenPages(memory: Uint8Array): Generator<[at: number, page: Uint8Array]> {
  for (let at = 0; at < memory.length; at += PAGE_BYTES) {
    const page = memory.subarray(at, at + PAGE_BYTES);
    if (Buffer.compare(page, EMPTY_PAGE) !== 0) yield [at, page];
  }
}

async function pagesOf(vm: QuickJS, options: QuickJSOptions): Promise<Omit<VmImage, 'entries' | 'parts'>> {
  vm.runGC();
  const taken = vm.snapshot();
  const { memory, stackPointer: stack_pointer } = taken;
  for (const page of freePages(await QuickJS.restore(taken, options), memory.length))
    memory.fill(0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
  const runs: [number, number][] = [];
  for (const [at] of writtenPages(memory)) {
    const last = runs.at(-1);
    if (last && last[0] + last[1] === at) last[1] += PAGE_BYTES;
    else runs.push([at, PAGE_BYTES]);
  }
  const pages = shared(runs.reduce((sum, [, length]) => sum + length, 0));
  let filled = 0;
  for (const [at, length] of runs) {
    pages.set(memory.subarray(at, at + length), filled);
    filled += length;
  }
  return { pages, runs, memory_bytes: memory.length, stack_pointer };
}

/**
 * The numbers of the pages of a VM's heap in which only what was freed is left: a seventh of what it began with has been
 * the guest's bytecode. It takes whatever there is to have, which is the end of the VM.
 */
function* freePages(vm: QuickJS, memory_bytes: number): Generator<number> {
  const { malloc, free } = vm._getExports() as unknown as Record<'malloc' | 'free', (of: number) => number>;
  for (let bytes = memory_bytes; bytes > 2 * PAGE_BYTES; bytes -= PAGE_BYTES) {
    let at = malloc(bytes);
    // What lies beyond the memory has been added to it just now.
    for (; at > 0 && at + bytes <= memory_bytes; at = malloc(bytes)) {
      // The allocator has its own notes where a free block begins.
      const first = Math.ceil((at + NOTES_BYTES) / PAGE_BYTES);
      for (let page = first; (page + 1) * PAGE_BYTES <= at + bytes; page++) yield page;
    }
    free(at);
  }
}

/** Sets what a VM may allocate. */
export function limitMemory(vm: QuickJS, bytes: number): void {
  vm._getExports().qjs_set_memory_limit(bytes);
}

/** Whether a VM that may allocate `bytes` has ever had them all: its heap never shrinks. */
export const wasFull = (vm: QuickJS, bytes: number) => vm._getMemory().buffer.byteLength >= bytes;

/** Whether it has not even enough left of them for a short answer. */
export function isFull(vm: QuickJS, bytes: number): boolean {
  if (!wasFull(vm, bytes)) return false;
  const tried = vm.newArrayBuffer(new Uint8Array(ANSWER_BYTES));
  const full = !tried.isArrayBuffer;
  tried.dispose();
  return full;
}

const shared = (bytes: number) => new Uint8Array(new SharedArrayBuffer(bytes));
function copied(bytes: Uint8Array): Uint8Array {
  const copy = shared(bytes.length);
  copy.set(bytes);
  return copy;
}
