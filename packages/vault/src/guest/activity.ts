/** Counts a worker's calls for the agent: how many there were, whether one is under way, how long there has been none. */
import type { Activity } from '@hauki/protocol';
import type { Session } from '@hauki/rpc';

// Taken before the worker's code runs, which may replace it.
const now = performance.now.bind(performance);

export class ActivityCounter {
  /** Calls of sessions that are over, and those of clients without one. */
  #earlier = 0;
  /** What callers' sides ask of the guest itself, heartbeats first of all: no calls of the worker. */
  #own = 0;
  #own_under_way = 0;
  #plain_under_way = 0;
  #last = now();
  #seen: Activity = { calls: 0, under_way: 0, idle_ms: 0 };

  /** The worker is there: what was before counts for nothing, and another clock may have told of it. */
  born(): void {
    this.#last = now();
  }

  /** A session has ended. */
  over(session: Session): void {
    this.#earlier += session.stats().calls_served;
    this.#last = now();
  }

  /** A call of the worker begins; `outcome` is what it gave at once. */
  begun(outcome: unknown): void {
    this.#last = now();
    if (!(outcome instanceof Promise)) return;
    const ended = () => {
      this.#last = now();
    };
    outcome.then(ended, ended);
  }

  /** A question to the guest itself, within a session. */
  own<T>(answer: T): T {
    this.#own++;
    if (!(answer instanceof Promise)) return answer;
    this.#own_under_way++;
    const ended = () => {
      this.#own_under_way--;
    };
    answer.then(ended, ended);
    return answer;
  }

  /** A call without a session. */
  async plain<T>(call: () => T): Promise<Awaited<T>> {
    this.#earlier++;
    this.#plain_under_way++;
    try {
      return await call();
    } finally {
      this.#plain_under_way--;
      this.#last = now();
    }
  }

  /** As of now. References are called past `begun`: what changed since the last look happened just now, for all we know. */
  look(sessions: Iterable<Session>): Activity {
    let calls = this.#earlier - this.#own;
    let under_way = this.#plain_under_way - this.#own_under_way;
    for (const session of sessions) {
      const { calls_served, serving, streams } = session.stats();
      calls += calls_served;
      under_way += serving + streams;
    }
    under_way = Math.max(0, under_way);
    const { calls: seen, under_way: seen_under_way } = this.#seen;
    if (under_way > 0 || seen_under_way > 0 || calls !== seen) this.#last = now();
    this.#seen = { calls, under_way, idle_ms: under_way > 0 ? 0 : now() - this.#last };
    return this.#seen;
  }
}
