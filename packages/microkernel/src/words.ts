/** What a guest says is a stranger's word: of itself, and as an answer to a request. It is one, or the call has failed. */
import {
  type Answer,
  type Body,
  type FlatHeaders,
  HEADER_NAME,
  isRoute,
  NOT_IN_HEADER,
  type PluginDescription,
  SourceRejected,
} from '@hauki/protocol';
import { onceForSame } from '@hauki/rpc';
import { KERNEL_LIMITS } from './limits.ts';

/** What a guest says of itself, as far as it can be that. Throws SourceRejected for a route that would lie elsewhere. */
export function cleanDescription(said: PluginDescription): PluginDescription {
  const given: unknown[] = Array.isArray(said?.routes) ? said.routes.slice(0, KERNEL_LIMITS.routes) : [];
  for (const one of given) {
    if (typeof one === 'string' && isRoute(one)) continue;
    // Of what is no text none is made: lists with shared parts may be endless when written out.
    const shown = typeof one === 'string' ? JSON.stringify(one.slice(0, 200)) : 'what is no text';
    const reason = `${shown} is no route: a method or *, and a path such as /users/:id`;
    throw new SourceRejected({ stage: 'routes', reason });
  }
  const { state, together } = said ?? {};
  const known = ['hooks', 'half', 'export'] as const;
  const routes = given as string[];
  return { routes, state: known.find((one) => one === state) ?? 'none', together: together === true };
}

/** What only the kernel says; and what would give a module's service worker the pages of all others. */
const FORGED = /^(?:x-hauki-.*|service-worker-allowed)$/i;
export const asksForUpgrade = (headers: FlatHeaders) => headers.some((text, i) => i % 2 === 0 && text === 'upgrade');

/** What only the kernel says is left out. Throws TypeError. */
export function checkAnswer(answer: unknown, asked: FlatHeaders): Answer {
  const [status, headers, body] = Array.isArray(answer) ? answer : [];
  const bodied =
    body === null ||
    typeof body === 'string' ||
    body instanceof Uint8Array ||
    (typeof body === 'object' && Symbol.asyncIterator in body);
  if (!Number.isInteger(status) || !Array.isArray(headers) || !bodied)
    throw new TypeError('it gave no answer that can be passed on');
  if (status === 101 ? !asksForUpgrade(asked) : status < 200 || status > 599)
    throw new TypeError(
      `its answer has the status ${status}; one from 200 to 599 can be sent, and 101 to who asks for a WebSocket`,
    );
  return [status, checkHeaders(headers), body as Body];
}

/** Whoever writes the answer would fail of others. */
const checkHeaders = onceForSame((headers: FlatHeaders): FlatHeaders => {
  if (
    headers.length % 2 ||
    headers.length > 2 * KERNEL_LIMITS.headers ||
    headers.some((text) => typeof text !== 'string')
  )
    throw new TypeError('its answer has too many headers, or ones that are no texts');
  let bytes = 0;
  for (const [i, text] of headers.entries()) {
    bytes += text.length + 2;
    if (i % 2 === 0 ? HEADER_NAME.test(text) : !NOT_IN_HEADER.test(text)) continue;
    const name = JSON.stringify(headers[i - (i % 2)]!.slice(0, 100));
    throw new TypeError(
      i % 2 === 0
        ? `its answer has a header by the name ${name}, which cannot be sent`
        : `the header ${name} of its answer has a value that cannot be sent: a line break, another control character, or text beyond Latin-1`,
    );
  }
  if (bytes > KERNEL_LIMITS.header_bytes)
    throw new TypeError(`the headers of its answer have more than ${KERNEL_LIMITS.header_bytes} bytes`);
  const forged = (at: number) => FORGED.test(headers[at - (at % 2)]!);
  return headers.some((_, i) => i % 2 === 0 && forged(i)) ? headers.filter((_, i) => !forged(i)) : headers;
});
