/** Requests to the core whose answers are read as they come: large content, changes as they happen. */

import * as LIMITS from '@hauki/protocol/caller-limits';
import { stream } from '#http-stream';
import { type CoreClient, type Method, refusal, unanswered } from './http.ts';

export interface HttpStream {
  status: number;
  header(name: string): string | undefined;
  /** To be read, or ended early by leaving its loop: the connection is held until then. */
  body: AsyncIterable<Uint8Array>;
}

/**
 * One HTTP request whose answer is a stream. Rejects, or ends the stream, with an error whose message says why; with a
 * TimeoutError when nothing moved for `idle_ms`.
 */
export type HttpStreamer = (
  method: string,
  url: URL,
  headers: Record<string, string>,
  body: Uint8Array | undefined,
  options: { idle_ms: number; signal?: AbortSignal | undefined },
) => Promise<HttpStream>;

export interface StreamRequest {
  headers?: Record<string, string>;
  body?: Uint8Array;
  /** The longest time in which nothing moves. */
  idle_ms?: number;
  signal?: AbortSignal | undefined;
}

/** More of an error's answer is not read. */
const ERROR_CHARS = 64 * 1024;

/** A request whose answer is read as it comes. Rejects as `core.request` does where the answer is an error. */
export async function requestStream(
  { base, token }: CoreClient,
  method: Method,
  path: string,
  { headers = {}, body, idle_ms = LIMITS.call_ms, signal }: StreamRequest = {},
): Promise<HttpStream> {
  const failed = (error: unknown) =>
    signal?.aborted ? signal.reason : unanswered(base, error, `${method} ${path.split('?')[0]}`, idle_ms);
  let text = '';
  let answer: HttpStream;
  try {
    const url = new URL(path, base);
    const authorised = { ...headers, authorization: `Bearer ${token}` };
    answer = await stream(method, url, authorised, body, { idle_ms, signal });
    const { status } = answer;
    if (status >= 200 && status < 300) return { ...answer, body: translated(answer.body, failed) };
    const decoder = new TextDecoder();
    for await (const chunk of answer.body) {
      text += decoder.decode(chunk, { stream: true });
      if (text.length > ERROR_CHARS) break;
    }
  } catch (error) {
    throw failed(error);
  }
  throw refusal(base, answer.status, parsed(text));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function* translated(
  body: AsyncIterable<Uint8Array>,
  translate: (error: unknown) => unknown,
): AsyncGenerator<Uint8Array> {
  const chunks = body[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { done, value } = await chunks.next().catch((error) => {
        throw translate(error);
      });
      if (done) return;
      yield value;
    }
  } finally {
    await chunks.return?.();
  }
}
