/** Reads and writes URLs (URL standard, section 4), in the VM itself: a stranger's URL is nothing for the host. */
import { C0, encodeSet, parseHost } from './url-host.ts';

export interface Parts {
  scheme: string;
  username: string;
  password: string;
  host: string | null;
  port: number | null;
  /** A text where the path is opaque. */
  path: string[] | string;
  query: string | null;
  fragment: string | null;
}

export const PORTS: Record<string, number | null> = { ftp: 21, file: null, http: 80, https: 443, ws: 80, wss: 443 };
export const isSpecial = (scheme: string) => Object.hasOwn(PORTS, scheme);

// What may stand there as it is: all else is percent-encoded.
const FRAGMENT = /[^!#-;=?-_a-~]/gu;
const QUERY = /[^!$-;=?-~]/gu;
const SPECIAL_QUERY = /[^!$-&(-;=?-~]/gu;
const PATH = /[^!$-;=@-\]_a-z|~]/gu;
export const USERINFO = /[^!$-.0-9A-Z_a-z~]/gu;

const DRIVE = /^[A-Za-z][:|]$/;
const STARTS_WITH_DRIVE = /^[A-Za-z][:|](?:$|[/\\?#])/;

export const failure = (): never => {
  throw undefined;
};

function shorten(url: Parts): void {
  const path = url.path as string[];
  if (url.scheme === 'file' && path.length === 1 && /^[A-Za-z]:$/.test(path[0]!)) return;
  path.pop();
}

export function setFragment(url: Parts, text: string): void {
  url.fragment = encodeSet(text, FRAGMENT);
}

export function setQuery(url: Parts, text: string): void {
  url.query = encodeSet(text, isSpecial(url.scheme) ? SPECIAL_QUERY : QUERY);
}

/** What begins with `?` or `#`, or is nothing. */
function tail(url: Parts, text: string): void {
  const hash = text.indexOf('#');
  if (hash >= 0) setFragment(url, text.slice(hash + 1));
  const rest = hash >= 0 ? text.slice(0, hash) : text;
  if (rest.startsWith('?')) setQuery(url, rest.slice(1));
}

/** The segments of a path, without its first slash. */
export function segments(url: Parts, text: string): void {
  const path = url.path as string[];
  const pieces = text.split(isSpecial(url.scheme) ? /[/\\]/ : '/');
  pieces.forEach((piece, i) => {
    const last = i === pieces.length - 1;
    let segment = encodeSet(piece, PATH);
    const dots = segment.replace(/%2e/gi, '.');
    if (dots === '..') {
      shorten(url);
      if (last) path.push('');
    } else if (dots === '.') {
      if (last) path.push('');
    } else {
      if (url.scheme === 'file' && path.length === 0 && DRIVE.test(segment)) segment = `${segment[0]}:`;
      path.push(segment);
    }
  });
}

function path(url: Parts, text: string): void {
  const end = text.search(/[?#]/);
  segments(url, end < 0 ? text : text.slice(0, end));
  if (end >= 0) tail(url, text.slice(end));
}

/** What follows an authority. */
function pathStart(url: Parts, text: string): void {
  const special = isSpecial(url.scheme);
  if (special) return path(url, /^[/\\]/.test(text) ? text.slice(1) : text);
  if (text === '' || /^[?#]/.test(text)) return tail(url, text);
  path(url, text.startsWith('/') ? text.slice(1) : text);
}

export function setPort(url: Parts, digits: string): void {
  if (!/^\d*$/.test(digits)) failure();
  if (digits === '') return;
  const port = Number(digits);
  if (port > 65_535) failure();
  url.port = PORTS[url.scheme] === port ? null : port;
}

/** Where a host ends and its port begins: the first colon outside of brackets; -1 for none. */
export function colonIn(text: string): number {
  const bracket = text.startsWith('[') ? text.indexOf(']') : 0;
  return bracket < 0 ? -1 : text.indexOf(':', bracket);
}

function authority(url: Parts, text: string): void {
  const special = isSpecial(url.scheme);
  const end = text.search(special ? /[/\\?#]/ : /[/?#]/);
  let named = end < 0 ? text : text.slice(0, end);
  const at = named.lastIndexOf('@');
  if (at >= 0) {
    const given = named.slice(0, at);
    const colon = given.indexOf(':');
    url.username = encodeSet(colon < 0 ? given : given.slice(0, colon), USERINFO);
    url.password = colon < 0 ? '' : encodeSet(given.slice(colon + 1), USERINFO);
    named = named.slice(at + 1);
    if (named === '') failure();
  }
  const colon = colonIn(named);
  const host = colon < 0 ? named : named.slice(0, colon);
  if (host === '' && (special || colon >= 0)) failure();
  url.host = host === '' ? '' : (parseHost(host, special) ?? failure());
  if (colon >= 0) setPort(url, named.slice(colon + 1));
  pathStart(url, end < 0 ? '' : text.slice(end));
}

function file(url: Parts, text: string, base: Parts | undefined): void {
  url.host = '';
  const from = base?.scheme === 'file' ? base : undefined;
  if (/^[/\\]/.test(text)) {
    if (/^.[/\\]/.test(text)) {
      const rest = text.slice(2);
      const end = rest.search(/[/\\?#]/);
      const named = end < 0 ? rest : rest.slice(0, end);
      if (DRIVE.test(named)) return path(url, rest);
      if (named !== '') {
        const host = parseHost(named, true) ?? failure();
        url.host = host === 'localhost' ? '' : host;
      }
      return pathStart(url, end < 0 ? '' : rest.slice(end));
    }
    if (from) {
      url.host = from.host;
      if (!STARTS_WITH_DRIVE.test(text.slice(1)) && /^[A-Za-z]:$/.test(from.path[0] ?? ''))
        (url.path as string[]).push(from.path[0]!);
    }
    return path(url, text.slice(1));
  }
  if (!from) return path(url, text);
  url.host = from.host;
  url.path = [...from.path];
  url.query = from.query;
  if (text === '') return;
  if (text.startsWith('#')) return setFragment(url, text.slice(1));
  url.query = null;
  if (text.startsWith('?')) return tail(url, text);
  if (STARTS_WITH_DRIVE.test(text)) url.path = [];
  else shorten(url);
  path(url, text);
}

function relative(url: Parts, text: string, base: Parts): void {
  const slash = isSpecial(url.scheme) ? /^[/\\]/ : /^\//;
  if (slash.test(text) && slash.test(text.slice(1)))
    return authority(url, isSpecial(url.scheme) ? text.replace(/^[/\\]+/, '') : text.slice(2));
  Object.assign(url, { username: base.username, password: base.password, host: base.host, port: base.port });
  if (slash.test(text)) return path(url, text.slice(1));
  url.path = [...base.path];
  url.query = base.query;
  if (text === '') return;
  if (text.startsWith('#')) return setFragment(url, text.slice(1));
  url.query = null;
  if (text.startsWith('?')) return tail(url, text);
  shorten(url);
  path(url, text);
}

function opaque(url: Parts, text: string): void {
  const end = text.search(/[?#]/);
  const body = encodeSet(end < 0 ? text : text.slice(0, end), C0);
  url.path = end < 0 ? body : body.replace(/ $/, '%20');
  if (end >= 0) tail(url, text.slice(end));
}

/** Throws undefined for what is no URL. */
export function parse(given: string, base?: Parts): Parts {
  const text = given.replace(/^[^!-\uffff]+|[^!-\uffff]+$/g, '').replace(/[\t\n\r]/g, '');
  const named = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(text);
  const scheme = named ? named[1]!.toLowerCase() : (base?.scheme ?? '');
  const url: Parts = {
    scheme,
    username: '',
    password: '',
    host: null,
    port: null,
    path: [],
    query: null,
    fragment: null,
  };
  if (named) {
    const rest = text.slice(named[0].length);
    if (scheme === 'file') file(url, rest, base);
    else if (isSpecial(scheme)) {
      if (base?.scheme === scheme && !rest.startsWith('//')) relative(url, rest, base);
      else authority(url, rest.replace(/^[/\\]+/, ''));
    } else if (rest.startsWith('//')) authority(url, rest.slice(2));
    else if (rest.startsWith('/')) path(url, rest.slice(1));
    else opaque(url, rest);
    return url;
  }
  if (!base) return failure();
  if (typeof base.path === 'string') {
    if (!text.startsWith('#')) failure();
    Object.assign(url, base);
    setFragment(url, text.slice(1));
  } else if (scheme === 'file') file(url, text, base);
  else relative(url, text, base);
  return url;
}

export const pathOf = ({ path }: Parts) =>
  typeof path === 'string' ? path : path.map((segment) => `/${segment}`).join('');

export function write(url: Parts): string {
  let text = `${url.scheme}:`;
  if (url.host !== null) {
    text += '//';
    if (url.username !== '' || url.password !== '')
      text += `${url.username}${url.password === '' ? '' : `:${url.password}`}@`;
    text += url.host + (url.port === null ? '' : `:${url.port}`);
  } else if (typeof url.path !== 'string' && url.path.length > 1 && url.path[0] === '') text += '/.';
  text += pathOf(url);
  if (url.query !== null) text += `?${url.query}`;
  return url.fragment === null ? text : `${text}#${url.fragment}`;
}
