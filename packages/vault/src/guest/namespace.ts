/**
 * A module's namespace, also of one that exports `then`: `import()` takes that for a promise, calls it, and waits for
 * good. Imported by a module of ours, it comes as one of that module's values, at which nobody looks so.
 */
import { SourceRejected } from '@hauki/protocol';

/** A module that exports the namespace of another as `worker`. */
export const wrapperOf = (specifier: string): string =>
  `import * as worker from ${JSON.stringify(specifier)}; export { worker };`;

/** Whether a source may export `then`, by its own name or another module's; wrong only on the safe side. */
export const mayExportThen = (source: string): boolean => /(?<!\.\s*)\bthen\b|\\[ux]|\bexport\s*\*/.test(source);

/** Whether a source may ask `import.meta` something. */
export const namesMeta = (source: string): boolean => /\bimport\s*\.\s*meta\b/.test(source);

/** The namespace out of a wrapper. Throws SourceRejected for one that nobody can await. */
export function unwrapped({ worker }: { worker: Record<string, unknown> }): Record<string, unknown> {
  if (typeof worker.then !== 'function') return worker;
  throw new SourceRejected({
    stage: 'exports',
    reason:
      'it exports a function "then", so that whoever awaits the module, or the worker, takes it for a promise. Name it otherwise',
  });
}
