/** The handshake's primitives on WebCrypto, for browsers. `crypto-node.ts` offers the same; `#crypto` chooses. */

const utf8 = new TextEncoder();
const bytesOf = (text: string) => utf8.encode(text);
const read = async (bytes: Promise<ArrayBuffer>) => new Uint8Array(await bytes);

export async function hkdf(secret: Uint8Array<ArrayBuffer>, salt: string, info: string): Promise<Uint8Array> {
  const base = await crypto.subtle.importKey('raw', secret, 'HKDF', false, ['deriveBits']);
  const how = { name: 'HKDF', hash: 'SHA-256', salt: bytesOf(salt), info: bytesOf(info) };
  return read(crypto.subtle.deriveBits(how, base, 256));
}

export async function hmac(key: Uint8Array<ArrayBuffer>, text: string): Promise<Uint8Array> {
  const made = await crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  return read(crypto.subtle.sign('HMAC', made, bytesOf(text)));
}

export const sha256 = (text: string): Promise<Uint8Array> => read(crypto.subtle.digest('SHA-256', bytesOf(text)));

export const random = (bytes: number): Uint8Array => crypto.getRandomValues(new Uint8Array(bytes));

/** An Ed25519 key pair: `x` is the public half, base64url; the private half cannot be read. */
export async function makeKeyPair(): Promise<{ x: string; sign(text: string): Promise<Uint8Array> }> {
  const pair = (await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify'])) as CryptoKeyPair;
  const { x } = await crypto.subtle.exportKey('jwk', pair.publicKey);
  return {
    x: x!,
    sign: (text) => read(crypto.subtle.sign('Ed25519', pair.privateKey, bytesOf(text))),
  };
}

export async function verifyEd25519(x: string, text: string, signature: Uint8Array<ArrayBuffer>): Promise<boolean> {
  const jwk = { kty: 'OKP', crv: 'Ed25519', x };
  const key = await crypto.subtle.importKey('jwk', jwk, 'Ed25519', false, ['verify']);
  return crypto.subtle.verify('Ed25519', key, signature, bytesOf(text));
}
