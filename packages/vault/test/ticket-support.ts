/** What tests of redemption need: a real ticket office in a folder of its own, workers to redeem at, callers. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LEASE, NO_GRANTS, type Ticket, type TicketBody, type TicketRole } from '@hauki/protocol';
import {
  type CallerKey,
  mac,
  makeCallerKey,
  type Redemption,
  randomText,
  readTicketBody,
  sessionKey,
  transcript,
} from '@hauki/rpc';
import { openTicketOffice, type TicketOffice } from '../../core/src/tickets.ts';
import { Redeemer } from '../src/guest/redeemer.ts';

export const SELF = { worker: 'w-one', node: 'node-one', epoch: 3 };

export interface Office extends TicketOffice {
  close(): Promise<void>;
}

export async function openOffice(now: () => number = () => Date.now()): Promise<Office> {
  const folder = await mkdtemp(join(tmpdir(), 'hauki-tickets-'));
  const office = await openTicketOffice(folder, LEASE.ticket_ms, now);
  return Object.assign(office, { close: () => rm(folder, { recursive: true, force: true }) });
}

export interface Issued {
  ticket: Ticket;
  jti: string;
  /** The session key. */
  key: string;
}

/** Signs a ticket as the core would. */
export async function issue(
  office: TicketOffice,
  audience: string,
  of: { worker?: string; node?: string; epoch?: number; role?: TicketRole } = {},
): Promise<Issued> {
  const jti = randomText(16);
  const secret = randomText(32);
  const ticket = await office.sign(
    {
      worker: of.worker ?? SELF.worker,
      node: of.node ?? SELF.node,
      epoch: of.epoch ?? SELF.epoch,
      driver: 'lxc',
      isolation: 'container',
      direct: { host: '127.0.0.1', port: 4000, tls: false },
      lease: { heartbeat_ms: LEASE.heartbeat_ms, lease_ms: LEASE.lease_ms },
      grants: NO_GRANTS,
    },
    { jti, role: of.role ?? 'owner', secret },
    audience,
  );
  return { ticket, jti, key: await sessionKey(secret, jti) };
}

/** What a caller sends to redeem, made by hand so that tests can make it wrong. */
export async function redemptionOf(
  signed: string,
  jti: string,
  key: string,
  caller: CallerKey,
  worker_nonce: string,
): Promise<Redemption> {
  const nonce = randomText(16);
  const said = transcript('caller', jti, worker_nonce, nonce);
  return { ticket: signed, key: caller.jwk, nonce, proof: await mac(key, said), signature: await caller.sign(said) };
}

export const bodyOf = (signed: string): TicketBody => readTicketBody<TicketBody>(signed);

/** An office, a caller, and a worker that expects nothing yet. */
export async function bench(now: () => number = () => Date.now()) {
  const office = await openOffice(now);
  const caller = await makeCallerKey();
  const redeemer = new Redeemer(SELF, office.keys, now);
  return { office, caller, redeemer };
}
