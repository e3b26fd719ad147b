/**
 * The handshake's primitives on `node:crypto`: the same as `crypto-web.ts`, without a thread for each operation and
 * without the modules of WebCrypto, which a vault that has just been born would have to load.
 */

/** Fetched at the first use, because loading it is a tenth of a vault's birth. */
const lib = () => process.getBuiltinModule('node:crypto');

export const hkdf = async (secret: Uint8Array, salt: string, info: string): Promise<Uint8Array> =>
  new Uint8Array(lib().hkdfSync('sha256', secret, salt, info, 32));

export const hmac = async (key: Uint8Array, text: string): Promise<Uint8Array> =>
  lib().createHmac('sha256', key).update(text).digest();

export const sha256 = async (text: string): Promise<Uint8Array> => lib().createHash('sha256').update(text).digest();

export const random = (bytes: number): Uint8Array => lib().randomBytes(bytes);

export async function makeKeyPair(): Promise<{ x: string; sign(text: string): Promise<Uint8Array> }> {
  const { publicKey, privateKey } = lib().generateKeyPairSync('ed25519');
  const { x } = publicKey.export({ format: 'jwk' });
  return { x: x!, sign: async (text) => lib().sign(null, Buffer.from(text), privateKey) };
}

export async function verifyEd25519(x: string, text: string, signature: Uint8Array): Promise<boolean> {
  const key = lib().createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
  return lib().verify(null, Buffer.from(text), key, signature);
}
