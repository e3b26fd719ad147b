/**
 * What of `console` few workers use, and how its lines are put together (Console standard). Apart from `context.ts`, because
 * in QuickJS it is loaded when it is first needed.
 */
import { LIMITS } from '@hauki/protocol';
import { present } from './present.ts';

/** Labels that `count` and `time` keep; as many as a program has names for. */
const LABELS = 1_000;

export interface ConsolePowers {
  write_log(level: string, values: unknown[]): void;
  /** Throws GrantMissing without the grant `time`. */
  now(): number;
}

/** The methods of the console that are here, by their names. */
export const LATE_METHODS = [
  ...['assert', 'clear', 'count', 'countReset', 'dir', 'dirxml', 'group', 'groupCollapsed', 'groupEnd'],
  ...['table', 'time', 'timeEnd', 'timeLog', 'timeStamp'],
] as const;

export interface LateConsole {
  present: typeof present;
  /** A line of these values. */
  format(values: unknown[]): string;
  methods: Record<string, (...given: any[]) => void>;
}

export function lateConsole({ write_log, now }: ConsolePowers): LateConsole {
  const shown = (value: unknown) => present(value, LIMITS.log_line_chars);
  const counts = new Map<string, number>();
  const starts = new Map<string, number>();
  const keep = (map: Map<string, number>, label: string, value: number) => {
    if (map.size < LABELS || map.has(label)) map.set(label, value);
  };
  const put = (...values: unknown[]) => values.length > 0 && write_log('info', values);
  const warn = (text: string) => write_log('warn', [text]);
  /** Runs what asks the clock, which may not be granted. */
  const timed = (run: () => void) => {
    try {
      run();
    } catch (error) {
      warn(`console has no clock: ${(error as Error).message}`);
    }
  };
  const passed = (label: string, values: unknown[]) =>
    timed(() => {
      const start = starts.get(label);
      if (start === undefined) return warn(`No such label '${label}' for console.time()`);
      write_log('info', ['%s: %sms', label, (now() - start).toFixed(3), ...values]);
    });

  return {
    present,
    format([first, ...rest]) {
      const parts = [typeof first === 'string' && rest.length > 0 ? filled(first, rest, shown) : shown(first)];
      for (let i = 0, chars = 0; i < rest.length && chars < LIMITS.log_line_chars; i++)
        chars += parts[parts.push(shown(rest[i])) - 1]!.length;
      return parts.join(' ');
    },
    methods: {
      assert(holds?: unknown, ...[first, ...rest]: unknown[]) {
        if (holds) return;
        if (typeof first === 'string') write_log('error', [`Assertion failed: ${first}`, ...rest]);
        else write_log('error', first === undefined ? ['Assertion failed'] : ['Assertion failed', first, ...rest]);
      },
      clear() {},
      count(label = 'default') {
        const count = (counts.get(`${label}`) ?? 0) + 1;
        keep(counts, `${label}`, count);
        put(`${label}: ${count}`);
      },
      countReset: (label = 'default') => void counts.delete(`${label}`),
      dir: (value) => put(value),
      dirxml: put,
      group: put,
      groupCollapsed: put,
      groupEnd() {},
      table: (value) => put(value),
      time: (label = 'default') => timed(() => keep(starts, `${label}`, now())),
      timeEnd(label = 'default') {
        passed(`${label}`, []);
        starts.delete(`${label}`);
      },
      timeLog: (label = 'default', ...values) => passed(`${label}`, values),
      timeStamp() {},
    },
  };
}

/** A text whose %s and so on are filled in with values, which are then no longer among `rest`. */
function filled(text: string, rest: unknown[], shown: (value: unknown) => string): string {
  // Where a text holds too much to be shown, what would be put in behind is not looked at.
  return text.slice(0, LIMITS.log_line_chars).replace(/%[sdifjoOc%]/g, (found) => {
    if (found === '%%') return '%';
    if (rest.length === 0) return found;
    const value = rest.shift();
    try {
      return put(found[1]!, value, shown);
    } catch {
      return shown(value);
    }
  });
}

function put(kind: string, value: unknown, shown: (value: unknown) => string): string {
  if (kind === 'c') return '';
  if (kind === 'j') return JSON.stringify(value) ?? 'undefined';
  const number = kind === 'd' || kind === 'i' || kind === 'f';
  if (!number) return shown(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'symbol') return 'NaN';
  if (kind === 'd') return shown(Number(value));
  return shown(kind === 'i' ? Number.parseInt(String(value), 10) : Number.parseFloat(String(value)));
}
