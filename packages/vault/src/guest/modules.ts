/**
 * The modules that a worker may import by pointers, as the worker's side looks them up: what the core resolved when the
 * order was made, and nothing else. Pure, so that Node's hooks and the VM's loader share it.
 */
import { parsePointer, type Setup, SourceRejected } from '@hauki/protocol';

const SCHEME = 'gem-pointer:';

export const isPointer = (specifier: string): boolean => specifier.startsWith(SCHEME);

/** What is said of an import that leads nowhere; `place`: where it stands, if that is known. */
export const cannotImport = (name: string, place?: string): string =>
  `a worker is one module: ${JSON.stringify(name)} cannot be imported here. Bundle it in${atPlace(place)}`;

/** A place behind a sentence. */
export const atPlace = (place?: string): string => (place === undefined ? '' : ` (at ${place})`);

/** Whether a source may import pointers: most do not. */
export const namesPointers = (source: string): boolean => source.includes(SCHEME);

/** What an import of a pointer leads to: a module of the snapshot, or the worker's own. */
export type Found = 'worker' | { pointer: string; source: string };

/** Looks up what is imported; throws SourceRejected (stage `import`), naming importer and pointer, for what is not there. */
export function lookUp(setup: Pick<Setup, 'pointer' | 'modules'>): (specifier: string, importer: string) => Found {
  const known = new Map<string, Found>();
  for (const { pointer, source } of setup.modules ?? []) known.set(parsePointer(pointer).name, { pointer, source });
  if (setup.pointer !== undefined) known.set(parsePointer(setup.pointer).name, 'worker');
  return (specifier, importer) => {
    const found = known.get(parsePointer(specifier.split('#')[0]).name);
    if (found) return found;
    throw new SourceRejected({
      stage: 'import',
      reason: `${importer} imports ${specifier}, which was not resolved when the worker was ordered: a pointer must stand literally in its import, and a module of a kernel imports none`,
    });
  };
}
