/** Signs tickets: compact JWS (RFC 7515) with EdDSA over Ed25519 (RFC 8037), and nothing else. */
import type { KeyObject, webcrypto } from 'node:crypto';

/** Fetched at the first use: a vault, which rehearses with it, loads its worker first. */
const lib = () => process.getBuiltinModule('node:crypto');

/** The private key of a JSON Web Key. */
export const signingKey = (jwk: object): KeyObject =>
  lib().createPrivateKey({ key: jwk as webcrypto.JsonWebKey, format: 'jwk' });

/** The payload as a compact JWS; `kid` names the key to those who verify. */
export function signCompact(payload: object, kid: string, key: KeyObject): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'EdDSA', kid, typ: 'hauki-ticket+jws' })}.${part(payload)}`;
  return `${text}.${lib().sign(null, Buffer.from(text), key).toString('base64url')}`;
}
