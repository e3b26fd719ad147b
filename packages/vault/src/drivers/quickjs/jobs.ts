/**
 * What a VM does behind its turns' own code: what promises wait for, microtasks, what finalization registries tell. Of these
 * only a microtask and a registry's callback fail for what the worker threw there: that is its own affair, and is logged. All
 * others fail for want of memory alone, and then somebody may wait for ever for what was to be said.
 */
import { JSException, type JSValueHandle, type QuickJS } from 'quickjs-wasi';
import { wasFull } from './image.ts';
import { STRAY } from './strays.ts';
import type { Turn } from './turn.ts';

const JOBS_PER_LOOK = 64;

/**
 * Runs them all. They may be as short as they are many: the clock is looked at between them. `stray` is the guest's. Throws
 * where memory ran out.
 */
export function runJobs(vm: QuickJS, turn: Turn, stray: JSValueHandle, most_bytes: number): void {
  const { qjs_is_job_pending: pending, qjs_execute_pending_job: execute } = vm._getExports();
  for (let run = 1; pending(); run++) {
    if (execute() < 0) uncaught(vm, turn, stray, most_bytes);
    if (turn.overran || (run % JOBS_PER_LOOK === 0 && turn.stops())) return;
  }
}

/** Tells the guest what was thrown: it throws it again where it says that memory ran out. */
function uncaught(vm: QuickJS, turn: Turn, stray: JSValueHandle, most_bytes: number): void {
  if (turn.overran) return;
  const [what, thrown] = [vm.newNumber(STRAY.uncaught), vm.getException()];
  try {
    vm.callFunction(stray, vm.undefined, what, vm.undefined, thrown).dispose();
  } catch (error) {
    // A worker may throw what it likes, also in these words: one that never had all its memory lives on.
    if (!(error instanceof JSException) || wasFull(vm, most_bytes)) throw error;
  } finally {
    what.dispose();
    thrown.dispose();
  }
}
