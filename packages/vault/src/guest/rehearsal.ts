/**
 * What a vault does while nobody has given it a worker yet, in a pool: it loads what the first worker and its first
 * caller will need, so that they do not wait for it. It leaves nothing behind that a worker could see.
 */
import { mac, makeCallerKey, sessionKey, signatureHolds } from '@hauki/rpc';

const EMPTY_MODULE = 'data:text/javascript,export{}';
/** A vault that was started for somebody has its worker earlier than this. */
const IDLE_MS = 25;

/** Rehearses once the vault has been idle for a moment; the function that is given back calls it off. */
export function rehearseWhenIdle(): () => void {
  const timer = setTimeout(() => void rehearse().catch(() => {}), IDLE_MS);
  return () => clearTimeout(timer);
}

async function rehearse(): Promise<void> {
  await import(EMPTY_MODULE);
  const caller = await makeCallerKey();
  await signatureHolds(caller.jwk, 'a', await caller.sign('a'));
  await mac(await sessionKey('A'.repeat(43), 'a'), 'a');
}
