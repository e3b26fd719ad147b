/**
 * How long the body of a request may take to come.
 *
 * What always holds: a body ends, or its connection does. Node's own limit, one for each request of the server, cannot
 * be it: raw content may take hours, as long as something moves. So each body has a deadline here, until the route that
 * reads it says that it bounds it by itself.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { hasBody } from '@hauki/rpc/node';

const deadlines = new WeakMap<IncomingMessage, NodeJS.Timeout>();

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

/** Ends the deadline: who reads the body cuts it off by itself. */
export function releaseBody(request: IncomingMessage): void {
  clearTimeout(deadlines.get(request));
}
