/** The last lines that a worker logged, bounded in bytes. */
import { LIMITS } from '@hauki/protocol';

export class LogRing {
  #lines: string[] = [];
  #chars = 0;

  add(line: string): void {
    this.#lines.push(line);
    this.#chars += line.length + 1;
    while (this.#chars > LIMITS.log_tail_chars && this.#lines.length > 1)
      this.#chars -= this.#lines.shift()!.length + 1;
  }

  tail(): string {
    return this.#lines.join('\n');
  }
}
