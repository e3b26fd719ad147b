/**
 * `crypto.subtle` (Web Cryptography): digests, and HMAC with its keys. Loaded into a QuickJS vault when it is first
 * touched. Hashes are reckoned outside of the VM, at once: its methods are promises only because the standard's are.
 */
import {
  base64url,
  bytesOf,
  CryptoKey,
  checkHmac,
  copied,
  formatOf,
  hashOf,
  hmacOf,
  innerOf,
  makeKey,
  readJwk,
  refuse,
  secretOfJwk,
  type Usage,
  unsupported,
  usagesOf,
} from './platform/crypto-key.ts';
import { CRYPTO } from './platform/limits.ts';

export interface CryptoPowers {
  /** By the name of the hash; with a key the HMAC. */
  digest(hash: string, bytes: ArrayBuffer, key?: ArrayBuffer): ArrayBuffer;
  /** 1 where `mac` is the HMAC of `bytes`. It takes as long wherever the two differ. */
  verify(hash: string, bytes: ArrayBuffer, key: ArrayBuffer, mac: ArrayBuffer): number;
  /** Entropy. Throws GrantMissing, for what is `wanted`, without the grant. */
  draw(wanted: string, bytes: number): Uint8Array;
  /** What is made. */
  crypto?: Cryptography;
}

export interface Cryptography {
  CryptoKey: typeof CryptoKey;
  SubtleCrypto: new () => object;
  subtle: object;
}

const ELSEWHERE = [
  ...['encrypt', 'decrypt', 'deriveKey', 'deriveBits', 'wrapKey', 'unwrapKey', 'getPublicKey'],
  ...['encapsulateBits', 'encapsulateKey', 'decapsulateBits', 'decapsulateKey'],
];

export function makeCrypto(powers: CryptoPowers): Cryptography {
  /** The arguments of a method, which is called as one and with enough of them. */
  const taken = (self: unknown, method: string, given: unknown[], least: number): unknown[] => {
    if (self !== subtle) throw new TypeError(`${method} is a method of crypto.subtle`);
    if (given.length < least)
      throw new TypeError(`crypto.subtle.${method} takes ${least} arguments, and was given ${given.length}`);
    return given;
  };
  /** A key with which this may be done. */
  const usable = (algorithm: unknown, key: unknown, usage: Usage) => {
    checkHmac(algorithm);
    const inner = innerOf(key);
    if (!inner.usages.includes(usage)) refuse('InvalidAccessError', `The key is not for ${usage}`);
    return inner;
  };
  const used = (usages: Usage[]): Usage[] =>
    usages.length > 0 ? usages : refuse('SyntaxError', 'A key must have usages');

  class SubtleCrypto {
    constructor() {
      throw new TypeError('Illegal constructor');
    }

    async digest(...given: unknown[]): Promise<ArrayBuffer> {
      const [algorithm, data] = taken(this, 'digest', given, 2);
      const hash = hashOf(algorithm);
      return powers.digest(hash.name, bytesOf(data));
    }

    async sign(...given: unknown[]): Promise<ArrayBuffer> {
      const [algorithm, key, data] = taken(this, 'sign', given, 3);
      const { hash, secret } = usable(algorithm, key, 'sign');
      return powers.digest(hash.name, bytesOf(data), secret);
    }

    async verify(...given: unknown[]): Promise<boolean> {
      const [algorithm, key, signature, data] = taken(this, 'verify', given, 4);
      const { hash, secret } = usable(algorithm, key, 'verify');
      return powers.verify(hash.name, bytesOf(data), secret, bytesOf(signature)) === 1;
    }

    async importKey(...given: unknown[]): Promise<CryptoKey> {
      const [asked, data, algorithm, extract, wanted] = taken(this, 'importKey', given, 5);
      const format = formatOf(asked);
      const jwk = format === 'jwk' ? readJwk(data) : undefined;
      const { hash, bits } = hmacOf(algorithm, 'DataError');
      const usages = usagesOf(wanted);
      const extractable = Boolean(extract);
      if (!jwk && format !== 'raw') unsupported(`key of the format ${format}`);
      const secret = jwk
        ? secretOfJwk(jwk, { hash, extractable, usages })
        : copied(new Uint8Array(bytesOf(data, CRYPTO.key_bytes)));
      const size = secret.byteLength;
      if (size === 0) refuse('DataError', 'A key must not be empty');
      if (bits !== undefined && Math.ceil(bits / 8) !== size)
        refuse('DataError', `A key of ${bits} bits has not ${size} bytes`);
      return makeKey({ secret, hash, bits: bits ?? size * 8, extractable, usages: used(usages) });
    }

    async exportKey(...given: unknown[]): Promise<object> {
      const [asked, key] = taken(this, 'exportKey', given, 2);
      const format = formatOf(asked);
      const { secret, hash, extractable, usages } = innerOf(key);
      if (!extractable) refuse('InvalidAccessError', 'The key is not extractable');
      const bytes = new Uint8Array(secret);
      if (format === 'jwk')
        return { key_ops: [...usages], ext: extractable, alg: hash.alg, kty: 'oct', k: base64url(bytes) };
      return format === 'raw' ? copied(bytes) : unsupported(`key of the format ${format}`);
    }

    async generateKey(...given: unknown[]): Promise<CryptoKey> {
      const [algorithm, extract, wanted] = taken(this, 'generateKey', given, 3);
      const { hash, bits = hash.block_bits } = hmacOf(algorithm, 'OperationError');
      const usages = used(usagesOf(wanted));
      const size = Math.ceil(bits / 8);
      if (size > CRYPTO.key_bytes) refuse('OperationError', `A key has at most ${CRYPTO.key_bytes} bytes here`);
      const secret = copied(powers.draw('crypto.subtle.generateKey()', size));
      return makeKey({ secret, hash, bits, extractable: Boolean(extract), usages });
    }

    get [Symbol.toStringTag](): string {
      return 'SubtleCrypto';
    }
  }
  for (const name of ELSEWHERE)
    Object.defineProperty(SubtleCrypto.prototype, name, {
      value: async () => unsupported(`crypto.subtle.${name}`),
      writable: true,
      configurable: true,
    });
  const subtle = Object.create(SubtleCrypto.prototype);
  return { CryptoKey, SubtleCrypto, subtle };
}

const powers = (globalThis as unknown as { __platform?: CryptoPowers }).__platform;
if (powers) powers.crypto = makeCrypto(powers);
