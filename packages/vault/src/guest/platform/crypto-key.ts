/**
 * Keys of `crypto.subtle` and how WebIDL reads what is given for them. Node's own is the model.
 *
 * What always holds: a key's bytes are in no property of it, and nothing that only looks like a key is one.
 */
import { CRYPTO } from './limits.ts';

export interface Hash {
  name: string;
  /** The length of an HMAC key that nobody gave one. */
  block_bits: number;
  /** Of HMAC with it, in a JWK. */
  alg: string;
}

export const HASHES: readonly Hash[] = [
  { name: 'SHA-1', block_bits: 512, alg: 'HS1' },
  { name: 'SHA-256', block_bits: 512, alg: 'HS256' },
  { name: 'SHA-384', block_bits: 1024, alg: 'HS384' },
  { name: 'SHA-512', block_bits: 1024, alg: 'HS512' },
];

const REST = 'quickjs vaults have SHA-1, SHA-256, SHA-384, SHA-512 and HMAC; lxc and process vaults have the rest';

export function refuse(name: string, why: string): never {
  throw new DOMException(why, name);
}
export const unsupported = (what: string): never => refuse('NotSupportedError', `There is no ${what} here: ${REST}`);

type Members = Record<string, unknown>;
const isObject = (given: unknown): given is Members =>
  (typeof given === 'object' && given !== null) || typeof given === 'function';

/** The name of an algorithm, and where the rest of it is. */
function named(algorithm: unknown): { name: string; rest: Members } {
  if (!isObject(algorithm)) return { name: `${algorithm}`, rest: Object.create(null) };
  const { name } = algorithm;
  if (name === undefined) throw new TypeError('An algorithm must have a name');
  return { name: `${name}`, rest: algorithm };
}
const quoted = (name: string) => `algorithm ${JSON.stringify(name.slice(0, 100))}`;

export function hashOf(algorithm: unknown): Hash {
  const { name } = named(algorithm);
  const upper = name.toUpperCase();
  return HASHES.find((hash) => hash.name === upper) ?? unsupported(`${quoted(name)} for a digest`);
}

/** Throws unless it is HMAC. */
export function checkHmac(algorithm: unknown): Members {
  const { name, rest } = named(algorithm);
  return name.toUpperCase() === 'HMAC' ? rest : unsupported(quoted(name));
}

/** What a key is wanted for. `zero`: the error when it is to have no bits. */
export function hmacOf(algorithm: unknown, zero: string): { hash: Hash; bits: number | undefined } {
  const { hash: given, length } = checkHmac(algorithm);
  if (given === undefined) throw new TypeError('The algorithm HMAC must have a hash');
  const hash = hashOf(given);
  if (length === undefined) return { hash, bits: undefined };
  const bits = Math.trunc(+(length as number));
  if (!(bits >= 0 && bits < 2 ** 32)) throw new TypeError('The length of a key must be a number of bits');
  if (bits === 0) refuse(zero, 'The length of a key must not be 0');
  return { hash, bits };
}

/** The bytes of a buffer or a view as a buffer: the very one, where they are all of it. */
export function bytesOf(source: unknown, most: number = CRYPTO.bytes): ArrayBuffer {
  const view = ArrayBuffer.isView(source) ? source : undefined;
  const { buffer: given, byteOffset: at, byteLength } = view ?? { buffer: source, byteOffset: 0 };
  const buffer = given as ArrayBuffer;
  // From here on no code of the worker runs, which could move it elsewhere.
  let whole: number;
  try {
    whole = lengthOf.call(buffer);
  } catch {
    throw new TypeError('The data must be an ArrayBuffer or a view on one, which is not shared');
  }
  const size = byteLength ?? whole;
  if (size > most)
    refuse('OperationError', `At most ${most} bytes are taken here at once: lxc and process vaults take more`);
  // Also of a buffer that was moved elsewhere.
  if (size === 0) return new ArrayBuffer(0);
  if (size === whole) return buffer;
  return copied(new Uint8Array(buffer, at, size));
}
const lengthOf = Object.getOwnPropertyDescriptor(ArrayBuffer.prototype, 'byteLength')!.get!;

export function copied(bytes: Uint8Array): ArrayBuffer {
  const copy = new Uint8Array(bytes.length);
  copy.set(bytes);
  return copy.buffer;
}

const USAGES = ['encrypt', 'decrypt', 'sign', 'verify', 'deriveKey', 'deriveBits', 'wrapKey', 'unwrapKey'];
export type Usage = 'sign' | 'verify';
/** In the order in which keys tell them. */
const HMAC_USAGES: readonly Usage[] = ['sign', 'verify'];

/** What an HMAC key may be used for; perhaps for nothing. */
export function usagesOf(given: unknown): Usage[] {
  const wanted = new Set<string>();
  for (const usage of iterable(given, 'usages')) {
    const name = `${usage}`;
    if (!USAGES.includes(name)) throw new TypeError(`${JSON.stringify(name.slice(0, 100))} is no usage of keys`);
    wanted.add(name);
  }
  const usages = HMAC_USAGES.filter((usage) => wanted.has(usage));
  if (usages.length < wanted.size) refuse('SyntaxError', 'A key for HMAC is used for sign and verify');
  return usages;
}

