/**
 * A worker's lease: it lives until its deadline, and each heartbeat of its owner moves the deadline on. The guest only
 * passes heartbeats on; their MACs are checked here with a key that the vault never had (design, decision 6).
 */
import { Unauthorised } from '@hauki/protocol';
import { destructText, heartbeatText, macHolds } from '@hauki/rpc';

export interface LeaseTerms {
  worker: string;
  epoch: number;
  /** The owner's lease key, base64url. */
  key: string;
  lease_ms: number;
  /** Lives at least this long, heartbeats or not. */
  ttl_ms: number;
}

export class Lease {
  readonly #terms: LeaseTerms;
  readonly #expired: () => void;
  readonly #now: () => number;
  #counter = 0;
  #until: number;
  #timer: NodeJS.Timeout | undefined;

  /** `expired` is called once, when nobody has renewed in time. */
  constructor(terms: LeaseTerms, expired: () => void, now: () => number = () => Date.now()) {
    this.#terms = terms;
    this.#expired = expired;
    this.#now = now;
    this.#until = now() + Math.max(terms.lease_ms, terms.ttl_ms);
    this.#wait();
  }

  /** Milliseconds since 1970. */
  get until(): number {
    return this.#until;
  }

  /** Renews. Throws Unauthorised for a wrong MAC or a counter that does not grow; the deadline then stays. */
  async renew(counter: number, mac: string): Promise<number> {
    const { worker, epoch, key, lease_ms } = this.#terms;
    if (!Number.isSafeInteger(counter) || counter <= this.#counter)
      throw new Unauthorised({ why: 'this heartbeat was used before' });
    if (!(await macHolds(key, heartbeatText(worker, epoch, counter), mac)))
      throw new Unauthorised({ why: 'this heartbeat is not from the worker’s owner' });
    if (counter <= this.#counter) throw new Unauthorised({ why: 'this heartbeat was used before' });
    this.#counter = counter;
    this.#until = Math.max(this.#until, this.#now() + lease_ms);
    return this.#until;
  }

  /** Whether the owner itself asks for the worker's end. */
  async mayDestruct(mac: string): Promise<boolean> {
    const { worker, epoch, key } = this.#terms;
    return macHolds(key, destructText(worker, epoch), mac);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  // The timer is set once a lease, not once a heartbeat: when it fires early, it waits for the rest.
  #wait(): void {
    const left = this.#until - this.#now();
    if (left <= 0) return this.#expired();
    this.#timer = setTimeout(() => this.#wait(), Math.min(left, 0x7fffffff));
  }
}
