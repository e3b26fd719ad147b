/**
 * The tickets by which a kernel comes into its own vaults. The key is drawn at each start and known to nobody else: no
 * ticket of an earlier life, or of another kernel, opens anything here.
 */
import { createHash, generateKeyPairSync } from 'node:crypto';
import type { Grants, Provisioned, Ticket, TicketBody } from '@hauki/protocol';
import { type CallerKey, secretHash } from '@hauki/rpc';
import { signCompact } from '@hauki/rpc/node';

/** A ticket is redeemed at once. */
const TICKET_S = 60;

export class TicketDesk {
  /** The public key, as a JSON Web Key Set (RFC 7517). */
  readonly keys: { keys: object[] };
  readonly #kid: string;
  readonly #key;

  constructor() {
    const { publicKey, privateKey } = generateKeyPairSync('ed25519');
    const { x } = publicKey.export({ format: 'jwk' });
    const jwk = { crv: 'Ed25519', kty: 'OKP', x };
    // RFC 7638: the thumbprint is over the members in this order.
    this.#kid = createHash('sha256').update(JSON.stringify(jwk)).digest('base64url');
    this.keys = { keys: [{ ...jwk, kid: this.#kid, alg: 'EdDSA', use: 'sig' }] };
    this.#key = privateKey;
  }

  /** The owner's ticket to a vault that was just made, for the kernel's own key. */
  async sign(
    made: Omit<Provisioned, 'first'>,
    node: string,
    caller: CallerKey,
    grants: Grants,
    lease: TicketBody['lease'],
  ): Promise<Ticket> {
    const { worker, epoch, driver, direct } = made;
    const { jti, role, secret } = made.ticket;
    const iat = Math.floor(Date.now() / 1000);
    const body = {
      v: 1,
      jti,
      role,
      worker,
      node,
      epoch,
      audience: caller.thumbprint,
      driver,
      routes: { direct, relay: { path: `/api/v2/ephemeral/${worker}` } },
      lease,
      grants,
      iat,
      exp: iat + TICKET_S,
      secret_hash: await secretHash(secret),
    };
    return { signed: signCompact(body, this.#kid, this.#key), secret };
  }
}
