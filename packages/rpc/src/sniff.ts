/** Tells by the first byte what a connection speaks (design, decision 7). */
import type { Duplex } from 'node:stream';

export type Speech = 'frames' | 'lines' | 'http' | 'tls' | 'unknown';

/** 0x00: our frames. `{`, `[`, white space: JSON lines. 0x16: a TLS handshake record. A letter: HTTP. */
function speechOf(byte: number): Speech {
  if (byte === 0x00) return 'frames';
  if (byte === 0x16) return 'tls';
  if (byte === 0x7b || byte === 0x5b || byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09)
    return 'lines';
  if ((byte >= 0x41 && byte <= 0x5a) || (byte >= 0x61 && byte <= 0x7a)) return 'http';
  return 'unknown';
}

/** Waits for the first byte and puts it back. Rejects when the stream ends or `timeout_ms` passes before. */
export function sniff(stream: Duplex, timeout_ms: number): Promise<Speech> {
  return new Promise((resolve, reject) => {
    const done = (outcome: Speech | Error) => {
      clearTimeout(timer);
      stream.off('readable', look);
      stream.off('close', gone);
      stream.off('error', gone);
      if (outcome instanceof Error) reject(outcome);
      else resolve(outcome);
    };
    const gone = () => done(new Error('the connection ended before its first byte'));
    const look = () => {
      const chunk: Buffer | null = stream.read();
      if (chunk === null || chunk.length === 0) return;
      stream.unshift(chunk);
      done(speechOf(chunk[0]!));
    };
    const timer = setTimeout(() => done(new Error(`silent for ${timeout_ms} ms`)), timeout_ms);
    stream.on('readable', look);
    stream.on('close', gone);
    stream.on('error', gone);
  });
}
