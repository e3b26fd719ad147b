/**
 * A worker's lease: it lives until its deadline, and each heartbeat of its owner moves the deadline on. The guest only
 * passes heartbeats on; their MACs are checked here with a key that the vault never had (design, decision 6).
 */
import { type Beat, Unauthorised } from '@hauki/protocol';
import { destructText, heartbeatText, macHolds, randomText } from '@hauki/rpc';

export interface LeaseTerms {
  worker: string;
  epoch: number;
  /** The owner's lease key, base64url. */
  key: string;
  /** The id of the owner's ticket: the first challenge. */
  jti: string;
  lease_ms: number;
  /** Lives at least this long, heartbeats or not. */
  ttl_ms: number;
  /** Never runs out: the worker lives until it is destructed. */
  lasting?: boolean | undefined;
}

/** Setting the machine's clock ends no lease. */
const steady = () => performance.now();

/** A timer that fires so much late means that the agent itself stood still, with heartbeats unread. */
const STOOD_STILL_MS = 100;

export class Lease {
  readonly #terms: LeaseTerms;
  readonly #expired: () => void;
  readonly #now: () => number;
  readonly #wall: () => number;
  #challenge: string;
  #until: number;
  /** What was left when the clock was stopped. */
  #left: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** The owner has had the lease more that is given when the agent stood still, and has not come since. */
  #spared = false;

  /** `expired` is called once, when nobody has renewed in time. `now` is steady; `wall` is what is told by. */
  constructor(terms: LeaseTerms, expired: () => void, now = steady, wall: () => number = Date.now) {
    this.#terms = terms;
    this.#expired = expired;
    this.#now = now;
    this.#wall = wall;
    this.#challenge = terms.jti;
    this.#until = now() + Math.max(terms.lease_ms, terms.ttl_ms);
    if (!terms.lasting) this.#wait();
  }

  /** Milliseconds since 1970, by the machine's clock as it is now; 0 where it never runs out, or stands still. */
  get until(): number {
    return this.#terms.lasting || this.#left !== undefined ? 0 : this.#told();
  }

  #told = (): number => Math.round(this.#wall() + this.#until - this.#now());

  /** The clock stands still until `resume`. */
  pause(): void {
    if (this.#terms.lasting || this.#left !== undefined) return;
    clearTimeout(this.#timer);
    this.#left = Math.max(0, this.#until - this.#now());
  }

  /** The clock goes on, with at least a whole lease: who wants the worker must have time to say so. */
  resume(): void {
    if (this.#left === undefined) return;
    this.#until = this.#now() + Math.max(this.#left, this.#terms.lease_ms);
    this.#left = undefined;
    this.#wait();
  }

  /**
   * Renews by a beat over the present challenge. An honest beat over an older one changes nothing and learns the present
   * one. Throws Unauthorised for a wrong MAC.
   */
  async renew(challenge: string, mac: string): Promise<Beat> {
    const { worker, epoch, key, lease_ms } = this.#terms;
    // It is a stranger's: what is no text may be anything.
    if (typeof challenge !== 'string' || !(await macHolds(key, heartbeatText(worker, epoch, challenge), mac)))
      throw new Unauthorised({ why: 'this heartbeat is not from the worker’s owner' });
    const renewed = challenge === this.#challenge;
    if (renewed) {
      this.#challenge = randomText(16);
      this.#spared = false;
      this.#until = Math.max(this.#until, this.#now() + lease_ms);
    }
    return { renewed, lease_until: this.#told(), next: this.#challenge };
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
    const left = Math.max(0, this.#until - this.#now());
    this.#timer = setTimeout(() => this.#look(), Math.min(left, 0x7fffffff));
  }

  #look(): void {
    const late = this.#now() - this.#until;
    if (late >= 0 && (late < STOOD_STILL_MS || this.#spared)) return this.#expired();
    if (late >= 0) {
      this.#spared = true;
      this.#until = this.#now() + this.#terms.lease_ms;
    }
    this.#wait();
  }
}
