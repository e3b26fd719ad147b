/**
 * Verifies the signed part of a ticket: a compact JWS (RFC 7515) with EdDSA over Ed25519 (RFC 8037), nothing else.
 * Written here and not taken from a library, because it is all that a new-born vault needs, and it waits for its loading.
 */
import type { KeyObject, webcrypto } from 'node:crypto';

/** Fetched at the first use: a vault loads its worker first. */
const lib = () => process.getBuiltinModule('node:crypto');

/** Public Ed25519 keys of a JSON Web Key Set, by key id. */
export function verifyKeys(set: object): Map<string, KeyObject> {
  const keys = new Map<string, KeyObject>();
  for (const jwk of (set as { keys?: (webcrypto.JsonWebKey & { kid?: string })[] }).keys ?? [])
    if (jwk.crv === 'Ed25519' && jwk.kid) keys.set(jwk.kid, lib().createPublicKey({ key: jwk, format: 'jwk' }));
  return keys;
}

/** The payload of a compact JWS (RFC 7515) signed with EdDSA by one of the keys. Throws, saying why not. */
export function verifyCompact(text: string, keys: Map<string, KeyObject>): unknown {
  const parts = text.split('.');
  if (parts.length !== 3) throw new Error('it is not three parts');
  const [head, payload, signature] = parts as [string, string, string];
  // Base64 decoders forgive; a ticket has one spelling only.
  for (const part of parts)
    if (!/^[A-Za-z0-9_-]+$/.test(part) || Buffer.from(part, 'base64url').toString('base64url') !== part)
      throw new Error('it is not base64url');
  const header = JSON.parse(Buffer.from(head, 'base64url').toString());
  if (header.alg !== 'EdDSA' || header.crit !== undefined) throw new Error('it is not signed with EdDSA');
  const key = keys.get(header.kid);
  if (!key) throw new Error('it is signed with an unknown key');
  if (!lib().verify(null, Buffer.from(`${head}.${payload}`), key, Buffer.from(signature, 'base64url')))
    throw new Error('the signature does not hold');
  return JSON.parse(Buffer.from(payload, 'base64url').toString());
}
