/**
 * Imports in a Node guest: hooks that give the worker's own text, and the modules of the snapshot that it names by
 * pointers, to Node's own loader. No file is read and nothing is fetched for them. What is no pointer goes Node's own way;
 * a module that came from a pointer has nothing else beside it but Node's own modules.
 */
import { isBuiltin, registerHooks } from 'node:module';
import { type PointerModule, type Setup, SourceRejected } from '@hauki/protocol';
import { cannotImport, isPointer, lookUp } from './modules.ts';
import { stripTypes, withPlace } from './typescript.ts';

/** Node's loader knows modules by URLs: non-ASCII characters are escaped there. */
const urlOf = (pointer: string): string => new URL(pointer).href;

/**
 * From here on an import of `url` finds this text, once: Node reads a module in four steps, each by a thread of its pool,
 * for which a worker that has just been given would wait.
 */
export function hookText(url: string, text: string): void {
  const hooks = registerHooks({
    resolve: (specifier, context, next) =>
      specifier === url ? { url, format: 'module', shortCircuit: true } : next(specifier, context),
    load(asked, context, next) {
      if (asked !== url) return next(asked, context);
      hooks.deregister();
      return { format: 'module', source: text, shortCircuit: true };
    },
  });
}

/** From here on imports find the modules of `setup`; `worker_url` is where the worker's own one is. */
export function hookModules(setup: Pick<Setup, 'pointer' | 'modules'>, worker_url: string): void {
  const find = lookUp(setup);
  const sources = new Map((setup.modules ?? []).map((module) => [urlOf(module.pointer), module]));
  registerHooks({
    resolve(specifier, context, next) {
      const { parentURL: parent = '' } = context;
      const importer = sources.get(parent)?.pointer ?? parent.slice(parent.lastIndexOf('/') + 1);
      if (isPointer(specifier)) {
        const found = find(specifier, importer);
        const url = found === 'worker' ? worker_url : urlOf(found.pointer);
        return { url, format: 'module', shortCircuit: true };
      }
      if (isPointer(parent) && !isBuiltin(specifier))
        throw new SourceRejected({
          stage: 'import',
          reason: `${importer} imports ${JSON.stringify(specifier)}: a module in MeshFS imports pointers and Node's own modules. Bundle the rest in`,
        });
      return next(specifier, context);
    },
    load(url, context, next) {
      const module = sources.get(url);
      if (!module) return next(url, context);
      const { source, language, pointer } = module;
      const text = language === 'typescript' ? stripTypes(source, pointer) : source;
      return { format: 'module', source: text, shortCircuit: true };
    },
  });
}

/** An error of loading, with the place that Node's own SyntaxError does not tell: the first module that does not parse. */
export function placed(
  error: unknown,
  source: string,
  language: string,
  modules: readonly PointerModule[] = [],
): unknown {
  for (const one of [{ source, language, pointer: undefined }, ...modules]) {
    const found = withPlace(error, one.source, one.pointer, one.language);
    if (found !== error) return found;
  }
  return NOWHERE.test(String((error as { code?: unknown } | null)?.code)) ? nowhere(error, source) : error;
}

const NOWHERE = /^ERR_(?:MODULE_NOT_FOUND|UNSUPPORTED_ESM_URL_SCHEME)$/;
const IMPORTS = /\b(?:from|import)\s*\(?\s*(['"])([^'"\n]+)\1/g;

/** An import that leads nowhere in the words of quickjs: Node's own speak of folders and loaders, and tell no line. */
function nowhere(error: unknown, source: string): unknown {
  for (const { 2: name, index } of source.matchAll(IMPORTS)) {
    if (isPointer(name!) || isBuiltin(name!) || name!.startsWith('data:')) continue;
    const line = source.slice(0, index).split('\n').length;
    return new SourceRejected({ stage: 'load', reason: `Error: ${cannotImport(name!, `worker.mjs:${line}`)}` });
  }
  return error;
}
