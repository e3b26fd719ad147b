/** The workers of the driver conformance suite, in each language. */
import type { Language } from '@hauki/protocol';

interface Sources {
  language: Language;
  /** Calls, effects, the end hook. */
  worker: string;
  error: RegExp;
  /** `twice(n)`, in TypeScript where there is a choice. */
  twice: { language: Language; source: string };
  broken: string;
  broken_at: RegExp;
  /** Counts in a global. */
  leak: string;
  spin: string;
  /** What the Web Cryptography API makes of a digest, of HMAC and of what neither is; in JavaScript. */
  hashes: string;
  /** `grow()` takes memory without end. */
  bomb: string;
}

export const SOURCES: Record<'javascript' | 'python', Sources> = {
  javascript: {
    language: 'javascript',
    worker: `
  let calls = 0;
  export const add = (a, b) => { calls++; return a + b; };
  export const count = () => calls;
  export const boom = () => { throw new RangeError('no'); };
  export const ask = (url) => fetch(url).then((r) => r.text());
  export const say = (text) => { console.log(text); hauki.log(text); };
  export const read = (pointer) => hauki.meshfs.resolve(pointer).then((d) => d.content);
  export const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms, 'waited'));
  export const powers = () => ['require', 'process', 'Deno', 'Bun'].filter((name) => name in globalThis && globalThis[name]);
  export const onEnd = (reason) => hauki.log('ended: ' + reason);`,
    error: /RangeError: no/,
    twice: { language: 'typescript', source: 'export const twice = (n: number): number => 2 * n;' },
    broken: 'export const a = 1;\nexport const b = (;',
    broken_at: /worker\.mjs:2/,
    leak: `globalThis.leaked = (globalThis.leaked ?? 0) + 1; export const seen = () => globalThis.leaked;`,
    spin: 'export const spin = () => { for (;;) {} };',
    hashes: `
  const { subtle } = crypto;
  const bytesOf = (text) => new TextEncoder().encode(text);
  const hex = (bytes) => [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  const imported = (key, hash, more) =>
    subtle.importKey('raw', bytesOf(key), { name: 'HMAC', hash, ...more }, true, ['sign', 'verify']);
  export const digest = async (name, text) => hex(await subtle.digest(name, bytesOf(text)));
  export const hmac = async (hash, key, text) => {
    const made = await imported(key, hash);
    const mac = new Uint8Array(await subtle.sign('HMAC', made, bytesOf(text)));
    const jwk = await subtle.exportKey('jwk', made);
    const again = await subtle.importKey('jwk', jwk, { name: 'HMAC', hash: { name: hash } }, false, ['verify']);
    const right = await subtle.verify('HMAC', again, mac, bytesOf(text));
    mac[3] ^= 1;
    return [hex(mac.map((byte, at) => (at === 3 ? byte ^ 1 : byte))), jwk, right, await subtle.verify('HMAC', again, mac, bytesOf(text))];
  };
  const TRIES = {
    algorithm: () => subtle.digest('MD5', bytesOf('')),
    data: () => subtle.digest('SHA-1', 'text'),
    empty: () => imported('', 'SHA-1'),
    length: () => imported('key', 'SHA-1', { length: 64 }),
    jwk: () => subtle.importKey('jwk', { kty: 'RSA' }, { name: 'HMAC', hash: 'SHA-1' }, true, ['sign']),
    usages: () => subtle.importKey('raw', bytesOf('key'), { name: 'HMAC', hash: 'SHA-1' }, true, ['encrypt']),
    kept: async () => subtle.exportKey('raw', await subtle.importKey('raw', bytesOf('key'), { name: 'HMAC', hash: 'SHA-1' }, false, ['sign'])),
    fake: () => subtle.sign('HMAC', { type: 'secret' }, bytesOf('')),
    generated: async () => {
      const key = await subtle.generateKey({ name: 'HMAC', hash: 'SHA-256' }, true, ['sign', 'verify']);
      return [key instanceof CryptoKey, key.type, key.algorithm, key.usages, (await subtle.exportKey('raw', key)).byteLength];
    },
  };
  export const attempt = (what) => TRIES[what]().catch((error) => error.name);`,
    bomb: 'export const grow = () => { const all = []; for (;;) all.push(new Array(1e5).fill(all.length)); };',
  },
  python: {
    language: 'python',
    worker: `
import time
calls = 0
def add(a, b):
    global calls
    calls += 1
    return a + b
def count(): return calls
def boom(): raise ValueError('no')
async def ask(url): return (await hauki.fetch(url)).text
def say(text):
    print(text)
    hauki.log(text)
def read(pointer): return hauki.meshfs.resolve(pointer)['content']
def wait(ms):
    time.sleep(ms / 1000)
    return 'waited'
def powers(): return []
def on_end(reason): hauki.log('ended: ' + reason)
`,
    error: /ValueError: no/,
    twice: { language: 'python', source: 'def twice(n: int) -> int: return 2 * n' },
    broken: 'a = 1\nb = (;\n',
    broken_at: /worker\.py:2/,
    leak: `
import builtins
builtins.leaked = getattr(builtins, 'leaked', 0) + 1
def seen(): return leaked
`,
    spin: 'def spin():\n    while True: pass\n',
    hashes: '',
    bomb: 'def grow():\n    all = []\n    while True: all.append(list(range(100_000)))\n',
  },
};

/** A hash, the digest of "abc", its name in a JWK, and the HMAC of the standards' second test case. */
export const HASHES = [
  ['SHA-1', 'a9993e364706816aba3e25717850c26c9cd0d89d', 'HS1', 'effcdf6ae5eb2fa2d27416d5f184df9c259a7c79'],
  [
    'SHA-256',
    'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    'HS256',
    '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
  ],
  [
    'SHA-384',
    'cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7',
    'HS384',
    'af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649',
  ],
  [
    'SHA-512',
    'ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f',
    'HS512',
    '164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737',
  ],
] as const;
