/** JSON lines over a Node stream, for plain JSON-RPC clients: each line in is answered by at most one line out. */
import type { Duplex } from 'node:stream';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { answerPlain, type PlainDispatch } from '../plain.ts';

/**
 * Answers lines until the stream ends. Requests of one connection run at once, up to `LIMITS.batch`; beyond it, and
 * while the client does not read its answers, the stream is not read; with more than `LIMITS.unsent_bytes` of them it ends.
 */
export function serveLines(
  stream: Duplex,
  dispatch: PlainDispatch,
  limit: () => number = () => LIMITS.message_bytes,
): void {
  let rest: Buffer[] = [];
  let rest_bytes = 0;
  let running = 0;
  let over = false;
  const gate = () => {
    if (running >= LIMITS.batch || stream.writableNeedDrain) stream.pause();
    else if (stream.isPaused()) stream.resume();
  };
  const answer = async (line: string) => {
    running++;
    gate();
    const text = await answerPlain(line, dispatch);
    running--;
    if (text !== undefined && !stream.destroyed) stream.write(`${text}\n`);
    // What was asked at once comes at once, also for a client who does not read.
    if (stream.writableLength > LIMITS.unsent_bytes) stream.destroy();
    gate();
    if (over && running === 0) stream.end();
  };
  stream.on('drain', gate);
  stream.on('error', () => stream.destroy());
  stream.on('end', () => {
    over = true;
    if (running === 0) stream.end();
  });
  stream.on('data', (chunk: Buffer) => {
    let from = 0;
    for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, from)) {
      rest.push(chunk.subarray(from, at));
      const line = Buffer.concat(rest).toString('utf8');
      rest = [];
      rest_bytes = 0;
      from = at + 1;
      if (line.trim() !== '') void answer(line);
    }
    if (from < chunk.length) {
      rest.push(chunk.subarray(from));
      rest_bytes += chunk.length - from;
    }
    if (rest_bytes > limit()) stream.destroy();
  });
}
