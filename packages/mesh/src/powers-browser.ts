/** The SDK's powers in a browser. There is no TCP there; route B over WebSocket is not built yet, and says so. */
import { BadInput } from '@hauki/protocol';
import type { Powers } from './powers.ts';

const missing = (what: string) => Promise.reject(new BadInput({ what, why: 'not available in a browser yet' }));

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

export const powers: Powers = {
  async http(method, url, headers, body, timeout_ms) {
    const signal = AbortSignal.timeout(timeout_ms);
    const answer = await fetch(url, { method, headers, body: body ?? null, signal, redirect: 'error' });
    return { status: answer.status, body: await answer.text() };
  },

  async stream(method, url, headers, body, { idle_ms, signal }) {
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
  },

  defaults: () => ({ core: globalThis.location?.origin ?? 'http://127.0.0.1:8000' }),
  dialDirect: () => missing('The direct route'),
  dialRelay: () => missing('The relay'),
  bundle: () => missing('Bundling'),
  onIdle: () => () => {},
};
