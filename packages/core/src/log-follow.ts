/**
 * Follows one worker's log for one reader, over restarts of a lasting worker, until the worker is gone for good, and not
 * into another owner's of the same name.
 *
 * What always holds: lines come in order, each once; where lines were dropped it says how many; nothing is fetched that
 * the reader has not room for, so it grows with nobody. Nothing is asked of the node more often than `PACE_MS`.
 */
import { ConnectionLost, type Fate, isError, LIMITS, type LogLine, type LogPage, WorkerUnknown } from '@hauki/protocol';
import type { Registry } from './registry.ts';

/** What a reader is told: a line, that all is quiet, or, last, what became of the worker. */
export type LogNews = { line: LogLine } | { quiet: true } | { fate: Fate };

/** At most so often the node is asked; a worker that floods its log fills one answer each time. */
const PACE_MS = 100;
const AGAIN_MS = 300;

const rest = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
/** A line of the core's own. */
const note = (level: 'warn' | 'vault', text: string): LogNews => ({ line: { seq: 0, at: Date.now(), level, text } });

/** `last`: how many lines of those that there are come first. `gone`: whether the reader has left. */
export async function* followLog(
  registry: Registry,
  worker: string,
  last: number,
  gone: () => boolean,
): AsyncGenerator<LogNews, void> {
  const { owner } = registry.known(worker);
  /** The start whose lines are being read, and the last of them that was given; undefined before the first look. */
  let at: { epoch: number; seq: number } | undefined;
  /** The newest start whose end was told. */
  let told = 0;
  /** Those of the lines that were not given yet; at the first look the last few. */
  const fresh = (epoch: number, lines: LogLine[]): LogLine[] => {
    const found = at
      ? lines.filter(({ seq }) => epoch !== at!.epoch || seq > at!.seq)
      : last > 0
        ? lines.slice(-last)
        : [];
    at = { epoch, seq: Math.max(at?.epoch === epoch ? at.seq : 0, lines.at(-1)?.seq ?? 0) };
    return found;
  };
  while (!gone()) {
    if (registry.known(worker).owner !== owner) return yield { fate: followed(worker, owner, told) };
    const entry = registry.workers.get(worker);
    if (!entry) {
      const fate = registry.fate(worker);
      const restarting = registry.restarting.get(worker);
      if (!fate && !restarting) throw new WorkerUnknown({ worker });
      const epoch = fate?.epoch ?? 1;
      if (fate && epoch > told) {
        for (const line of fresh(epoch, fate.lines)) yield { line };
        told = epoch;
        if (restarting) yield note('vault', `it has ended (${fate.cause}: ${fate.reason}) and is being started again`);
      }
      if (fate && !restarting) return yield { fate };
      yield { quiet: true };
      await rest(AGAIN_MS);
      continue;
    }
    const page = await ask(registry, entry.node, worker, at?.seq);
    if (!page) {
      yield { quiet: true };
      await rest(AGAIN_MS);
      continue;
    }
    const now = registry.workers.get(worker);
    if (now && (now.owner !== owner || now.epoch !== page.epoch)) {
      await rest(PACE_MS);
      continue;
    }
    if (at && page.epoch !== at.epoch) {
      // It was started again meanwhile: its lines are counted anew.
      at = { epoch: page.epoch, seq: 0 };
      continue;
    }
    if (at && at.seq > 0 && page.missed > 0)
      yield note('warn', `[${page.missed} lines were dropped: too many at once]`);
    const lines = fresh(page.epoch, page.lines);
    for (const line of lines) yield { line };
    if (lines.length === 0) yield { quiet: true };
    await rest(PACE_MS);
  }
}

/** What became of a worker whose name is another owner's by now: that is all that is known of it. */
const followed = (worker: string, owner: string, epoch: number): Fate => ({
  ...{ worker, owner, epoch, cause: 'destructed', at: Date.now(), lines: [] },
  reason: 'it was deleted, and another owner has a worker of its name',
});

/** The node's word; undefined where the node is away, or has just lost the worker. */
async function ask(registry: Registry, node: string, worker: string, after?: number): Promise<LogPage | undefined> {
  const session = registry.nodes.get(node)?.session;
  if (!session) return undefined;
  const wait_ms = after === undefined ? 0 : LIMITS.log_wait_ms;
  const options = { timeout_ms: LIMITS.log_wait_ms + LIMITS.handshake_ms };
  try {
    return (await session.call('logs', [worker, after ?? -LIMITS.log_lines, wait_ms], options)) as LogPage;
  } catch (error) {
    if (isError(error, WorkerUnknown) || isError(error, ConnectionLost) || !session.open) return undefined;
    throw error;
  }
}
