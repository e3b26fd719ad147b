/**
 * A proxy between two streams of bytes that does what networks do: it delays, tears, cuts in the middle of a frame, goes
 * silent and cuts later, closes one direction first, and lets the far side believe for a while in a connection whose near
 * side is gone. Every choice comes from a seed. Beside it: streams in memory, and a clock that needs no waiting.
 *
 * What always holds, as on TCP: a connection delivers a prefix of what was written, in order; after a loss it is cut.
 */
import { Duplex } from 'node:stream';

/** Seeded numbers (mulberry32). */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** From 0 up to 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from `from` to `to`, both included. */
  int(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1));
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.next() * list.length)]!;
  }

  /** Another dice, so that what one part rolls does not depend on how often others roll. */
  fork(): Dice {
    return new Dice(Math.floor(this.next() * 2 ** 32));
  }
}

/** What becomes of one connection. */
export interface Plan {
  fault: 'none' | 'refuse' | 'cut' | 'late' | 'hole' | 'half';
  /** The direction whose bytes are counted: `up` goes to the far side. */
  direction: 'up' | 'down';
  /** The fault comes after so many bytes of that direction. */
  at: number;
  /** From the fault to the cut, for those that do not cut at once. */
  linger_ms: number;
  /** Chunks are torn into pieces of at most so many bytes. */
  piece: number;
  /** A piece waits for up to so many milliseconds; 0: it goes on at once. */
  delay_ms: number;
}

export const WHOLE: Plan = { fault: 'none', direction: 'up', at: 0, linger_ms: 0, piece: 1 << 20, delay_ms: 0 };

/** Bytes of a handshake with resume, about: faults there are wanted as often as later ones. */
const HANDSHAKE_BYTES = 700;

export function rollPlan(dice: Dice): Plan {
  const fault = dice.pick(['none', 'cut', 'cut', 'cut', 'late', 'late', 'hole', 'half', 'refuse'] as const);
  return {
    fault,
    direction: dice.pick(['up', 'down']),
    at: dice.chance(0.3) ? dice.int(1, HANDSHAKE_BYTES) : dice.int(HANDSHAKE_BYTES, 12_000),
    linger_ms: dice.pick([0, 1, 5, 40, 300]),
    piece: dice.pick([7, 64, 1000, 1 << 20, 1 << 20]),
    delay_ms: dice.pick([0, 0, 0, 3, 30]),
  };
}

/** What happened, so that a test can show that its schedules contain what they are for. */
export interface Tally {
  connections: number;
  cuts: number;
  mid_frame: number;
  holes: number;
  half_closes: number;
  late: number;
  refused: number;
}

export const tally = (): Tally => ({
  connections: 0,
  cuts: 0,
  mid_frame: 0,
  holes: 0,
  half_closes: 0,
  late: 0,
  refused: 0,
});

/** Follows frames in passing, only to know whether a place lies inside one. */
class Boundaries {
  #left = 0;
  #head: number[] = [];

  get inside(): boolean {
    return this.#left > 0 || this.#head.length > 0;
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const taken = Math.min(this.#left, chunk.length - at);
        this.#left -= taken;
        at += taken;
        continue;
      }
      this.#head.push(chunk[at++]!);
      if (this.#head.length < 4) continue;
      this.#left = this.#head.reduce((sum, byte) => sum * 256 + byte, 0);
      this.#head = [];
    }
  }
}

export interface Joined {
  /** Cuts both ways, now. */
  cut(): void;
  /** Everything that went up, for who wants to send it again. */
  readonly went_up: Uint8Array[];
  readonly open: boolean;
}

/** Joins two streams by the plan until either ends. */
export function join(near: Duplex, far: Duplex, plan: Plan, dice: Dice, counted: Tally): Joined {
  const went_up: Uint8Array[] = [];
  const ways = { up: new Boundaries(), down: new Boundaries() };
  let silent = false;
  let near_gone = false;
  let over = false;
  counted.connections++;

  const cut = () => {
    if (over) return;
    over = true;
    counted.cuts++;
    if (ways.up.inside || ways.down.inside) counted.mid_frame++;
    near.destroy();
    far.destroy();
  };

  const strike = (to: Duplex) => {
    if (over || silent || near_gone) return;
    if (plan.fault === 'cut') cut();
    else if (plan.fault === 'hole') {
      counted.holes++;
      silent = true;
      setTimeout(cut, plan.linger_ms);
    } else if (plan.fault === 'half') {
      counted.half_closes++;
      to.end();
      setTimeout(cut, plan.linger_ms);
    } else if (plan.fault === 'late') {
      // The near side knows at once; the far side still hears what was under way, and writes to nobody.
      counted.late++;
      near_gone = true;
      near.destroy();
      setTimeout(cut, plan.linger_ms);
    }
  };

  const way = (direction: 'up' | 'down', from: Duplex, to: Duplex) => {
    const queue: (Uint8Array | undefined)[] = [];
    let came = 0;
    let passed = 0;
    let moving = false;
    const move = async () => {
      if (moving) return;
      moving = true;
      while (queue.length > 0) {
        if (plan.delay_ms > 0 && dice.chance(plan.piece / 1000)) await wait(dice.int(1, plan.delay_ms));
        const next = queue.shift();
        if (over) return;
        if (!next) {
          if (!to.destroyed) to.end();
          continue;
        }
        if (silent || (near_gone && direction === 'down')) continue;
        const counts = plan.fault !== 'none' && plan.direction === direction;
        const struck = counts && passed < plan.at && passed + next.length >= plan.at;
        const part = struck && plan.fault !== 'late' ? next.subarray(0, plan.at - passed) : next;
        passed += next.length;
        ways[direction].push(part);
        if (direction === 'up') went_up.push(part);
        if (!to.destroyed) to.write(part);
        // What was written just before arrives; what comes after does not.
        if (struck) await turn();
        if (struck) strike(to);
      }
      moving = false;
    };
    from.on('data', (chunk: Uint8Array) => {
      for (let at = 0; at < chunk.length; ) {
        // What is long is torn more coarsely, or it would take all the time there is.
        const piece = came < 2_000 ? plan.piece : Math.max(plan.piece, 4_000);
        queue.push(chunk.subarray(at, at + piece));
        came += piece;
        at += piece;
      }
      void move();
    });
    from.on('end', () => {
      queue.push(undefined);
      void move();
    });
    from.on('error', () => {});
    from.on('close', () => {
      // A side that has closed: the other learns it when what was under way has arrived.
      if (over || (from === near && near_gone)) return;
      queue.push(undefined);
      void move();
      setTimeout(() => {
        if (over) return;
        over = true;
        to.destroy();
      }, plan.linger_ms + plan.delay_ms);
    });
  };
  way('up', near, far);
  way('down', far, near);
  return {
    cut,
    went_up,
    get open() {
      return !over && !near_gone;
    },
  };
}

