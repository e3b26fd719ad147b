/**
 * The last words of a vault: what its processes wrote to their log pipes, bounded in size and in pace.
 */
import type { ChildProcess } from 'node:child_process';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { LIMITS } from '@hauki/protocol';
import { LOG_WINDOW_BYTES, LOG_WINDOW_MS } from './limits.ts';

export class LogTail {
  #chunks: Buffer[] = [];
  #bytes = 0;

  /** Takes in `stream`; a writer that exceeds the pace is made to wait, so that it cannot busy the agent. */
  follow(stream: Readable): void {
    let window_bytes = 0;
    stream.on('error', () => {});
    stream.on('data', (chunk: Buffer) => {
      this.#add(chunk);
      window_bytes += chunk.length;
      if (window_bytes < LOG_WINDOW_BYTES) return;
      stream.pause();
      window_bytes = 0;
      setTimeout(() => stream.resume(), LOG_WINDOW_MS).unref();
    });
  }

  text(): string {
    return Buffer.concat(this.#chunks).subarray(-LIMITS.log_tail_chars).toString('utf8');
  }

  #add(chunk: Buffer): void {
    // Copied, because a small slice would keep its whole pool alive.
    this.#chunks.push(Buffer.from(chunk.subarray(-LIMITS.log_tail_chars)));
    this.#bytes += this.#chunks.at(-1)!.length;
    while (this.#chunks.length > 1 && this.#bytes - this.#chunks[0]!.length >= LIMITS.log_tail_chars) {
      this.#bytes -= this.#chunks.shift()!.length;
    }
    if (this.#chunks.length > 64) this.#chunks = [Buffer.concat(this.#chunks)];
  }
}

/** Waits for the log pipes to close; all writers are dead by now. */
export async function drained(child: ChildProcess | undefined): Promise<void> {
  if (!child) return;
  const open = [child.stdout, child.stderr].filter((stream) => stream && !stream.closed && !stream.destroyed);
  const closed = Promise.all(open.map((stream) => new Promise((resolve) => stream!.once('close', resolve))));
  const timeout = new AbortController();
  await Promise.race([closed, sleep(50, undefined, { signal: timeout.signal }).catch(() => {})]);
  timeout.abort();
  for (const stream of open) stream!.destroy();
}
