/** URL and URLSearchParams (URL standard). */
import { encodeSet, parseHost } from './url-host.ts';
import {
  colonIn,
  failure,
  isSpecial,
  type Parts,
  PORTS,
  parse,
  pathOf,
  segments,
  setFragment,
  setPort,
  setQuery,
  USERINFO,
  write,
} from './url-parse.ts';
import { URLSearchParams } from './url-search.ts';

export { URLSearchParams };

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
