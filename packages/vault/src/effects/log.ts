/** The guest's log: lines are cut to size, cannot pass for others, and come at a bounded rate. Needs no grant. */
import { LIMITS } from '@hauki/protocol';
import type { EffectMaker } from './effect.ts';

/** Log lines that a guest may write in a second; more are dropped and counted. */
const LOG_LINES_PER_S = 200;
/** What a guest can have dropped since it last said so; more is no count. */
const MOST_DROPPED = 1e12;
const LEVELS = new Set(['debug', 'info', 'warn', 'error']);

const cut = (text: string) => text.slice(0, LIMITS.log_line_chars);

export const logEffect: EffectMaker = (vault) => {
  let lines = 0;
  let second: NodeJS.Timeout | undefined;
  // Also where it says nothing more: what is missing is said.
  const over = () => {
    clearTimeout(second);
    second = undefined;
    if (lines > LOG_LINES_PER_S) vault.log('warn', `[${lines - LOG_LINES_PER_S} lines were dropped: too many at once]`);
    lines = 0;
  };
  vault.ended.addEventListener('abort', over, { once: true });
  return {
    // `dropped`: lines that the guest itself has not passed on; it tells of them alone.
    log([level, text, dropped]) {
      second ??= setTimeout(over, 1000).unref();
      if (dropped !== undefined) {
        if (typeof dropped !== 'number' || !(dropped > 0 && dropped <= MOST_DROPPED)) return;
        // Whoever drops has passed on all that is taken here, also where that was in the second before.
        lines = Math.max(lines, LOG_LINES_PER_S) + Math.floor(dropped);
        return;
      }
      if (++lines > LOG_LINES_PER_S) return;
      vault.log(
        typeof level === 'string' && LEVELS.has(level) ? level : 'info',
        cut(cut(typeof text === 'string' ? text : '').replaceAll('\n', '\n  ')),
      );
    },
  };
};
