/** Signs tickets with the core's Ed25519 key, which is made at the first start and kept in the data folder, mode 0600. */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  BadInput,
  type FirstMessage,
  type Grants,
  type Ticket,
  type TicketBody,
  type TicketPart,
  type WorkerInfo,
} from '@hauki/protocol';
import { secretHash } from '@hauki/rpc';
import { signCompact, signingKey } from '@hauki/rpc/node';
import { calculateJwkThumbprint, exportJWK, generateKeyPair, type JWK } from 'jose';
import { Vouchers } from './vouchers.ts';

/** What of a worker its tickets tell. */
export type TicketSubject = Pick<WorkerInfo, 'worker' | 'epoch' | 'driver' | 'isolation' | 'direct' | 'lease'> & {
  node: string;
  grants: Grants;
};

/** What a clone is answered with. */
export interface Spawned {
  worker: string;
  node: string;
  ticket: Ticket;
  /** What the worker said at once to what its owner had said first. */
  first?: FirstMessage[];
}

export interface TicketOffice {
  /** The public keys: a JSON Web Key Set (RFC 7517). */
  readonly keys: { keys: JWK[] };
  /** What the nodes keep with their workers; they hold over restarts of the core, as its key does. */
  readonly vouchers: Vouchers;
  /** Signs the ticket for one audience; the secret travels beside it, this once. */
  sign(subject: TicketSubject, part: TicketPart, audience: string): Promise<Ticket>;
}

/** The key in a file. Throws BadInput, saying what to do, where it is none. */
function readKey(file: string): JWK {
  try {
    const jwk = JSON.parse(readFileSync(file, 'utf8')) as JWK;
    if (jwk.kty === 'OKP' && jwk.crv === 'Ed25519' && signingKey(jwk)) return jwk;
  } catch {}
  throw new BadInput({
    what: file,
    why: 'it is damaged: there is no Ed25519 key in it. Put it back from a copy; or remove the file and start again, then a new key is made, and tickets that the old one has signed are void',
  });
}

/** Opens the office. `ticket_ms`: how long a ticket may wait to be redeemed. */
export async function openTicketOffice(
  data_dir: string,
  ticket_ms: number,
  now: () => number = () => Date.now(),
): Promise<TicketOffice> {
  const file = join(data_dir, 'signing-key.json');
  let jwk: JWK;
  if (existsSync(file)) jwk = readKey(file);
  else {
    const { privateKey } = await generateKeyPair('Ed25519', { extractable: true });
    jwk = await exportJWK(privateKey);
    writeFileSync(`${file}.tmp`, JSON.stringify(jwk), { mode: 0o600, flush: true });
    renameSync(`${file}.tmp`, file);
  }
  const { d: own, ...open } = jwk;
  const kid = await calculateJwkThumbprint(open);
  const key = signingKey(jwk);
  const keys = { keys: [{ ...open, kid, alg: 'EdDSA', use: 'sig' }] };

  return {
    keys,
    vouchers: new Vouchers(own!),
    async sign({ worker, node, epoch, driver, isolation, direct, lease, grants }, { jti, role, secret }, audience) {
      const iat = Math.floor(now() / 1000);
      const body: TicketBody = {
        v: 1,
        jti,
        role,
        worker,
        node,
        epoch,
        audience,
        driver,
        isolation,
        routes: { direct, relay: { path: `/api/v2/ephemeral/${worker}` } },
        lease,
        grants,
        iat,
        exp: iat + Math.ceil(ticket_ms / 1000),
        secret_hash: await secretHash(secret),
      };
      return { signed: signCompact(body, kid, key), secret };
    },
  };
}
