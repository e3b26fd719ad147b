/** HTTP requests whose answers are streams, by `fetch`. `http-stream-node.ts` offers the same; `#http-stream` chooses. */
import type { HttpStreamer } from './http-stream.ts';

/** Reads a body by hand: not every browser can loop over it. */
async function* chunksOf(body: ReadableStream<Uint8Array> | null, moved: () => void): AsyncGenerator<Uint8Array> {
  const reader = body?.getReader();
  try {
    for (;;) {
      const got = await reader?.read();
      moved();
      if (!got || got.done) return;
      yield got.value;
    }
  } finally {
    await reader?.cancel().catch(() => {});
  }
}

export const stream: HttpStreamer = async (method, url, headers, body, { idle_ms, signal }) => {
  const idle = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const moved = () => {
    clearTimeout(timer);
    timer = setTimeout(() => idle.abort(new DOMException('nothing came', 'TimeoutError')), idle_ms);
  };
  moved();
  const either = signal ? AbortSignal.any([idle.signal, signal]) : idle.signal;
  const sent = body as Uint8Array<ArrayBuffer> | undefined;
  try {
    const answer = await fetch(url, { method, headers, body: sent ?? null, signal: either, redirect: 'error' });
    const stream = async function* () {
      try {
        yield* chunksOf(answer.body, moved);
      } finally {
        clearTimeout(timer);
      }
    };
    return { status: answer.status, header: (name) => answer.headers.get(name) ?? undefined, body: stream() };
  } catch (error) {
    clearTimeout(timer);
    throw error;
  }
};
