/** Bytes on their way: cut into pieces, gathered, read as events. Runs wherever the SDK does. */
import { BadInput } from '@hauki/protocol';

/** One piece of a large content: held in memory until the core has it. */
export const PIECE_BYTES = 8 * 1024 * 1024;
/** One event with its framing. A core sends a few hundred characters; what sends more is none. */
const EVENT_CHARS = 1024 * 1024;

export interface Piece {
  start: number;
  bytes: Uint8Array;
  /** Bytes of the whole; the last piece knows it at the latest. */
  total: number | undefined;
}

/** Cuts content into pieces. A stream's length is not known before its end. */
export async function* piecesOf(content: Uint8Array | Blob | AsyncIterable<Uint8Array>): AsyncGenerator<Piece> {
  if (content instanceof Uint8Array || content instanceof Blob) {
    const total = content instanceof Blob ? content.size : content.length;
    for (let start = 0; start < total; start += PIECE_BYTES) {
      const end = Math.min(total, start + PIECE_BYTES);
      const bytes =
        content instanceof Blob
          ? new Uint8Array(await content.slice(start, end).arrayBuffer())
          : content.subarray(start, end);
      yield { start, bytes, total };
    }
    return;
  }
  let start = 0;
  let piece = new Uint8Array(PIECE_BYTES);
  let filled = 0;
  for await (const chunk of content) {
    for (let at = 0; at < chunk.length; ) {
      const part = chunk.subarray(at, at + PIECE_BYTES - filled);
      piece.set(part, filled);
      filled += part.length;
      at += part.length;
      if (filled < PIECE_BYTES) continue;
      yield { start, bytes: piece, total: undefined };
      start += filled;
      piece = new Uint8Array(PIECE_BYTES);
      filled = 0;
    }
  }
  yield { start, bytes: piece.subarray(0, filled), total: start + filled };
}

/** A server-sent event: its fields as they stand there, each in one line. */
export interface ServerEvent {
  id: string | undefined;
  event: string | undefined;
  /** None where only something is said about the stream. */
  data: string | undefined;
}

/** Server-sent events, as they come. Throws BadInput for an event longer than any of ours. */
export async function* eventsOf(body: AsyncIterable<Uint8Array>): AsyncGenerator<ServerEvent, void> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of body) {
    const blocks = (text + decoder.decode(chunk, { stream: true })).split('\n\n');
    text = blocks.pop()!;
    for (const block of blocks) {
      const of = (field: string) => new RegExp(`^${field}: ?(.*)$`, 'm').exec(block)?.[1];
      yield { id: of('id'), event: of('event'), data: of('data') };
    }
    if (text.length > EVENT_CHARS)
      throw new BadInput({ what: 'the stream of events', why: 'an event of it is too long' });
  }
}

/** All of a body in one. */
export async function gathered(body: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body) {
    chunks.push(chunk);
    length += chunk.length;
  }
  const all = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}
