/** URL and URLSearchParams (URL standard). Texts are parsed in the VM itself: a stranger's URL is nothing for the host. */
import { C0, encodeSet, parseHost } from './url-host.ts';
import { URLSearchParams } from './url-search.ts';

export { URLSearchParams };

interface Parts {
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

const PORTS: Record<string, number | null> = { ftp: 21, file: null, http: 80, https: 443, ws: 80, wss: 443 };
const isSpecial = (scheme: string) => Object.hasOwn(PORTS, scheme);

// What may stand there as it is: all else is percent-encoded.
const FRAGMENT = /[^!#-;=?-_a-~]/gu;
const QUERY = /[^!$-;=?-~]/gu;
const SPECIAL_QUERY = /[^!$-&(-;=?-~]/gu;
const PATH = /[^!$-;=@-\]_a-z|~]/gu;
const USERINFO = /[^!$-.0-9A-Z_a-z~]/gu;

const DRIVE = /^[A-Za-z][:|]$/;
const STARTS_WITH_DRIVE = /^[A-Za-z][:|](?:$|[/\\?#])/;

const failure = (): never => {
  throw undefined;
};

function shorten(url: Parts): void {
  const path = url.path as string[];
  if (url.scheme === 'file' && path.length === 1 && /^[A-Za-z]:$/.test(path[0]!)) return;
  path.pop();
}

function setFragment(url: Parts, text: string): void {
  url.fragment = encodeSet(text, FRAGMENT);
}

function setQuery(url: Parts, text: string): void {
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
function segments(url: Parts, text: string): void {
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

function setPort(url: Parts, digits: string): void {
  if (!/^\d*$/.test(digits)) failure();
  if (digits === '') return;
  const port = Number(digits);
  if (port > 65_535) failure();
  url.port = PORTS[url.scheme] === port ? null : port;
}

/** Where a host ends and its port begins: the first colon outside of brackets; -1 for none. */
function colonIn(text: string): number {
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

/** Throws for what is no URL. */
function parse(given: string, base?: Parts): Parts {
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

const pathOf = ({ path }: Parts) => (typeof path === 'string' ? path : path.map((segment) => `/${segment}`).join(''));

function write(url: Parts): string {
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

const usv = (value: unknown) => (String(value) as string & { toWellFormed(): string }).toWellFormed();

export class URL {
  #url: Parts;
  #params: URLSearchParams | undefined;

  constructor(given: unknown, base?: unknown) {
    try {
      this.#url = parse(usv(given), base === undefined ? undefined : parse(usv(base)));
    } catch (error) {
      if (error !== undefined) throw error;
      throw Object.assign(new TypeError('Invalid URL'), { code: 'ERR_INVALID_URL', input: String(given) });
    }
  }

  static canParse(given: unknown, base?: unknown): boolean {
    return URL.parse(given, base) !== null;
  }

  static parse(given: unknown, base?: unknown): URL | null {
    try {
      return new URL(given, base);
    } catch {
      return null;
    }
  }

  get href(): string {
    return write(this.#url);
  }
  set href(value: string) {
    this.#url = new URL(value).#url;
    this.#params?.become(this.#url.query ?? '');
  }
  get origin(): string {
    const { scheme, host, port, path } = this.#url;
    if (scheme === 'blob') {
      const inner = URL.parse(path);
      return inner && /^https?:$/.test(inner.protocol) ? inner.origin : 'null';
    }
    if (scheme === 'file' || !isSpecial(scheme)) return 'null';
    return `${scheme}://${host}${port === null ? '' : `:${port}`}`;
  }
  get protocol(): string {
    return `${this.#url.scheme}:`;
  }
  set protocol(value: string) {
    const scheme = /^([A-Za-z][A-Za-z0-9+.-]*)(?::|$)/.exec(String(value).replace(/[\t\n\r]/g, ''))?.[1]?.toLowerCase();
    const url = this.#url;
    if (!scheme || isSpecial(scheme) !== isSpecial(url.scheme)) return;
    if (scheme === 'file' && (url.username !== '' || url.password !== '' || url.port !== null)) return;
    if (url.scheme === 'file' && url.host === '') return;
    url.scheme = scheme;
    if (PORTS[scheme] === url.port) url.port = null;
  }
  get username(): string {
    return this.#url.username;
  }
  set username(value: string) {
    if (this.#named) this.#url.username = encodeSet(usv(value), USERINFO);
  }
  get password(): string {
    return this.#url.password;
  }
  set password(value: string) {
    if (this.#named) this.#url.password = encodeSet(usv(value), USERINFO);
  }
  get host(): string {
    const { host, port } = this.#url;
    return `${host ?? ''}${port === null ? '' : `:${port}`}`;
  }
  set host(value: string) {
    this.#setHost(value, true);
  }
  get hostname(): string {
    return this.#url.host ?? '';
  }
  set hostname(value: string) {
    this.#setHost(value, false);
  }
  get port(): string {
    return this.#url.port === null ? '' : String(this.#url.port);
  }
  set port(value: string) {
    if (!this.#named) return;
    const text = String(value).replace(/[\t\n\r]/g, '');
    const digits = /^\d+/.exec(text)?.[0];
    if (text === '') this.#url.port = null;
    else if (digits) this.#try((url) => setPort(url, digits));
  }
  get pathname(): string {
    return pathOf(this.#url);
  }
  set pathname(value: string) {
    const url = this.#url;
    if (typeof url.path === 'string') return;
    url.path = [];
    const text = usv(value)
      .replace(/[\t\n\r]/g, '')
      .replace(/[?#]/g, (c) => (c === '?' ? '%3F' : '%23'));
    const slash = isSpecial(url.scheme) ? /^[/\\]/ : /^\//;
    if (isSpecial(url.scheme) || text !== '') segments(url, slash.test(text) ? text.slice(1) : text);
    else if (url.host === null) url.path = [''];
  }
  get search(): string {
    const { query } = this.#url;
    return query ? `?${query}` : '';
  }
  set search(value: string) {
    const text = usv(value).replace(/[\t\n\r]/g, '');
    this.#url.query = null;
    if (text !== '') setQuery(this.#url, text.replace(/^\?/, ''));
    this.#params?.become(this.#url.query ?? '');
  }
  get searchParams(): URLSearchParams {
    if (!this.#params) {
      this.#params = new URLSearchParams(this.#url.query ?? '');
      this.#params.changed = (text) => {
        this.#url.query = text === '' ? null : text;
      };
    }
    return this.#params;
  }
  get hash(): string {
    const { fragment } = this.#url;
    return fragment ? `#${fragment}` : '';
  }
  set hash(value: string) {
    const text = usv(value).replace(/[\t\n\r]/g, '');
    this.#url.fragment = null;
    if (text !== '') setFragment(this.#url, text.replace(/^#/, ''));
  }

  toString(): string {
    return this.href;
  }
  toJSON(): string {
    return this.href;
  }

  /** Whether it may have a user and a port. */
  get #named(): boolean {
    const { host, scheme } = this.#url;
    return host !== null && host !== '' && scheme !== 'file';
  }

  #try(change: (url: Parts) => void): void {
    const changed = { ...this.#url };
    try {
      change(changed);
      this.#url = changed;
    } catch (error) {
      if (error !== undefined) throw error;
    }
  }

  #setHost(value: string, with_port: boolean): void {
    if (typeof this.#url.path === 'string') return;
    const special = isSpecial(this.#url.scheme);
    const text = usv(value)
      .replace(/[\t\n\r]/g, '')
      .split(special ? /[/\\?#]/ : /[/?#]/)[0]!;
    const colon = this.#url.scheme === 'file' ? -1 : colonIn(text);
    const host = colon < 0 ? text : text.slice(0, colon);
    if (colon >= 0 && !with_port) return;
    this.#try((url) => {
      if (host === '' && (colon >= 0 || (special && url.scheme !== 'file'))) failure();
      if (host === '' && (url.username !== '' || url.password !== '' || url.port !== null)) failure();
      url.host = host === '' ? '' : (parseHost(host, special) ?? failure());
      if (url.scheme === 'file' && url.host === 'localhost') url.host = '';
      const digits = colon < 0 ? '' : /^\d*/.exec(text.slice(colon + 1))![0];
      if (digits !== '' && Number(digits) <= 65_535) setPort(url, digits);
    });
  }
}
