/**
 * `process.stdout` and `process.stderr` of a Node worker: what is written there is log lines, as that of `console` is. Bytes written to descriptors 1 and 2 go
 * nowhere, or into the vault's last words.
 */
import { Writable } from 'node:stream';
import { LIMITS } from '@hauki/protocol';

/** How long a line may stay without its end before what there is of it is logged. */
const UNENDED_MS = 100;

function linesInto(write: (line: string) => void): Writable {
  const decoder = new TextDecoder();
  let begun = '';
  let waits = false;
  const flush = () => {
    waits = false;
    if (begun !== '') write(begun);
    begun = '';
  };
  // The last words of code that ends its process have no end, often.
  process.on('exit', flush);
  return new Writable({
    write(chunk: Uint8Array, _encoding, done) {
      const lines = (begun + decoder.decode(chunk, { stream: true })).split('\n');
      begun = lines.pop()!;
      for (const line of lines) write(line);
      if (begun.length >= LIMITS.log_line_chars) flush();
      else if (begun !== '' && !waits) {
        waits = true;
        setTimeout(flush, UNENDED_MS);
      }
      done();
    },
  });
}

/** Whether one of these sources may use them: most do not. */
export const namesStreams = (sources: string[]): boolean => sources.some((source) => /\bstd(?:out|err)\b/.test(source));

/** Puts them into `process`. */
export function logStreams(write_log: (level: string, values: unknown[]) => void): void {
  for (const [name, level] of [
    ['stdout', 'info'],
    ['stderr', 'error'],
  ] as const) {
    let made: Writable | undefined;
    const get = () => {
      made ??= linesInto((line) => write_log(level, [line]));
      return made;
    };
    Object.defineProperty(process, name, { get, configurable: true, enumerable: true });
  }
}
