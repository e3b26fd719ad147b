/**
 * Request targets: which module of a kernel a request is for. Pure, and the only place that decides it, for kernels and
 * for the core's gateway.
 *
 * What always holds: a module's name is read from the raw, undecoded path, byte for byte; nothing is decoded, folded or
 * normalised before the decision, so that no spelling (encoded slashes and dots, double slashes, case, Unicode, `..`,
 * absolute form) leads to another module or to the kernel's own routes than the one it spells.
 */
export const PLUGINS = '/api/plugins/';
/** Where a core takes kernels' links. */
export const KERNEL_LINK = '/api/v2/kernel/link';

/** What a module may be called. */
export const MODULE_NAME = /^[a-z][a-z0-9_]{0,47}$/;

export type Target =
  /** `path` begins with `/` and is the module's to read; `query` is empty or begins with `?`. */
  | { kind: 'plugin'; module: string; path: string; query: string }
  | { kind: 'own'; path: string; query: string }
  | { kind: 'refused'; why: string };

const refused = (why: string): Target => ({ kind: 'refused', why });

/** A segment `.` or `..`, in any spelling, of a path that begins with `/`. */
const DOTS = /\/(?:\.|%2e){1,2}(?![^/])/i;

const NO_ALIASES: ReadonlyMap<string, string> = new Map();

/**
 * Reads a request's target as it stands in the request line. `aliases`: absolute prefixes that end with `/`, and the
 * modules that they were granted to; such a module gets the whole path.
 */
export function readTarget(raw: string, aliases: ReadonlyMap<string, string> = NO_ALIASES): Target {
  // RFC 9112, 3.2.2: a server takes the absolute form too.
  const absolute = raw.startsWith('/') ? null : /^https?:\/\/[^/?#]*/i.exec(raw);
  const target = absolute ? raw.slice(absolute[0].length) || '/' : raw;
  if (!target.startsWith('/')) return refused('the target is not a path');
  if (/[^\x21-\x7e]|[\\#]/.test(target)) return refused('the target has characters that must be percent-encoded');
  const mark = target.indexOf('?');
  const path = mark < 0 ? target : target.slice(0, mark);
  const query = mark < 0 ? '' : target.slice(mark);
  if (path.includes('%')) {
    if (path.includes('%00')) return refused('the path has a null character (%00)');
    if (/%(?![0-9a-f]{2})/i.test(path)) return refused('the path has a percent sign that encodes nothing');
  }
  if (DOTS.test(path)) return refused('the path has a segment . or ..');
  if (path.startsWith(PLUGINS)) {
    const end = path.indexOf('/', PLUGINS.length);
    const module = path.slice(PLUGINS.length, end < 0 ? undefined : end);
    if (!MODULE_NAME.test(module)) return { kind: 'own', path, query };
    return { kind: 'plugin', module, path: end < 0 ? '/' : path.slice(end), query };
  }
  for (const [prefix, module] of aliases)
    if (path.startsWith(prefix) || path === prefix.slice(0, -1)) return { kind: 'plugin', module, path, query };
  return { kind: 'own', path, query };
}

/** Whether it is a route as modules name theirs: `GET /users/:id`, `* /*`. None can lie outside the module's prefix. */
export function isRoute(text: string): boolean {
  const [, path] = /^(?:\*|(?!CONNECT )[A-Z]{1,16}) (\/[^\s\\]{0,199})$/.exec(text) ?? [];
  return path !== undefined && !DOTS.test(path);
}

/** The prefix of a module, without a `/` at its end. */
export const prefixOf = (module: string): string => `${PLUGINS}${module}`;
