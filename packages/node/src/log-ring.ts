/** The last lines that a worker logged, numbered, bounded in characters; whoever wants the next can wait for it. */
import { LIMITS, type LogLevel, type LogLine, logText } from '@hauki/protocol';

/** What a line costs besides its text. */
const LINE_CHARS = 40;
const sizeOf = (line: LogLine) => line.text.length + LINE_CHARS;

export class LogRing {
  readonly #most: number;
  #lines: LogLine[] = [];
  #chars = 0;
  readonly #waiting = new Set<() => void>();
  /** The number of the newest line; 0 before the first. */
  last = 0;

  constructor(most_chars: number = LIMITS.log_ring_chars) {
    this.#most = most_chars;
  }

  add(level: LogLevel, text: string): void {
    const line = { seq: ++this.last, at: Date.now(), level, text };
    this.#lines.push(line);
    this.#chars += sizeOf(line);
    while (this.#chars > this.#most && this.#lines.length > 1) this.#chars -= sizeOf(this.#lines.shift()!);
    this.wake();
  }

  /** The lines after the one numbered `seq`, oldest first, and how many of them are lost; below 0: the last so many. */
  after(seq: number, most: number = LIMITS.log_lines): { lines: LogLine[]; missed: number } {
    if (seq < 0) return { lines: this.#lines.slice(-Math.min(-seq, most)), missed: 0 };
    const from = this.#lines.findIndex((line) => line.seq > seq);
    const lines = from < 0 ? [] : this.#lines.slice(from, from + most);
    return { lines, missed: lines.length > 0 ? Math.max(0, lines[0]!.seq - seq - 1) : 0 };
  }

  /** Resolves when there is a line after `seq`, when `wake` is called, or after `wait_ms`. */
  async wait(seq: number, wait_ms: number): Promise<void> {
    if (this.last > seq) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.add(resolve);
    const timer = setTimeout(resolve, wait_ms);
    timer.unref();
    await promise;
    clearTimeout(timer);
    this.#waiting.delete(resolve);
  }

  /** Whoever waits is answered with what there is. */
  wake(): void {
    for (const wake of this.#waiting) wake();
  }

  /** The last lines, as many as fit. */
  tail(most_chars: number = LIMITS.log_tail_chars): LogLine[] {
    return lastOf(this.#lines, most_chars);
  }

  /** The same as text. */
  text(): string {
    return logText(this.tail());
  }
}

/**
 * The last of the lines that fit into so many characters. Long ones are shortened where not all fit, to a quarter at least:
 * one alone does not put away what was said before it.
 */
export function lastOf(lines: readonly LogLine[], most_chars: number): LogLine[] {
  const all = lines.reduce((chars, { text }) => chars + text.length + 1, 0);
  const last: LogLine[] = [];
  let left = most_chars;
  for (const line of lines.toReversed()) {
    const besides = all - line.text.length - 1;
    const text = shortened(line.text, Math.max(Math.floor(most_chars / 4), most_chars - besides));
    if (text.length > left) break;
    left -= text.length + 1;
    last.push({ ...line, text });
  }
  return last.reverse();
}

/** Its beginning and its end. */
function shortened(text: string, most_chars: number): string {
  if (text.length <= most_chars) return text;
  const half = most_chars >> 1;
  return `${text.slice(0, most_chars - half - 1)}…${text.slice(text.length - half)}`;
}
