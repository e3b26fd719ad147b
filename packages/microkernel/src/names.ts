/**
 * Names and paths: which module a request is for. Pure, and the only place that decides it.
 *
 * What always holds: a module's name is read from the raw, undecoded path, byte for byte; nothing is decoded, folded or
 * normalised before the decision, so that no spelling (encoded slashes and dots, double slashes, case, Unicode, `..`,
 * absolute form) leads to another module or to the kernel's own routes than the one it spells.
 */
import { BadInput, type Language } from '@hauki/protocol';

export const PLUGINS = '/api/plugins/';

/** What the kernel serves itself; no alias may lie over it. */
const OWN = ['/api/status', '/api/evolve', '/api/evolve_plugin', '/api/modules', '/api/history', '/docs', '/health'];
const MODULE = /^[a-z][a-z0-9_]{0,47}$/;
const ENDINGS: Record<string, Language> = {
  js: 'javascript',
  mjs: 'javascript',
  ts: 'typescript',
  mts: 'typescript',
};

export type Target =
  /** `path` begins with `/` and is the module's to read; `query` is empty or begins with `?`. */
  | { kind: 'plugin'; module: string; path: string; query: string }
  | { kind: 'own'; path: string; query: string }
  | { kind: 'refused'; why: string };

const refused = (why: string): Target => ({ kind: 'refused', why });

/** Whether a segment is `.` or `..`, in any spelling. */
const DOTS = /^(?:\.|%2e){1,2}$/i;

/**
 * Reads a request's target as it stands in the request line. `aliases`: absolute prefixes that end with `/`, and the
 * modules that they were granted to; such a module gets the whole path.
 */
export function readTarget(raw: string, aliases: ReadonlyMap<string, string> = new Map()): Target {
  // RFC 9112, 3.2.2: a server takes the absolute form too.
  const absolute = /^https?:\/\/[^/?#]*/i.exec(raw);
  const target = absolute ? raw.slice(absolute[0].length) || '/' : raw;
  if (!target.startsWith('/')) return refused('the target is not a path');
  if (!/^[\x21-\x7e]*$/.test(target) || target.includes('\\') || target.includes('#'))
    return refused('the target has characters that must be percent-encoded');
  const mark = target.indexOf('?');
  const path = mark < 0 ? target : target.slice(0, mark);
  const query = mark < 0 ? '' : target.slice(mark);
  if (/%(?![0-9a-f]{2})|%00/i.test(path)) return refused('the path has a percent sign that encodes nothing');
  const segments = path.split('/');
  if (segments.some((segment) => DOTS.test(segment))) return refused('the path has a segment . or ..');
  if (path.startsWith(PLUGINS)) {
    const end = path.indexOf('/', PLUGINS.length);
    const module = path.slice(PLUGINS.length, end < 0 ? undefined : end);
    if (!MODULE.test(module)) return { kind: 'own', path, query };
    return { kind: 'plugin', module, path: end < 0 ? '/' : path.slice(end), query };
  }
  for (const [prefix, module] of aliases)
    if (path.startsWith(prefix) || path === prefix.slice(0, -1)) return { kind: 'plugin', module, path, query };
  return { kind: 'own', path, query };
}

/** The prefix of a module, without a `/` at its end. */
export const prefixOf = (module: string): string => `${PLUGINS}${module}`;

/**
 * The module and the language that an evolve's `target_module` names: `admin_tools.py`, or `admin_tools` where the
 * language is given beside it. Throws BadInput.
 */
export function readModule(target_module: unknown, language?: Language): { module: string; language: Language } {
  if (typeof target_module !== 'string')
    throw new BadInput({ what: 'target_module', why: 'it must be a text such as data_scraper.ts' });
  const [, name, ending] = /^(.*?)(?:\.([a-z]+))?$/s.exec(target_module)!;
  if (!MODULE.test(name!))
    throw new BadInput({
      what: 'target_module',
      why: `${JSON.stringify(target_module.slice(0, 100))} is no module's name: small letters, digits and _, a letter first, at most 48`,
    });
  const named = ending === undefined ? undefined : ENDINGS[ending];
  if (ending !== undefined && !named)
    throw new BadInput({ what: 'target_module', why: `.${ending} is none of ${Object.keys(ENDINGS).join(', ')}` });
  if (language && named && language !== named)
    throw new BadInput({ what: 'language', why: `${target_module} is ${named}, not ${language}` });
  return { module: name!, language: language ?? named ?? 'javascript' };
}

/** Checks an alias that somebody wants for a module. Throws BadInput; whether it is free is not asked here. */
export function checkAlias(alias: string): string {
  if (!/^(?:\/[a-z0-9_-]{1,64}){1,8}\/$/.test(alias))
    throw new BadInput({ what: 'alias', why: `${JSON.stringify(alias.slice(0, 200))} is not like /api/v2/meshfs/` });
  const over = [...OWN, PLUGINS.slice(0, -1)].find((own) => `${own}/`.startsWith(alias) || alias.startsWith(`${own}/`));
  if (over) throw new BadInput({ what: 'alias', why: `${alias} lies over the kernel's own ${over}` });
  return alias;
}

/** Whether two aliases lie over each other. */
export const aliasesMeet = (a: string, b: string): boolean => a.startsWith(b) || b.startsWith(a);
