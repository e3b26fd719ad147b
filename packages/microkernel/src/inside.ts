/**
 * What a module may read of the kernel that it serves in, as documents under `gem-pointer://kernel/`: its status, and
 * what changes, one page after the other. A module needs the grant `meshfs.read gem-pointer://kernel/`, which stands in
 * its version's facts like any other; nothing can be written there.
 *
 * What always holds: a page has the journal's changes in their order and without a gap, so that who remembers the last
 * number it was given hears of each change once; the words of a change are the same as on the mesh's event stream; a
 * page says whether the vault that asks serves, so that one in staging, or one that was left, keeps still.
 */
import {
  BadInput,
  type Grants,
  type JournalEntry,
  type ModuleState,
  PointerUnknown,
  parsePointer,
} from '@hauki/protocol';
import type { Kernel } from './kernel.ts';
import { lineOf, onlineOf } from './lines.ts';

/** A page is given after so long, with whatever there is. */
const PAGE_MS = 10_000;
/** Changes on one page. */
const PAGE = 32;
/** Asked so often whether the one who asks serves now: that is no entry of its own. */
const LOOK_MS = 250;

const SPACE = 'kernel';

/** One change of the kernel's journal. */
export interface KernelEvent {
  seq: number;
  deed: JournalEntry['deed'];
  module: string;
  version: number | null;
  by: string;
  /** What is announced of it, in the notes' words; null where nothing is. */
  line: string | null;
}

/** `gem-pointer://kernel/events/<after>`, as JSON. */
export interface KernelPage {
  kernel: string;
  /** Another one after each start of the kernel. */
  boot: number;
  /** The announcement of a kernel that has started. */
  online: string;
  /** What the vault that asks serves as, and may do; null in staging, and when another version took its place. */
  self: { module: string; version: number; grants: Grants } | null;
  /** The last change there is. */
  seq: number;
  events: KernelEvent[];
}

/** `gem-pointer://kernel/status`, as JSON. */
export interface KernelSummary {
  kernel: string;
  up_s: number;
  modules: {
    module: string;
    version: number | null;
    state: ModuleState;
    prefix: string;
    requests: number;
    error_rate: number;
    p99_ms: number | null;
  }[];
}

const ANNOUNCED: Record<string, 'evolved' | 'removed'> = {
  evolve: 'evolved',
  operate: 'evolved',
  rollback: 'evolved',
  abort: 'evolved',
  remove: 'removed',
};

function eventOf(kernel: string, { seq, deed, module, version, by }: JournalEntry): KernelEvent {
  const what = ANNOUNCED[deed];
  return { seq, deed, module, version, by, line: what ? lineOf(kernel, { what, module }) : null };
}

export const isInside = (pointer: string): boolean => parsePointer(pointer).space === SPACE;

/** Answers a vault's reading. Rejects with PointerUnknown or BadInput. */
export async function readInside(kernel: Kernel, worker: string, given: string) {
  const { text: pointer, segments } = parsePointer(given);
  const answer = (value: object) => ({ pointer, content: JSON.stringify(value), media_type: 'application/json' });
  const [what, after, ...rest] = segments;
  if (what === 'status' && after === undefined) return answer(summaryOf(kernel));
  if (what !== 'events' || after === undefined || rest.length > 0) throw new PointerUnknown({ pointer });
  if (!/^(?:\d{1,12}|now)$/.test(after))
    throw new BadInput({ what: pointer, why: 'it ends with the number of the last change that is known, or with now' });
  return answer(await pageAfter(kernel, worker, after === 'now' ? undefined : Number(after)));
}

function summaryOf(kernel: Kernel): KernelSummary {
  const modules = kernel.modules().map(({ module, version, state, prefix, live }) => {
    const { requests = 0, error_rate = 0, p99_ms = null } = live.find((one) => one.version === version) ?? {};
    return { module, version, state, prefix, requests, error_rate, p99_ms };
  });
  return { kernel: kernel.name, up_s: Math.floor((Date.now() - kernel.started_at) / 1000), modules };
}

/** Resolves at the next announcement, or after `ms`. */
function changed(kernel: Kernel, ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const unlisten = kernel.onChange(() => resolve());
  const timer = setTimeout(resolve, ms).unref();
  return promise.finally(() => {
    clearTimeout(timer);
    unlisten();
  });
}

/** Waits until there is a change behind `after`, or the vault that asks serves no longer or at last. */
async function pageAfter(kernel: Kernel, worker: string, after: number | undefined): Promise<KernelPage> {
  const { journal } = kernel;
  const began = performance.now();
  const before = kernel.serving(worker);
  // Who asks for the present has no page to wait for.
  while (after !== undefined && journal.last <= after && performance.now() - began < PAGE_MS) {
    await changed(kernel, LOOK_MS);
    if (kernel.serving(worker) !== before) break;
  }
  const events = after === undefined ? [] : await journal.after(after, PAGE);
  const instance = kernel.serving(worker);
  const { module, version, grants } = instance?.spec ?? {};
  return {
    kernel: kernel.name,
    boot: kernel.started_at,
    online: onlineOf(kernel.name),
    self: instance ? { module: module!, version: version!, grants: grants! } : null,
    seq: journal.last,
    events: events.map((entry) => eventOf(kernel.name, entry)),
  };
}