export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
export const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** One end of a stream in memory that behaves like a socket. */
class Side extends Duplex {
  other!: Side;
  readonly #moved: () => void;

  constructor(moved: () => void) {
    super({ allowHalfOpen: true });
    this.#moved = moved;
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#moved();
    if (!this.other.destroyed && !this.other.readableEnded) this.other.push(chunk);
    done();
  }

  override _final(done: () => void): void {
    this.#moved();
    if (!this.other.destroyed) this.other.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#moved();
    const { other } = this;
    if (!other.destroyed) setImmediate(() => other.destroy());
    done(error);
  }

  setNoDelay(): void {}
  setKeepAlive(): void {}
}

/** Two joined streams in memory; `moved` is called whenever something happens on them. */
export function streamPair(moved: () => void = () => {}): [Duplex, Duplex] {
  const a = new Side(moved);
  const b = new Side(moved);
  a.other = b;
  b.other = a;
  return [a, b];
}

interface Timer {
  at: number;
  run(): void;
  every: number | undefined;
}

/** Turns of the event loop without a sign of life after which nothing more happens until a timer. */
const QUIET_TURNS = 8;
/** By then any work under the clock must be done; and so many turns it may take. */
const TOO_LONG_MS = 600_000;
const TOO_MANY_TURNS = 30_000;

/**
 * Runs `work` under a clock that stands in for the process's timers and jumps to the next one when nothing else is going
 * on: what waits for seconds takes none, and the same work takes the same course each time.
 */
export async function withoutWaiting<T>(
  work: (clock: { readonly now: number; readonly waiting: number; moved(): void }) => Promise<T>,
): Promise<T> {
  const real = {
    setTimeout: globalThis.setTimeout,
    clearTimeout: globalThis.clearTimeout,
    setInterval: globalThis.setInterval,
    clearInterval: globalThis.clearInterval,
    date: Date.now,
  };
  const began = real.date();
  let now = 0;
  let quiet = 0;
  let turns = 0;
  const timers = new Set<Timer>();
  const set = (run: () => void, ms: number, every: boolean): Timer => {
    const delay = Math.max(1, Math.min(Number(ms) || 0, 0x7fffffff));
    const timer = { at: now + delay, run, every: every ? delay : undefined, unref: () => timer, ref: () => timer };
    timers.add(timer);
    return timer;
  };
  const clear = (timer: unknown) => void timers.delete(timer as Timer);
  Object.assign(globalThis, {
    setTimeout: (run: () => void, ms: number) => set(run, ms, false),
    setInterval: (run: () => void, ms: number) => set(run, ms, true),
    clearTimeout: clear,
    clearInterval: clear,
  });
  Date.now = () => began + Math.floor(now);
  Object.defineProperty(performance, 'now', { value: () => now, configurable: true });
  const clock = {
    get now() {
      return now;
    },
    get waiting() {
      return timers.size;
    },
    moved: () => {
      quiet = 0;
    },
  };
  try {
    let done = false;
    const result = work(clock).finally(() => {
      done = true;
    });
    result.catch(() => {});
    while (!done) {
      await turn();
      if (++turns > TOO_MANY_TURNS) throw new Error(`the work is not done after ${turns} turns, at ${now} ms`);
      if (done || ++quiet < QUIET_TURNS) continue;
      let next: Timer | undefined;
      for (const timer of timers) if (!next || timer.at < next.at) next = timer;
      if (!next) {
        if (quiet > 50 * QUIET_TURNS) throw new Error('nothing is going on, no timer waits, and the work is not done');
        continue;
      }
      quiet = 0;
      now = Math.max(now, next.at);
      if (now > TOO_LONG_MS) throw new Error(`the work is not done after ${TOO_LONG_MS} ms`);
      if (next.every === undefined) timers.delete(next);
      else next.at = now + next.every;
      next.run();
    }
    return await result;
  } finally {
    Object.assign(globalThis, {
      setTimeout: real.setTimeout,
      clearTimeout: real.clearTimeout,
      setInterval: real.setInterval,
      clearInterval: real.clearInterval,
    });
    Date.now = real.date;
    Reflect.deleteProperty(performance, 'now');
  }
}