/** A text is none. */
function iterable(given: unknown, what: string): Iterable<unknown> {
  if (!isObject(given) || !(Symbol.iterator in given)) throw new TypeError(`The ${what} must be an array`);
  return given as unknown as Iterable<unknown>;
}

const FORMATS = ['raw', 'raw-secret', 'jwk', 'spki', 'pkcs8', 'raw-public', 'raw-private', 'raw-seed'];

export function formatOf(given: unknown): string {
  const format = `${given}`;
  if (!FORMATS.includes(format))
    throw new TypeError(`${JSON.stringify(format.slice(0, 100))} is no format of keys: raw and jwk are`);
  return format === 'raw-secret' ? 'raw' : format;
}

/** A JWK as it was given, each member read once. */
export function readJwk(given: unknown) {
  if (given !== undefined && given !== null && !isObject(given)) throw new TypeError('A JWK must be an object');
  const { alg, ext, k, key_ops, kty, use } = (given ?? {}) as Members;
  const text = (member: unknown) => (member === undefined ? undefined : `${member}`);
  return {
    alg: text(alg),
    ext: ext === undefined ? undefined : Boolean(ext),
    k: text(k),
    key_ops: key_ops === undefined ? undefined : Array.from(iterable(key_ops, 'key_ops'), (op) => `${op}`),
    kty: text(kty),
    use: text(use),
  };
}

/** The bytes of a secret key (RFC 7517, RFC 7518 section 6.4), if the rest of it fits. */
export function secretOfJwk(
  { alg, ext, k, key_ops, kty, use }: ReturnType<typeof readJwk>,
  { hash, extractable, usages }: { hash: Hash; extractable: boolean; usages: readonly Usage[] },
): ArrayBuffer {
  const wrong = (why: string): never => refuse('DataError', `The JWK cannot be taken: ${why}`);
  if (kty !== 'oct') wrong('its kty is not "oct"');
  if (k === undefined || !/^[\w-]*={0,2}$/.test(k)) return wrong('its k is not base64url');
  if (usages.length > 0 && use !== undefined && use !== 'sig') wrong('its use is not "sig"');
  if (key_ops) {
    const known = key_ops.filter((op) => USAGES.includes(op));
    if (new Set(known).size < known.length) wrong('it names one of its key_ops twice');
    if (!usages.every((usage) => known.includes(usage))) wrong('it is not for all of the usages');
  }
  if (ext === false && extractable) wrong('it is not to be extractable');
  if (alg !== undefined && alg !== hash.alg) wrong(`its alg is not ${hash.alg}`);
  if (k.length > 2 * CRYPTO.key_bytes) refuse('OperationError', `A key has at most ${CRYPTO.key_bytes} bytes here`);
  let text: string;
  try {
    text = atob(k.replace(/=+$/, '').replaceAll('-', '+').replaceAll('_', '/'));
  } catch {
    return wrong('its k is not base64url');
  }
  return Uint8Array.from(text, (character) => character.charCodeAt(0)).buffer;
}

export function base64url(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
}

export interface Inner {
  secret: ArrayBuffer;
  hash: Hash;
  bits: number;
  extractable: boolean;
  usages: readonly Usage[];
}

/** Only who has it makes keys. */
const MAKER = Symbol('maker');
let inside: (key: object) => Inner | undefined;

export class CryptoKey {
  readonly #inner: Inner;
  readonly #algorithm: object;
  readonly #usages: Usage[];

  constructor(maker?: unknown, inner?: Inner) {
    if (maker !== MAKER || !inner) throw new TypeError('Illegal constructor');
    this.#inner = inner;
    // What is shown of it may be changed, and changes nothing.
    this.#algorithm = { name: 'HMAC', length: inner.bits, hash: { name: inner.hash.name } };
    this.#usages = [...inner.usages];
  }
  static {
    inside = (key) => (#inner in key ? key.#inner : undefined);
  }

  get type(): 'secret' {
    void this.#inner;
    return 'secret';
  }
  get extractable(): boolean {
    return this.#inner.extractable;
  }
  get algorithm(): object {
    return this.#algorithm;
  }
  get usages(): Usage[] {
    return this.#usages;
  }
  get [Symbol.toStringTag](): string {
    return 'CryptoKey';
  }
}

/** What is in a key. Throws TypeError where it is none. */
export function innerOf(key: unknown): Inner {
  const inner = isObject(key) ? inside(key) : undefined;
  if (!inner) throw new TypeError('The key is no CryptoKey of this vault');
  return inner;
}

/** A key of so many of the first bits. */
export function makeKey(inner: Inner): CryptoKey {
  const bytes = new Uint8Array(inner.secret);
  const odd = inner.bits % 8;
  if (odd > 0) bytes[bytes.length - 1]! &= 0xff << (8 - odd);
  return new CryptoKey(MAKER, inner);
}
