/** `crypto.subtle` of quickjs vaults beside Node's own, which is the model; and what is hostile, in a vault. */
import assert from 'node:assert/strict';
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { NO_GRANTS } from '@hauki/protocol';
import fc from 'fast-check';
import { CRYPTO } from '../src/guest/platform/limits.ts';
import { type CryptoPowers, makeCrypto } from '../src/guest/vm-crypto.ts';
import { type Lab, openLab } from './quickjs-support.ts';

const digest: CryptoPowers['digest'] = (hash, bytes, key) => {
  const name = hash.replace('-', '');
  const made = key ? createHmac(name, new Uint8Array(key)) : createHash(name);
  return Uint8Array.from(made.update(new Uint8Array(bytes)).digest()).buffer;
};
const ours = makeCrypto({
  digest,
  verify(hash, bytes, key, mac) {
    const [right, told] = [digest(hash, bytes, key), mac].map((one) => new Uint8Array(one));
    return right!.length === told!.length && timingSafeEqual(right!, told!) ? 1 : 0;
  },
  draw: (_, bytes) => crypto.getRandomValues(new Uint8Array(bytes)),
}).subtle as SubtleCrypto;

const shown = (value: unknown) => {
  if (value instanceof ArrayBuffer) return Buffer.from(value).toString('hex');
  if (Object.prototype.toString.call(value) !== '[object CryptoKey]') return value;
  const { type, extractable, algorithm, usages } = value as CryptoKey;
  return { type, extractable, algorithm, usages };
};

type Tried = (subtle: SubtleCrypto) => unknown;
/** What comes of it, or the name of the error. */
const said = async (tried: Tried, subtle: SubtleCrypto) => {
  try {
    return shown(await tried(subtle));
  } catch (error) {
    return (error as Error).name;
  }
};
const same = async (tried: Tried, what = String(tried)) =>
  assert.deepEqual(await said(tried, ours), await said(tried, crypto.subtle), what);

const HASHES = ['SHA-1', 'SHA-256', 'sha-384', 'Sha-512'];
const bytes = Uint8Array.of(1, 2, 255);
const jwk = { kty: 'oct', k: 'AQL_' };
const HMAC = { name: 'HMAC', hash: 'SHA-256' };
const BOTH: KeyUsage[] = ['verify', 'sign'];
const raw = (subtle: SubtleCrypto, data: BufferSource = bytes, more: object = {}, usages = BOTH) =>
  subtle.importKey('raw', data, { ...HMAC, ...more }, true, usages);

