/**
 * What a vault does while nobody has given it a worker yet, in a pool: it goes once through all that a first call needs,
 * with an agent, a worker, a first call that rides, a gate, a ticket and a caller of its own, so that the first real ones
 * find it loaded and compiled. It leaves nothing behind that a worker could see.
 */
import { EventEmitter } from 'node:events';
import type { Server } from 'node:net';
import { type Duplex, duplexPair } from 'node:stream';
import { type FirstMessage, NO_GRANTS, type Setup } from '@hauki/protocol';
import { Session } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { begin, firstCall, type Rehearsal, rehearsalTicket, rideAlong } from './rehearsal-caller.ts';
import { runShell, type ShellPowers } from './shell.ts';

/** A vault that was started for somebody has its worker earlier than this, on a busy machine too. */
const IDLE_MS = 100;
/** Nobody waits for it. */
const STEP_MS = 10_000;
const WORKER = 'export const add = (a, b) => a + b;';
/** Makes the guest of the rehearsal as the real one is made, but where no worker will look. */
export type InsideOf = ShellPowers['inside'];

/** Rehearses once the vault has been idle for a moment; the function that is given back calls it off, also on its way. */
export function rehearseWhenIdle(inside: InsideOf): () => void {
  let off = false;
  const timer = setTimeout(() => void rehearse(inside, () => off).catch(() => {}), IDLE_MS);
  return () => {
    off = true;
    clearTimeout(timer);
  };
}

/** Goes through it, or as far as until it is called off: between its steps it hears what has come. Rejects where it fails. */
export async function rehearse(inside: InsideOf, off: () => boolean = () => false): Promise<void> {
  const heard = () => new Promise((resolve) => setImmediate(resolve));
  const rehearsal = await rehearsalTicket();
  await heard();
  if (off()) return;
  const caller = begin();
  const { words, deliver } = rideAlong(caller);
  const { dial, first, end } = await openRehearsal(rehearsal, inside, words);
  try {
    await deliver(await first);
    await heard();
    if (off()) return;
    await firstCall(streamTransport(dial()), rehearsal, caller);
  } finally {
    end();
  }
}

/**
 * A shell as the vault's own, its worker loaded, for the ticket of a rehearsal. `dial` connects to its gate; `first`: what
 * it answers to `words`.
 */
export async function openRehearsal({ self, keys, expected }: Rehearsal, inside: InsideOf, words?: FirstMessage[]) {
  const server = new EventEmitter() as Server;
  const [near, far] = duplexPair();
  void runShell({ control: streamTransport(far), server, inside });
  const { promise: first, resolve } = Promise.withResolvers<FirstMessage[]>();
  const agent = new Session({
    transport: streamTransport(near),
    dispatch: (_method, params) => resolve((params as FirstMessage[][])[0] ?? []) ?? null,
    timeout_ms: STEP_MS,
  });
  const setup: Setup = {
    ...self,
    source: WORKER,
    language: 'javascript',
    modules: [],
    load_timeout_ms: STEP_MS,
    tls: false,
    keys,
    owner: expected,
    // What is withheld is rehearsed too.
    grants: NO_GRANTS,
    ...(words ? { first: words } : {}),
  };
  await agent.call('load', [setup]);
  const dial = (): Duplex => {
    const [caller, called] = duplexPair();
    server.emit('connection', Object.assign(called, { setNoDelay: () => {}, setKeepAlive: () => {} }));
    return caller;
  };
  return { dial, first, end: () => agent.close() };
}
