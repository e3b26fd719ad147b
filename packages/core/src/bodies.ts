/**
 * How long the body of a request may take to come, and how much may be coming in.
 *
 * What always holds: a body ends, or its connection does; what is held until all of it has come is bounded. Node's own
 * limit, one for each request of the server, cannot be it: raw content may take hours, as long as something moves. So each
 * body has a deadline here, until the route that reads it says that it bounds it by itself.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { LIMITS } from '@hauki/protocol';
import { hasBody } from '@hauki/rpc/node';
import { HTTP_LIMITS } from './limits.ts';
import type { Principal } from './rights.ts';
import type { Shares } from './shares.ts';

const deadlines = new WeakMap<IncomingMessage, NodeJS.Timeout>();
/** What gives a large body's share back. */
const shares = new WeakMap<IncomingMessage, () => void>();

/** Gives a request's body its deadline. `refuse` answers in its stead, where no answer has begun. */
export function boundBody(
  request: IncomingMessage,
  response: ServerResponse,
  body_ms: number,
  refuse: () => void,
): void {
  if (!hasBody(request)) return;
  const timer = setTimeout(() => {
    if (request.complete) return;
    // Behind the answer to another request of the same connection it could be taken for that.
    if (response.headersSent || response.socket !== request.socket) request.destroy();
    else refuse();
  }, body_ms);
  timer.unref();
  deadlines.set(request, timer);
  request.once('close', () => clearTimeout(timer));
}

/** Takes of `all` bytes what a large body of this principal's may have, until it has come. Throws Overloaded. */
export function shareBody(request: IncomingMessage, { name }: Principal, all: Shares): void {
  const bytes = Math.min(LIMITS.body_bytes, Number(request.headers['content-length'] ?? LIMITS.body_bytes));
  if (!hasBody(request) || bytes <= HTTP_LIMITS.small_body_bytes) return;
  const giveBack = all.take(name, bytes);
  shares.set(request, giveBack);
  request.once('end', giveBack).once('close', giveBack);
}

/** Ends the deadline, and gives the share back: who reads the body bounds it by itself. */
export function releaseBody(request: IncomingMessage): void {
  clearTimeout(deadlines.get(request));
  shares.get(request)?.();
}