describe('crypto.subtle of quickjs vaults', () => {
  it('hashes, signs and verifies as Node’s does, whatever the bytes', async () => {
    const some = fc.uint8Array({ maxLength: 300 });
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...HASHES), some, some, async (hash, key, data) => {
        await same((subtle) => subtle.digest(hash, data));
        const imported = (subtle: SubtleCrypto) => raw(subtle, key, { hash });
        await same(async (subtle) => subtle.sign('HMAC', await imported(subtle), data));
        await same(async (subtle) => subtle.exportKey('jwk', await imported(subtle)));
        await same(async (subtle) => subtle.verify('HMAC', await imported(subtle), data, data));
        if (key.length === 0) return;
        const made = await imported(ours);
        const mac = new Uint8Array(await crypto.subtle.sign('hmac', await imported(crypto.subtle), data));
        assert.equal(await ours.verify('HMAC', made, mac, data), true);
        mac[data.length % mac.length]! ^= 1;
        assert.equal(await ours.verify('HMAC', made, mac, data), false);
        assert.equal(await ours.verify('HMAC', made, mac.subarray(1), data), false);
      }),
      { numRuns: 100 },
    );
  });

  it('takes each kind of view, of moved and resizable buffers too, and none of shared ones', async () => {
    const moved = Uint8Array.of(1, 2, 3);
    structuredClone(moved, { transfer: [moved.buffer] });
    const resizable = new ArrayBuffer(4, { maxByteLength: 8 });
    for (const data of [
      ...[moved, moved.buffer, resizable, new Uint8Array(resizable, 1), new DataView(bytes.buffer, 1, 1)],
      ...[new Float64Array([1.5]), new Uint16Array([1, 2, 3]).subarray(1), new SharedArrayBuffer(4)],
      ...[new Uint8Array(new SharedArrayBuffer(4)), 'text', [1, 2], null, undefined, 4, { byteLength: 4 }],
    ])
      await same((subtle) => subtle.digest('SHA-256', data as BufferSource), Object.prototype.toString.call(data));
  });

  it('refuses with Node’s errors what is no digest and no HMAC', async () => {
    const any = (given: unknown) => given as never;
    const tries: Tried[] = [
      (s) => s.digest('MD5', bytes),
      (s) => s.digest(any({}), bytes),
      (s) => s.digest(any(null), bytes),
      (s) => s.digest({ name: any(Symbol('SHA-1')) }, bytes),
      (s) => (s.digest as any)('SHA-1'),
      ({ digest }) => digest('SHA-1', bytes),
      (s) => s.importKey('raw', bytes, 'HMAC', true, BOTH),
      (s) => s.importKey('raw', bytes, 'AES-GCM2', true, BOTH),
      (s) => s.importKey(any('odd'), bytes, HMAC, true, BOTH),
      (s) => s.importKey('spki', bytes, HMAC, true, BOTH),
      (s) => s.importKey('jwk', any('text'), HMAC, true, BOTH),
      (s) => s.importKey('jwk', any(null), HMAC, true, BOTH),
      (s) => s.importKey('raw', any(jwk), HMAC, true, BOTH),
      (s) => raw(s, bytes, { hash: 'MD5' }),
      (s) => raw(s, bytes, { hash: undefined }),
      (s) => raw(s, new Uint8Array(0)),
      ...[[], ['encrypt'], ['odd'], 'sign', null, 5].map(
        (usages): Tried =>
          (s) =>
            raw(s, bytes, {}, any(usages)),
      ),
      ...[0, 1, 16, 17, 23, 24, 25, -1, NaN, 2 ** 32, '24', null, 24.9].map(
        (length): Tried =>
          async (s) =>
            s.exportKey('raw', await raw(s, bytes, { length })),
      ),
      async (s) => s.sign('HMAC', await raw(s, bytes, {}, ['verify']), bytes),
      async (s) => s.verify('HMAC', await raw(s, bytes, {}, ['sign']), bytes, bytes),
      async (s) => s.sign('none', await raw(s), bytes),
      async (s) => s.sign('HMAC', any({ ...(await raw(s)) }), bytes),
      async (s) => s.sign('HMAC', Object.create(await raw(s)), bytes),
      async (s) => s.exportKey('spki', await raw(s)),
      async (s) => s.exportKey(any('odd'), await raw(s)),
      async (s) => s.exportKey('raw', await s.importKey('raw', bytes, HMAC, false, ['sign'])),
      (s) => s.generateKey({ ...HMAC, length: 0 }, true, BOTH),
      (s) => s.generateKey(HMAC, true, []),
      async (s) => new ((await raw(s)).constructor as any)(),
      (s) => new (s.constructor as any)(),
    ];
    for (const tried of tries) await same(tried);
  });

  it('takes and gives JWKs as Node does', async () => {
    const imports = (key: object): Tried => {
      return async (subtle) => subtle.exportKey('jwk', await subtle.importKey('jwk', key, HMAC, true, BOTH));
    };
    for (const more of [
      ...[{}, { k: '' }, { k: undefined }, { k: 1234 }, { k: 'AQ==' }, { k: 'AQI' }, { kty: 'RSA' }, { kty: 1 }],
      ...[{ alg: 'HS256' }, { alg: 'HS512' }, { use: 'sig' }, { use: 'enc' }, { ext: false }, { ext: true }, { x: 1 }],
      ...[['sign'], ['sign', 'sign', 'verify'], ['verify', 'odd', 'odd', 'sign'], 'sign', []].map((key_ops) => ({
        key_ops,
      })),
    ])
      await same(imports({ ...jwk, ...more }), JSON.stringify(more));
    // Where Node takes what it can make out of it, this keeps to the standard.
    for (const k of ['A*Q', 'AQ\n', '+/+/', 'AQIDA', '\u0100'])
      assert.equal(await said(imports({ ...jwk, k }), ours), 'DataError', k);
  });

  it('generates keys of the length that Node’s have, each another', async () => {
    for (const hash of HASHES)
      for (const length of [undefined, 1, 9, 256])
        for (const subtle of [ours, crypto.subtle]) {
          const keys = await Promise.all(
            [1, 2].map(() => subtle.generateKey({ name: 'HMAC', hash, length }, true, BOTH)),
          );
          const [one, other] = await Promise.all(keys.map((key) => subtle.exportKey('raw', key)));
          const bits = length ?? (/1|256/.test(hash) && !hash.includes('512') ? 512 : 1024);
          assert.equal((keys[0]!.algorithm as HmacKeyAlgorithm).length, bits);
          assert.equal(one!.byteLength, Math.ceil(bits / 8));
          if (bits >= 256) assert.notDeepEqual(one, other);
          if (bits % 8 > 0) assert.equal(new Uint8Array(one!).at(-1)! & (0xff >> (bits % 8)), 0);
        }
    await assert.rejects(ours.generateKey({ ...HMAC, length: CRYPTO.key_bytes * 8 + 1 }, true, BOTH), {
      name: 'OperationError',
    });
  });

  it('reads what it is given once, and is not changed by what becomes of it', async () => {
    const reads: string[] = [];
    const watched = new Proxy({ name: 'HMAC', hash: 'SHA-1', length: 24 } as any, {
      get(of, name) {
        reads.push(String(name));
        return of[name];
      },
    });
    const data = bytes.slice();
    const usages = [...BOTH];
    const key = await ours.importKey('raw', data, watched, true, usages);
    assert.deepEqual(reads, ['name', 'hash', 'length']);
    data.fill(0);
    usages.length = 0;
    (key.algorithm as any).hash.name = 'SHA-512';
    key.usages.length = 0;
    new Uint8Array(await ours.exportKey('raw', key)).fill(0);
    const right = createHmac('sha1', bytes).update('x').digest('hex');
    assert.equal(shown(await ours.sign('HMAC', key, Buffer.from('x'))), right);
    // What the algorithm's getter does to the data is done before they are read.
    const changed = bytes.slice();
    const late = {
      get name() {
        changed.fill(7);
        return 'SHA-1';
      },
    };
    assert.equal(shown(await ours.digest(late, changed)), createHash('sha1').update(changed).digest('hex'));
  });
});

