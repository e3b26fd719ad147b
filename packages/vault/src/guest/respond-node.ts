/** Answers and bodies of `fetch` in Node's own classes. */
import type { FetchedBody } from './context.ts';
import type { Platform } from './outward.ts';

const EMPTY = new Set([101, 204, 205, 304]);

function streamOf(body: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const pieces = body[Symbol.asyncIterator]();
  return new ReadableStream(
    {
      async pull(controller) {
        const { done, value } = await pieces.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: async () => void (await pieces.return?.()),
    },
    { highWaterMark: 0 },
  );
}

export const nodePlatform: Platform = {
  respond({ status, status_text, url, redirected = false, headers, body, text, base64 }: FetchedBody): Response {
    const whole = base64 === undefined ? text : Buffer.from(base64, 'base64');
    const bodiless = EMPTY.has(status);
    if (bodiless) void body?.[Symbol.asyncIterator]().return?.();
    const content = bodiless ? null : ((body ? streamOf(body) : whole) ?? null);
    // A server may answer 999, as in browsers; a constructor may not.
    const usual = status >= 200 && status <= 599;
    const response = new Response(content as ConstructorParameters<typeof Response>[0], {
      ...{ status: usual ? status : 200, statusText: status_text, headers },
    });
    return Object.defineProperties(response, {
      ...{ url: { value: url }, redirected: { value: redirected } },
      ...(usual ? {} : { status: { value: status }, ok: { value: false } }),
    });
  },
  // URLSearchParams, Blob, FormData: the platform knows how they are written.
  async pack(body) {
    const packed = new Response(body as ConstructorParameters<typeof Response>[0]);
    return { content_type: packed.headers.get('content-type'), bytes: new Uint8Array(await packed.arrayBuffer()) };
  },
};
