/** What a VM's `import` finds: the worker's own source, and the modules that were resolved for it. */
import { isBuiltin } from 'node:module';
import { JSException, type QuickJSOptions } from 'quickjs-wasi';
import { atPlace, cannotImport, isPointer, type lookUp } from '../../guest/modules.ts';
import { wrapperOf } from '../../guest/namespace.ts';

export interface Modules {
  source(): string;
  find: ReturnType<typeof lookUp>;
}

/** Errors are thrown without a stack: the engine would show the guest ours, with paths of this machine. */
export function moduleLoader({ source, find }: Modules): NonNullable<QuickJSOptions['moduleLoader']> {
  const words = <T>(run: () => T): T => {
    try {
      return run();
    } catch (error) {
      throw told(error);
    }
  };
  /** Who imported what is none of these last: it is refused next. */
  let importer = 'worker.mjs';
  return {
    normalize: (base, name) =>
      words(() => {
        importer = base;
        if (!isPointer(name)) return name;
        const found = find(name, base);
        return found === 'worker' ? 'worker.mjs' : found.pointer;
      }),
    load: (name) =>
      words(() => {
        if (name === 'worker.mjs') return source();
        if (name === 'wrapped.mjs') return wrapperOf('worker.mjs');
        const found = isPointer(name) ? find(name, name) : 'worker';
        if (found !== 'worker') return found.source;
        const by = isPointer(importer) ? find(importer, importer) : 'worker';
        const line = (by === 'worker' ? source() : by.source)
          .split('\n')
          .findIndex((text) => text.includes(`'${name}'`) || text.includes(`"${name}"`));
        const place = line < 0 ? undefined : `${by === 'worker' ? 'worker.mjs' : by.pointer}:${line + 1}`;
        throw new Error(
          isBuiltin(name)
            ? `a worker is one module here, and ${JSON.stringify(name)} is Node's: lxc and process vaults have it${atPlace(place)}`
            : cannotImport(name, place),
        );
      }),
  };
}

/** An error's name and words for the other side of the bridge, and no stack: that has paths of this machine. */
export function told(error: unknown): Error {
  let words = String(error);
  if (error instanceof Error) words = error instanceof JSException ? `${error.name}: ${error.message}` : error.message;
  const plain = new Error(words.slice(0, 1_000));
  if (error instanceof Error && !(error instanceof JSException)) plain.name = error.name;
  plain.stack = '';
  return plain;
}