describe('crypto.subtle in a quickjs vault', () => {
  let lab: Lab;
  before(async () => {
    lab = await openLab('crypto');
  });
  after(() => lab[Symbol.asyncDispose]());

  const RUN = `
    const { subtle } = crypto;
    const bytes = new TextEncoder().encode('abc');
    const hex = (given) => [...new Uint8Array(given)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    const HMAC = { name: 'HMAC', hash: 'SHA-256' };
    const key = (data = bytes) => subtle.importKey('raw', data, HMAC, true, ['sign', 'verify']);
    // The hash is another than was asked for; the guest itself goes on using the method.
    globalThis.found = (hash) => {
      const { find } = Array.prototype;
      Array.prototype.find = () => hash;
      try { return subtle.digest('SHA-1', bytes); } finally { Array.prototype.find = find; }
    };
    export const run = async (code) => {
      try { return await (0, eval)('async (subtle, bytes, hex, HMAC, key) => {' + code + '}')(subtle, bytes, hex, HMAC, key); }
      catch (error) { return [error.name, String(error.message), error instanceof DOMException]; }
    };`;
  const SHA1_OF_ABC = createHash('sha1').update('abc').digest('hex');

  it('needs no grant for what is told beforehand, and random for keys that are drawn', async () => {
    const worker = await lab.worker(RUN);
    assert.equal(await worker.call('run', "return hex(await subtle.digest('SHA-1', bytes))"), SHA1_OF_ABC);
    const signed = createHmac('sha256', 'abc').update('abc').digest('hex');
    assert.equal(await worker.call('run', "return hex(await subtle.sign('HMAC', await key(), bytes))"), signed);
    const generate = "return (await subtle.generateKey(HMAC, false, ['sign'])).algorithm.length";
    const [name, message] = await worker.call('run', generate);
    assert.deepEqual([name, /crypto\.subtle\.generateKey\(\)/.test(message)], ['GrantMissing', true], message);
    const granted = await lab.worker(RUN, {}, { grants: { ...NO_GRANTS, random: true } });
    assert.equal(await granted.call('run', generate), 512);
  });

  it('says of what it has not who has it', async () => {
    const worker = await lab.worker(RUN);
    for (const code of [
      "await subtle.encrypt({ name: 'AES-GCM', iv: bytes }, await key(), bytes)",
      "await subtle.importKey('raw', bytes, 'PBKDF2', false, ['deriveBits'])",
      "await subtle.generateKey({ name: 'Ed25519' }, true, ['sign'])",
      "await subtle.digest('SHA3-256', bytes)",
      "await subtle.exportKey('pkcs8', await key())",
    ]) {
      const [name, message, is_dom] = await worker.call('run', code);
      assert.deepEqual([name, is_dom], ['NotSupportedError', true], code);
      assert.match(message, /lxc and process vaults have the rest/);
    }
  });

  it('is one that cannot be made anew, and is loaded when it is touched', async () => {
    const worker = await lab.worker(`export const names = () => [
        Object.keys(crypto).join(), crypto.subtle === crypto.subtle, crypto.subtle instanceof SubtleCrypto,
        Object.prototype.toString.call(crypto.subtle), typeof CryptoKey, '__platform' in globalThis,
      ];`);
    assert.deepEqual(await worker.call('names'), [
      ...['getRandomValues,randomUUID', true, true, '[object SubtleCrypto]', 'function', false],
    ]);
  });

  it('hashes what is large within its bound, and refuses more with an error that can be caught', async () => {
    const worker = await lab.worker(RUN, { memory_mib: 256 });
    const whole = createHash('sha512').update(new Uint8Array(CRYPTO.bytes)).digest('hex');
    const hash = (size: number) =>
      worker.call('run', `return hex(await subtle.digest('SHA-512', new ArrayBuffer(${size})))`);
    assert.equal(await hash(CRYPTO.bytes), whole);
    assert.equal((await hash(CRYPTO.bytes + 1))[0], 'OperationError');
    assert.equal(
      (await worker.call('run', `await key(new ArrayBuffer(${CRYPTO.key_bytes + 1}))`))[0],
      'OperationError',
    );
    assert.equal((await worker.call('run', `await key(new ArrayBuffer(${CRYPTO.key_bytes}))`)) ?? 'taken', 'taken');
  });

  it('takes the time of its turn: a vault that hashes without end is ended, and its neighbour is not', async () => {
    const [worker, well] = await Promise.all([lab.worker(RUN, { turn_ms: 300, memory_mib: 64 }), lab.worker(RUN)]);
    const outcome = worker.call('run', "const all = new ArrayBuffer(8e6); for (;;) subtle.digest('SHA-512', all)");
    outcome.catch(() => {});
    const { cause, reason } = await worker.vault.exited;
    assert.deepEqual([cause, /turn of its code/.test(reason)], ['misbehaved', true], reason);
    assert.equal(await well.call('run', "return hex(await subtle.digest('SHA-1', bytes))"), SHA1_OF_ABC);
  });

  it('withstands a worker that changes the language beneath it', async () => {
    const hostile = [
      // Views and buffers that lie about themselves.
      "Object.defineProperty(bytes, 'byteLength', { value: 1e9 }); await subtle.digest('SHA-1', bytes)",
      "Object.defineProperty(bytes, 'byteLength', { value: NaN }); await subtle.digest('SHA-1', bytes)",
      "Object.defineProperty(bytes, 'buffer', { value: 5 }); await subtle.digest('SHA-1', bytes)",
      "Object.defineProperty(bytes, 'buffer', { get() { throw new EvalError('mine') } }); await subtle.digest('SHA-1', bytes)",
      "Object.defineProperty(bytes, 'byteLength', { get() { bytes.buffer.transfer(); return 3 } }); await subtle.digest('SHA-1', bytes)",
      "Object.defineProperty(bytes, 'byteOffset', { get() { bytes.buffer.transfer(1e6); return 1 } }); await subtle.digest('SHA-1', bytes)",
      // What the host is given is no buffer then, or one that is gone.
      "globalThis.Uint8Array = function () { return { length: 3, set() {}, buffer: 'no buffer' } }; await subtle.digest('SHA-1', bytes.subarray(1))",
      'const gone = new ArrayBuffer(8); gone.transfer(); globalThis.Uint8Array = function () { return { set() {}, buffer: gone } }; await key(bytes.subarray(1)).then((key) => subtle.sign(HMAC, key, bytes))',
      'Uint8Array.prototype.set = function () { this.buffer.transfer() }; await subtle.digest(HMAC.hash, bytes.subarray(1))',
      // Pollution, and members that do as they like.
      "Object.prototype.name = 'SHA-1'; Object.prototype.hash = 'SHA-1'; Object.prototype.secret = 5; await subtle.sign('HMAC', {}, bytes)",
      "await found({ name: 'md5' })",
      'await found({ name: { toString() { bytes.buffer.transfer(); subtle.digest(HMAC.hash, bytes) } } })',
      "String.prototype.toUpperCase = () => 'HMAC'; await subtle.digest('SHA-1', bytes)",
      "await subtle.digest({ get name() { throw new EvalError('mine') } }, bytes)",
      "await subtle.importKey('raw', bytes, HMAC, true, { [Symbol.iterator]() { throw new EvalError('mine') } })",
      "const one = await key(); Object.setPrototypeOf(one, null); await subtle.exportKey('raw', structuredClone(one))",
    ];
    const well = await lab.worker(RUN);
    for (const code of hostile) {
      const worker = await lab.worker(RUN);
      const outcome = await worker.call('run', code);
      if (outcome) assert.match(String(outcome[0]), /Error$/, `${code}: ${outcome}`);
      assert.doesNotMatch(String(outcome), /\.ts|node:/);
      assert.equal(await worker.call('run', 'return 1 + 1'), 2, code);
      await worker.vault.kill('enough');
    }
    assert.equal(await well.call('run', "return hex(await subtle.digest('SHA-1', bytes))"), SHA1_OF_ABC);
  });
});
