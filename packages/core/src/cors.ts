/**
 * Lets web pages of the origins that the core takes (`auth.ts`: its own host names and loopback, at any port) read its
 * answers. Pages of all others are refused before, and get no word of this.
 */
import type { FastifyReply, FastifyRequest } from 'fastify';

/** How long a browser may remember the answer to a preflight, in seconds. */
const REMEMBERED_S = 600;

/** What MeshFS's routes take and answer besides (`routes/conditions.ts`). */
const CONDITIONS = 'if-match, if-none-match, if-range, range, content-range, repr-digest';
const TOLD =
  'etag, content-length, content-range, repr-digest, upload-offset, upload-complete, hauki-pointer, hauki-version, hauki-revision, hauki-written-at, hauki-language';

/** Marks the answer as readable by the page that asks. True when this was a preflight, which is answered now. */
export function shareWithPage(request: FastifyRequest, reply: FastifyReply): boolean {
  const { origin } = request.headers;
  if (origin === undefined) return false;
  reply
    .header('access-control-allow-origin', origin)
    .header('vary', 'origin')
    .header('access-control-expose-headers', TOLD);
  if (request.method !== 'OPTIONS' || request.headers['access-control-request-method'] === undefined) return false;
  reply
    .status(204)
    .header('access-control-allow-methods', 'GET, HEAD, POST, PUT, DELETE')
    .header('access-control-allow-headers', `authorization, content-type, last-event-id, ${CONDITIONS}`)
    .header('access-control-max-age', REMEMBERED_S)
    .send();
  return true;
}
