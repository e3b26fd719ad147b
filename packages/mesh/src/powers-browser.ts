/** The SDK's powers in a browser. There is no TCP there; route B over WebSocket is not built yet, and says so. */
import { BadInput } from '@hauki/protocol';
import type { Powers } from './powers.ts';

const missing = (what: string) => Promise.reject(new BadInput({ what, why: 'not available in a browser yet' }));

export const powers: Powers = {
  async http(method, url, headers, body, timeout_ms) {
    const signal = AbortSignal.timeout(timeout_ms);
    const answer = await fetch(url, { method, headers, body: body ?? null, signal, redirect: 'error' });
    return { status: answer.status, body: await answer.text() };
  },

  defaults: () => ({ core: globalThis.location?.origin ?? 'http://127.0.0.1:8000' }),
  dialDirect: () => missing('The direct route'),
  dialRelay: () => missing('The relay'),
  bundle: () => missing('Bundling'),
  onIdle: () => () => {},
};
