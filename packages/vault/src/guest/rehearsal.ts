/**
 * What a vault does while nobody has given it a worker yet, in a pool: it goes once through all that a first call needs,
 * with a worker, a gate, a ticket and a caller of its own, so that the first real one finds it loaded and compiled. It
 * leaves nothing behind that a worker could see.
 */
import { EventEmitter } from 'node:events';
import type { Server } from 'node:net';
import { type Duplex, duplexPair } from 'node:stream';
import { streamTransport } from '@hauki/rpc/node';
import { openGate } from './gate.ts';
import { createGuest } from './guest.ts';
import { Redeemer } from './redeemer.ts';
import { firstCall, LEASE_MS, type Rehearsal, rehearsalTicket, SELF } from './rehearsal-caller.ts';

const EMPTY_MODULE = 'data:text/javascript,export{}';
/** A vault that was started for somebody has its worker earlier than this, on a busy machine too. */
const IDLE_MS = 100;

/** Rehearses once the vault has been idle for a moment; the function that is given back calls it off, also on its way. */
export function rehearseWhenIdle(): () => void {
  let off = false;
  const timer = setTimeout(() => void rehearse(() => off).catch(() => {}), IDLE_MS);
  return () => {
    off = true;
    clearTimeout(timer);
  };
}

/** Goes through it, or as far as until it is called off: between its steps it hears what has come. Rejects where it fails. */
export async function rehearse(off: () => boolean = () => false): Promise<void> {
  const heard = () => new Promise((resolve) => setImmediate(resolve));
  await import(EMPTY_MODULE);
  await heard();
  if (off()) return;
  const rehearsal = await rehearsalTicket();
  await heard();
  if (off()) return;
  const dial = await openRehearsal(rehearsal);
  await heard();
  if (off()) return;
  await firstCall(streamTransport(dial()), rehearsal);
}

/** A worker behind a gate, for the ticket of a rehearsal; what is given back connects to it. */
export async function openRehearsal({ keys, expected }: Rehearsal): Promise<() => Duplex> {
  const nobody = async () => {
    throw new Error('this is a rehearsal');
  };
  const inside = createGuest({
    outside: { effect: nobody, heartbeat: nobody, destruct: nobody },
    context: {},
    evaluate: async () => ({ add: (a: number, b: number) => a + b }),
  });
  const redeemer = new Redeemer(SELF, keys);
  redeemer.expect(expected);
  const methods = await inside.load('', { worker: SELF.worker, language: 'javascript', load_timeout_ms: LEASE_MS });
  const server = new EventEmitter() as Server;
  openGate({ server, worker: SELF.worker, redeemer, inside, methods: () => methods, tls: false });
  return () => {
    const [near, far] = duplexPair();
    server.emit('connection', Object.assign(far, { setNoDelay: () => {} }));
    return near;
  };
}
