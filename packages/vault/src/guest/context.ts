/**
 * What a worker finds: `hauki` (its powers), `fetch`, `console`. All of them only ask; the host decides and performs.
 * A class gets the same `hauki` object as its constructor's argument.
 */
import { describe, MeshError, ownFrames } from '@hauki/protocol';
import type { Hauki, Served } from '@hauki/rpc';
import { LATE_METHODS, type LateConsole } from './console.ts';
import { createClone } from './family.ts';
import type { Outside } from './guest.ts';
import { boundedLog } from './log-bound.ts';
import { connectFor, fetchFor, type Platform } from './outward.ts';
import { createVolume } from './volume.ts';

export interface FetchedBody {
  status: number;
  status_text: string;
  url: string;
  /** Whether `url` is another than was asked for. */
  redirected?: boolean;
  headers: [string, string][];
  /** The body piece by piece, where that was asked for. */
  body?: AsyncIterable<Uint8Array>;
  /** Else whole: as text when it is UTF-8, else as `base64`. */
  text?: string;
  base64?: string;
}

/** A log line of these values. What is more than text is `late`'s. */
function lineOf(values: unknown[], late: () => LateConsole): string {
  const [first, ...rest] = values;
  const plain = values.every((value) => typeof value === 'string');
  if (plain && (rest.length === 0 || !(first as string).includes('%'))) return values.join(' ');
  try {
    return late().format(values);
  } catch (error) {
    // There is no room for it, mostly.
    return `a line that cannot be shown: ${describe(error)}`;
  }
}

/** Taken before the worker's code runs, which may replace it. */
const Asked = Error;

/** The host as the worker's code asks it: what it refuses tells where in that code it was asked. */
const asking = (outside: Outside): Outside => ({
  ...outside,
  async effect(...given) {
    const asked = new Asked();
    try {
      return await outside.effect(...given);
    } catch (error) {
      // What a clone threw tells its own place.
      if (error instanceof MeshError && error.fields.remote_stack === undefined) {
        const frames = ownFrames(String(asked.stack)).replace(/^(?! +at ).*\n?/, '');
        error.stack = `${error.name}: ${error.message}\n${frames}`.trimEnd();
      }
      throw error;
    }
  },
});

export function createContext(
  worker: string,
  host: Outside,
  platform: Platform,
  late: () => LateConsole,
): Hauki & { call?: Served; write_log(level: string, values: unknown[]): void } {
  const outside = asking(host);
  const log = boundedLog((at_once, ...line) => void host.effect('log', line, { at_once }).catch(() => {}), setTimeout);
  const write_log = (level: string, values: unknown[]) => log(level, () => lineOf(values, late));
  return {
    worker,
    write_log,
    log: (...values) => write_log('info', values),
    fetch: fetchFor(outside, platform) as Hauki['fetch'],
    connect: connectFor(outside),
    meshfs: {
      resolve: (pointer) => outside.effect('meshfs.resolve', [pointer]) as never,
      write: (pointer, content, media_type) => outside.effect('meshfs.write', [pointer, content, media_type]) as never,
    },
    volume: createVolume(outside),
    clone: createClone(outside),
  };
}

const LEVELS = { log: 'info', info: 'info', debug: 'debug', warn: 'warn', error: 'error', trace: 'debug' };

/** A console whose every line becomes a log effect. */
export function createConsole(
  write_log: (level: string, values: unknown[]) => void,
  late: () => LateConsole,
): Record<string, (...given: unknown[]) => void> {
  const made: ReturnType<typeof createConsole> = {};
  for (const [name, level] of Object.entries(LEVELS)) made[name] = (...values) => write_log(level, values);
  for (const name of LATE_METHODS) made[name] = (...given) => late().methods[name]!(...given);
  return made;
}
