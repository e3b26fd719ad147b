/**
 * How much a worker's log passes on in a second, and what of it at once: the last words of code that ends its process, or
 * never returns, are what its end is explained by. Code that logs without end in one turn must not fill what leads out of
 * the vault, or a chatty loop would be taken for an attack. What is more is dropped and counted; the agent, which takes
 * less still (`effects/log.ts`), says how much. A guest whose code has removed this ends as before.
 */
import { LIMITS } from '@hauki/protocol';

/** Far more than the agent takes in a second, so that it is the agent that decides. */
const LINES = 1_000;
const CHARS = 512 * 1024;
/** Lines that leave at once, each by itself: as many as the agent takes in a second. What is more leaves with the turn. */
const AT_ONCE = 200;
const WINDOW_MS = 1_000;

/** `write`: passes a line on, at once or not, or, without text, how many lines were dropped. `later`: a timer. */
export function boundedLog(
  write: (at_once: boolean, level: string, text: string, dropped?: number) => void,
  later: (run: () => void, delay_ms: number) => unknown,
): (level: string, text: () => string) => void {
  let open = false;
  let lines = 0;
  let chars = 0;
  let dropped = 0;
  let untold = 0;
  const tell = () => {
    const now = untold;
    untold = 0;
    if (now > 0) write(true, 'warn', '', now);
  };
  const over = () => {
    tell();
    open = false;
    lines = chars = dropped = 0;
  };
  return (level, text) => {
    if (!open) {
      open = true;
      later(over, WINDOW_MS);
    }
    if (++lines <= LINES && chars < CHARS) {
      const line = text().slice(0, LIMITS.log_line_chars);
      chars += line.length;
      return write(lines <= AT_ONCE, level, line);
    }
    dropped++;
    untold++;
    // Code that never returns lets no timer run: so it is told now and then, ever more seldom.
    if ((dropped & (dropped - 1)) === 0) tell();
  };
}
