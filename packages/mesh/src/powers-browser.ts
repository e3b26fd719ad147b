/** The SDK's powers in a browser. There is no TCP there; route B over WebSocket is not built yet, and says so. */
import { BadInput } from '@hauki/protocol';
import type { Powers } from './powers.ts';

const missing = (what: string) => Promise.reject(new BadInput({ what, why: 'not available in a browser yet' }));

export const powers: Powers = {
  defaults: () => ({ core: globalThis.location?.origin ?? 'http://127.0.0.1:8000' }),
  dialDirect: () => missing('The direct route'),
  dialRelay: () => missing('The relay'),
  bundle: () => missing('Bundling'),
  onIdle: () => () => {},
};
