/**
 * What a storm of kills writes down: every outcome of every load by its name, and all that must not have been. It also
 * counts what workers did, by requests to a server of its own, which nobody kills.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { MeshError } from '@hauki/mesh';

/** How much later than its deadline a call may settle: the machine is busy, and this process is too. */
export const SLACK_MS = 15_000;

/** What callers are told while something is killed, and nothing else: each says that it did not, or may not, happen. */
export const KILLED = [
  ...['ConnectionLost', 'OutcomeUnknown', 'DeadlineExceeded', 'Overloaded', 'NoNodeFits', 'VaultFailed'],
  ...['WorkerDied', 'SessionLost', 'WorkerRestarting'],
];

export const digestOf = (text: string) => createHash('sha256').update(text).digest('hex');

export class Book {
  readonly faults: string[] = [];
  /** By load: how often what came out. */
  readonly counts: Record<string, Record<string, number>> = {};
  readonly #runs = new Map<string, Set<string>>();
  readonly #server = createServer((request, response) => {
    const [, id = '', run = ''] = request.url!.split('/');
    const runs = this.#runs.get(id) ?? new Set();
    this.#runs.set(id, runs.add(run));
    if (runs.size > 1) this.fault(`${id} ran more than once: ${[...runs].join(', ')}`);
    response.end();
  });
  /** `host:port` of the server that counts. */
  target = '';

  async open(): Promise<void> {
    await once(this.#server.listen(0, '127.0.0.1'), 'listening');
    this.target = `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  /** How often something ran, as far as whoever ran it could tell. */
  runs = (id: string): number => this.#runs.get(id)?.size ?? 0;

  fault(text: string): void {
    this.faults.push(`${new Date().toISOString().slice(11, 23)} ${text}`);
    console.error(`  FAULT: ${text}`);
  }

  count(load: string, outcome: string, times = 1): void {
    this.counts[load] ??= {};
    const of = this.counts[load];
    of[outcome] = (of[outcome] ?? 0) + times;
  }

  /**
   * Does something and writes down what came of it. Undefined where it was told by one of the errors that may be; any
   * other error, and none in time, is a fault.
   */
  async tried<T>(load: string, within_ms: number, may_be: readonly string[], work: () => PromiseLike<T>) {
    const timer = new AbortController();
    const late = sleep(within_ms + SLACK_MS, 'late' as const, { signal: timer.signal }).catch(() => 'late' as const);
    const began = Date.now();
    try {
      const settled = await Promise.race([
        Promise.resolve()
          .then(work)
          .then((value) => ({ value })),
        late,
      ]);
      if (settled !== 'late') {
        this.count(load, 'done');
        return settled;
      }
      this.fault(`${load}: nothing within ${within_ms} ms, begun ${new Date(began).toISOString()}`);
    } catch (error) {
      const name = error instanceof MeshError ? error.name : 'untyped';
      this.count(load, name);
      if (!may_be.includes(name)) this.fault(`${load}: ${(error as Error)?.stack ?? error}`);
    } finally {
      timer.abort();
    }
    return undefined;
  }
}

export interface World {
  book: Book;
  random(): number;
  /** A new name for something, unique in this storm. */
  name(kind: string): string;
  folder: string;
  over(): boolean;
}

export interface Load {
  what: string;
  /** Until the storm is over. */
  run(): Promise<void>;
  /** In the quiet after it: throws what is not yet as it must be, and is asked again for a while. */
  check(): Promise<void>;
}
