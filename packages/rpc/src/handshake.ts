/**
 * How a caller and a worker prove to each other that they hold a ticket's secret, without sending it.
 *
 * Keys are HKDF-SHA256 (RFC 5869) of the secret, salted with the ticket's id; proofs are HMAC-SHA256 over a transcript
 * with both nonces, labelled by direction so that no proof can be reflected. The caller also signs the transcript with
 * the Ed25519 key whose thumbprint (RFC 7638) the ticket names as its audience. The same code runs in Node, in
 * browsers and in every shell; only the primitives (`#crypto`) differ.
 */
import { hkdf, hmac, makeKeyPair, random, sha256, verifyEd25519 } from '#crypto';

export interface Hello {
  nonce: string;
}

export interface Redemption {
  /** The signed part of the ticket. */
  ticket: string;
  /** The caller's public key, JWK members of an OKP key. */
  key: { kty: 'OKP'; crv: 'Ed25519'; x: string };
  nonce: string;
  /** HMAC of the transcript with the session key. */
  proof: string;
  /** Ed25519 over the same transcript. */
  signature: string;
}

export interface Redeemed {
  worker: string;
  /** HMAC that proves the worker's side. */
  proof: string;
  methods: string[];
}

export interface CallerKey {
  jwk: Redemption['key'];
  thumbprint: string;
  sign(text: string): Promise<string>;
}

/** Bytes as base64url without padding. */
export function toBase64url(bytes: Uint8Array): string {
  return (bytes as any).toBase64({ alphabet: 'base64url', omitPadding: true });
}

/** Throws SyntaxError for what is not base64url. */
export function fromBase64url(text: string): Uint8Array<ArrayBuffer> {
  return (Uint8Array as any).fromBase64(text, { alphabet: 'base64url', lastChunkHandling: 'loose' });
}

/** Random bytes, base64url. */
export function randomText(bytes: number): string {
  return toBase64url(random(bytes));
}

/** A key for one use, of a ticket's secret and id. */
export const deriveKey = async (secret: string, jti: string, use: string) =>
  toBase64url(await hkdf(fromBase64url(secret), jti, `hauki/1 ${use}`));

/** The key that the vault and the caller share. */
export const sessionKey = (secret: string, jti: string) => deriveKey(secret, jti, 'session');
/** The key that the agent and the caller share; the vault never has it. */
export const leaseKey = (secret: string, jti: string) => deriveKey(secret, jti, 'lease');

/** SHA-256 of the secret's text form, base64url, as the ticket names it. */
export async function secretHash(secret: string): Promise<string> {
  return toBase64url(await sha256(secret));
}

/** HMAC-SHA256 of a text, base64url; so is the key. */
export async function mac(key: string, text: string): Promise<string> {
  return toBase64url(await hmac(fromBase64url(key), text));
}

/** Whether the MAC is right; its time does not tell how much of it is. False for malformed input. */
export async function macHolds(key: string, text: string, proof: unknown): Promise<boolean> {
  const right = await mac(key, text);
  if (typeof proof !== 'string' || proof.length !== right.length) return false;
  let difference = 0;
  for (let i = 0; i < right.length; i++) difference |= right.charCodeAt(i) ^ proof.charCodeAt(i);
  return difference === 0;
}

/** What both sides prove over; `side` says who speaks. */
export function transcript(side: 'caller' | 'worker', jti: string, worker_nonce: string, caller_nonce: string): string {
  return `hauki/1 ${side}\n${jti}\n${worker_nonce}\n${caller_nonce}`;
}

/** What a heartbeat's MAC covers. The challenge came with the answer to the beat before; the first is the ticket's id. */
export const heartbeatText = (worker: string, epoch: number, challenge: string) =>
  `hauki/1 heartbeat\n${worker}\n${epoch}\n${challenge}`;
/** What the MAC of a destruct over the session covers. */
export const destructText = (worker: string, epoch: number) => `hauki/1 destruct\n${worker}\n${epoch}`;

/** RFC 7638 thumbprint of an Ed25519 public key. */
export async function thumbprint(jwk: Redemption['key']): Promise<string> {
  const canonical = `{"crv":"Ed25519","kty":"OKP","x":${JSON.stringify(jwk.x)}}`;
  return toBase64url(await sha256(canonical));
}

/** Makes the key that a caller proves at redemption. The private half never leaves the process. */
export async function makeCallerKey(): Promise<CallerKey> {
  const { x, sign } = await makeKeyPair();
  const jwk = { kty: 'OKP', crv: 'Ed25519', x } as const;
  return { jwk, thumbprint: await thumbprint(jwk), sign: async (text) => toBase64url(await sign(text)) };
}

/** Whether the signature of the caller's key holds; false for malformed input. */
export async function signatureHolds(jwk: Redemption['key'], text: string, signature: unknown): Promise<boolean> {
  if (typeof signature !== 'string') return false;
  try {
    return await verifyEd25519(jwk.x, text, fromBase64url(signature));
  } catch {
    return false;
  }
}

/** Reads the body of a signed ticket without checking anything: for the caller, who got it from the core itself. */
export function readTicketBody<T>(signed: string): T {
  return JSON.parse(new TextDecoder().decode(fromBase64url(signed.split('.')[1] ?? '')));
}
