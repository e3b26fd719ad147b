/**
 * How long the body of a request may take to come, and how many, and how much, may be coming in.
 *
 * What always holds: a body ends, or its connection does; what is held until all of it has come is bounded; bodies that do
 * not come leave connections to others, and nobody has all of those that they may take. Node's own
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
/** What gives a body's shares back. */
const shares = new WeakMap<IncomingMessage, (() => void)[]>();

/** What bodies share that are coming in. */
export interface BodyShares {
  /** Connections. */
  places: Shares;
  /** Of those that are held until all has come. */
  bytes: Shares;
}

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

/** Takes a place for the body of a request that has one, until it has come. Throws Overloaded. */
export function placeBody(request: IncomingMessage, { name }: Principal, { places }: Pick<BodyShares, 'places'>): void {
  hold(request, places.take(name));
}

/** The same for a body, if any, that is held until all of it has come: where it is large, it takes of the bytes too. */
export function shareBody(request: IncomingMessage, principal: Principal, all: BodyShares): void {
  if (!hasBody(request)) return;
  placeBody(request, principal, all);
  const bytes = Math.min(LIMITS.body_bytes, Number(request.headers['content-length'] ?? LIMITS.body_bytes));
  if (bytes > HTTP_LIMITS.small_body_bytes) hold(request, all.bytes.take(principal.name, bytes));
}

function hold(request: IncomingMessage, giveBack: () => void): void {
  shares.set(request, [...(shares.get(request) ?? []), giveBack]);
  request.once('end', giveBack).once('close', giveBack);
}

/** Ends the deadline, and gives the shares back: who reads the body bounds it by itself. */
export function releaseBody(request: IncomingMessage): void {
  clearTimeout(deadlines.get(request));
  for (const giveBack of shares.get(request) ?? []) giveBack();
}
