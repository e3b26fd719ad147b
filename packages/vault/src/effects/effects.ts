/**
 * Effects: what the host does for a guest, on its grants' word. The guest only names an effect; whether it may, and
 * how much at once, is decided here, for each vault.
 */
import {
  BadInput,
  GrantMissing,
  type Grants,
  LIMITS,
  NoSuchMethod,
  Overloaded,
  parsePointer,
  pointerGranted,
} from '@hauki/protocol';
import { performFetch } from './fetch.ts';

/** MeshFS as effects need it. */
export interface MeshFsClient {
  resolve(pointer: string): Promise<{ pointer: string; content: string; media_type: string }>;
  write(pointer: string, content: string, media_type?: string): Promise<object>;
}

export interface EffectPowers {
  grants: Grants;
  meshfs: MeshFsClient;
  /** Takes one line, already cut to size. */
  log(level: string, line: string): void;
}

/** Log lines that a guest may write in a second; more are dropped and counted. */
const LOG_LINES_PER_S = 200;
/** Fetches of one vault under way. */
const FETCHES = 6;
const LEVELS = new Set(['debug', 'info', 'warn', 'error']);

/** A vault's effects. The function performs one or throws a typed error. */
export function createEffects(powers: EffectPowers): (name: string, args: unknown[]) => Promise<unknown> {
  const { grants, meshfs } = powers;
  let running = 0;
  let fetching = 0;
  const waiting: (() => void)[] = [];
  let window_s = 0;
  let lines = 0;

  const log = (level: unknown, text: unknown) => {
    const now_s = Math.floor(Date.now() / 1000);
    if (now_s !== window_s) {
      if (lines > LOG_LINES_PER_S)
        powers.log('warn', `[${lines - LOG_LINES_PER_S} lines were dropped: too many at once]`);
      window_s = now_s;
      lines = 0;
    }
    if (++lines > LOG_LINES_PER_S) return;
    powers.log(
      LEVELS.has(String(level)) ? String(level) : 'info',
      String(text).slice(0, LIMITS.log_line_chars).replaceAll('\n', '\n  '),
    );
  };

  // Bodies are held whole: a few at a time, the rest waits its turn (bounded by the effects in flight).
  const fetchInTurn = async (args: unknown[]) => {
    if (fetching >= FETCHES) await new Promise<void>((resolve) => waiting.push(resolve));
    fetching++;
    try {
      return await performFetch(args, grants);
    } finally {
      fetching--;
      waiting.shift()?.();
    }
  };

  const pointer = (right: 'read' | 'write', given: unknown): string => {
    const { text } = parsePointer(given as string);
    if (!pointerGranted(grants.meshfs[right], text)) throw new GrantMissing({ grant: `meshfs.${right}`, wanted: text });
    return text;
  };

  const perform = async (name: string, args: unknown[]): Promise<unknown> => {
    switch (name) {
      case 'fetch':
        return fetchInTurn(args);
      case 'meshfs.resolve':
        return meshfs.resolve(pointer('read', args[0]));
      case 'meshfs.write': {
        const [to, content, media_type] = args;
        if (typeof content !== 'string') throw new BadInput({ what: 'meshfs.write', why: 'the content must be text' });
        return meshfs.write(pointer('write', to), content, typeof media_type === 'string' ? media_type : undefined);
      }
      default:
        throw new NoSuchMethod({ method: name, has: ['fetch', 'meshfs.resolve', 'meshfs.write', 'log'] });
    }
  };

  return async (name, args) => {
    if (!Array.isArray(args)) throw new BadInput({ what: String(name), why: 'arguments come as a list' });
    if (name === 'log') return log(args[0], args[1]);
    if (running >= LIMITS.effects_in_flight)
      throw new Overloaded({ what: 'effects of this worker', limit: LIMITS.effects_in_flight });
    running++;
    try {
      return await perform(String(name), args);
    } finally {
      running--;
    }
  };
}
