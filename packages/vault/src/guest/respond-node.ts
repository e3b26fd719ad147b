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

const isStream = (body: unknown): body is ReadableStream<unknown> =>
  typeof (body as Partial<ReadableStream> | null | undefined)?.getReader === 'function';

/** Of a Request's body, so much leaves whole. */
const WHOLE_BYTES = 1024 * 1024;

/**
 * The body of a Request, which has only a stream of it: whole where all of it is there at once, since not all servers take a
 * body without its length, nor can it be sent again where a redirect asks for that.
 */
async function wholeOf(body: ReadableStream<unknown>): Promise<unknown> {
  const reader = body.getReader();
  const now = new Promise<undefined>((resolve) => setImmediate(resolve, undefined));
  const pieces: unknown[] = [];
  let bytes = 0;
  let next = reader.read();
  for (;;) {
    const got = await Promise.race([next, now]);
    if (!got) break;
    if (got.done) return Buffer.concat(pieces as Uint8Array[]);
    pieces.push(got.value);
    next = reader.read();
    bytes += got.value instanceof Uint8Array ? got.value.length : Number.POSITIVE_INFINITY;
    if (bytes > WHOLE_BYTES) break;
  }
  // Whoever takes the rest hears of it.
  next.catch(() => {});
  const rest = {
    async next() {
      if (pieces.length > 0) return { done: false, value: pieces.shift() };
      const got = await next;
      if (!got.done) next = reader.read();
      return got;
    },
    async return() {
      await reader.cancel();
      return { done: true, value: undefined };
    },
  };
  return { [Symbol.asyncIterator]: () => rest };
}

export const nodePlatform: Platform = {
  sent: ({ body }) => (isStream(body) ? wholeOf(body) : body),
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
