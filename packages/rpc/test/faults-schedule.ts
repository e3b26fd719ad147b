/**
 * One schedule of faults: a caller that makes many calls of every sort, a worker that writes down whatever it executes,
 * a network that fails between them as the seed says, and at the end the books of both compared.
 *
 * The worker's side is the real gate with its real sessions and redeemer; the caller's is the SDK's real route, or one
 * that is reckless: it resumes whenever it likes, several times at once. Over 400 lines, because the caller's promises
 * and the checks of them belong together.
 */
import { EventEmitter, once } from 'node:events';
import { createServer, connect as dialTcp, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import {
  Cancelled,
  ConnectionLost,
  DeadlineExceeded,
  type ErrorClass,
  isError,
  LIMITS,
  type MeshError,
  OutcomeUnknown,
  RefGone,
  RemoteError,
  SessionLost,
  type Ticket,
  type TicketRole,
  WorkerDied,
} from '@hauki/protocol';
import { eitherRoute } from '../../mesh/src/powers-node.ts';
import { WorkerRoute } from '../../mesh/src/route.ts';
import { openGate } from '../../vault/src/guest/gate.ts';
import type { Inside } from '../../vault/src/guest/guest.ts';
import { bench, type Issued, issue, SELF } from '../../vault/test/ticket-support.ts';
import {
  type CallerKey,
  Channel,
  type FrameTransport,
  openSession,
  resumeKey,
  resumeSession,
  Session,
  type Transport,
} from '../src/index.ts';
import { streamTransport } from '../src/node.ts';
import {
  Dice,
  type Joined,
  join,
  type Plan,
  rollPlan,
  streamPair,
  type Tally,
  turn,
  WHOLE,
  wait,
  withoutWaiting,
} from './fault-proxy.ts';

export type Bench = Awaited<ReturnType<typeof bench>>;

/** An office that signs tickets, a redeemer and a caller's key, for any number of schedules. */
export async function openBench(): Promise<Bench> {
  const made = await bench();
  made.redeemer.prepare();
  return made;
}

export interface ScheduleOptions {
  seed: number;
  bench: Bench;
  /** What happens is counted here. */
  tally: Tally;
  /** Real sockets instead of streams in memory; time is then real too. */
  tcp?: boolean;
  /** Stands between the worker's channel and its session: for showing that the checks see what is wrong. */
  spoil?: (transport: Transport, dice: Dice) => Transport;
  /** The caller's channel; reckless callers only. */
  channel?: (detached: (reason: string) => void) => Channel;
  /** Which caller; rolled when left out. */
  caller?: 'route' | 'reckless';
}

/** What a schedule has of its surroundings. */
interface Surroundings {
  issued: Issued;
  role: TicketRole;
  /** Milliseconds of the present clock. */
  now: () => number;
  /** Something happened in the network. */
  moved?: () => void;
}

export interface Outcome {
  seed: number;
  /** What was wrong; empty when all is well. */
  faults: string[];
  calls: number;
  executions: number;
  connections: number;
  resolved: number;
  rejected: Record<string, number>;
  /** What was done, for whoever looks for a fault. */
  story: string[];
}

/** How long anything may take once the network is whole again, by the schedule's clock. */
const HEALED_MS = 60_000;
/** A deadline's timer and the turns that follow it. */
const LATE_MS = 25;

type Truth = 'once' | 'never' | 'perhaps';

/** What a settled call claims about its execution. */
function claim(error: unknown): Truth | undefined {
  const is = (kind: ErrorClass<any>) => isError(error, kind);
  if (is(RemoteError)) return 'once';
  if (is(OutcomeUnknown) || is(WorkerDied)) return 'perhaps';
  if (is(ConnectionLost) || is(RefGone)) return 'never';
  if (isError(error, DeadlineExceeded) || isError(error, Cancelled))
    return error.fields.may_have_run ? 'perhaps' : 'never';
  return undefined;
}

/** What one side executed, and in which order. */
class Book {
  readonly times = new Map<string, number>();
  readonly order = new Map<string, number[]>();
  total = 0;

  write(tag: number, target: string, at: string = String(tag)): void {
    this.total++;
    this.times.set(at, (this.times.get(at) ?? 0) + 1);
    const list = this.order.get(target) ?? [];
    list.push(tag);
    this.order.set(target, list);
  }

  faults(side: string): string[] {
    const found: string[] = [];
    for (const [at, times] of this.times) if (times > 1) found.push(`${side} executed ${at} ${times} times`);
    for (const [target, list] of this.order)
      for (let i = 1; i < list.length; i++)
        if (list[i]! <= list[i - 1]!) found.push(`${side}, ${target}: ${list[i]} began after ${list[i - 1]}`);
    return found;
  }
}

/** Compares a side's claims about its calls with the other side's book. */
class Claims {
  readonly #book: Book;
  readonly faults: string[] = [];
  readonly open = new Set<string>();
  readonly rejected: Record<string, number> = {};
  resolved = 0;
  made = 0;
  #settled: { at: string; truth: Truth; how: string }[] = [];

  constructor(book: Book) {
    this.#book = book;
  }

  /** Follows a call; `right` looks at what it resolves with. */
  follow(at: string, call: Promise<unknown>, timeout_ms: number | undefined, right: (value: any) => boolean) {
    this.made++;
    this.open.add(at);
    let late = false;
    // A timer set for later than the deadline fires after it, however busy the process is.
    const watch =
      timeout_ms === undefined
        ? undefined
        : setTimeout(() => {
            setImmediate(() => {
              late = true;
            });
          }, timeout_ms + LATE_MS);
    const over = () => {
      clearTimeout(watch);
      this.open.delete(at);
      if (late) this.faults.push(`${at} settled long after its deadline of ${timeout_ms} ms`);
    };
    return call.then(
      (value) => {
        over();
        this.resolved++;
        if (!right(value)) this.faults.push(`${at} resolved with ${JSON.stringify(value)?.slice(0, 100)}`);
        this.#settled.push({ at, truth: 'once', how: 'resolved' });
        return value;
      },
      (error) => {
        over();
        const name = (error as Error)?.name ?? String(error);
        this.rejected[name] = (this.rejected[name] ?? 0) + 1;
        const truth = claim(error);
        if (!truth) this.faults.push(`${at} rejected with ${error}`);
        else this.#settled.push({ at, truth, how: String(error) });
        return undefined;
      },
    );
  }

  check(): string[] {
    const found = [...this.faults];
    for (const at of this.open) found.push(`${at} never settled`);
    for (const { at, truth, how } of this.#settled) {
      const times = this.#book.times.get(at) ?? 0;
      if (truth === 'once' && times !== 1) found.push(`${at}: ${how}, but executed ${times} times`);
      if (truth === 'never' && times !== 0) found.push(`${at}: ${how}, but executed ${times} times`);
    }
    return found;
  }
}

/** Goes by reference: its calls are counted and kept in order for each name. */
class Counter {
  readonly #book: Book;
  #count = 0;

  constructor(book: Book) {
    this.#book = book;
  }

  add(tag: number, target: string): { tag: number; count: number } {
    this.#book.write(tag, target);
    return { tag, count: ++this.#count };
  }
}

/** The worker: everything that it does stands in its book. */
class Worker {
  readonly book = new Book();
  /** Calls that it makes back, against the caller's book. */
  readonly back: Claims;
  readonly faults: string[] = [];
  busy = 0;

  constructor(caller_book: Book) {
    this.back = new Claims(caller_book);
  }

  async call(method: string, [tag, ...args]: any[]): Promise<unknown> {
    this.busy++;
    try {
      return await this.#do(method, tag, args);
    } finally {
      this.busy--;
    }
  }

  /** Calls begin in their order: whatever is written down is written before anything waits. */
  #do(method: string, tag: number, args: any[]): unknown {
    const { book } = this;
    book.write(tag, 'root');
    if (method === 'now') return { tag };
    if (method === 'later') return wait(args[0]).then(() => ({ tag }));
    if (method === 'big') return { tag, text: 'x'.repeat(args[0]), bytes: new Uint8Array(args[0] / 2) };
    if (method === 'fail') throw new RangeError(`no ${tag}`);
    if (method === 'make') return new Counter(book);
    if (method === 'makeLater') return wait(args[0]).then(() => new Counter(book));
    if (method === 'touch') return (args[0] as Counter).add(args[1], `counter of ${tag}`);
    if (method === 'same') return args[0];
    if (method === 'feedAlso') return this.#feed(tag, args[1], args[2], 0);
    if (method === 'give') return this.#give(args[0], args[1], args[2]);
    if (method === 'feed') return this.#feed(tag, args[0], args[1], args[2]);
    if (method === 'back') return this.#back(tag, args[0], args[1], args[2]);
    throw new Error(`there is no ${method}`);
  }

  async *#give(count: number, size: number, pause_ms: number) {
    for (let i = 0; i < count; i++) {
      if (pause_ms > 0 && i % 3 === 2) await wait(pause_ms);
      yield { i, text: 'x'.repeat(size) };
    }
  }

  async #feed(tag: number, stream: AsyncIterable<{ i: number }>, whole: number, leave_at: number) {
    let next = 0;
    try {
      for await (const { i } of stream) {
        if (i !== next) this.faults.push(`stream of ${tag}: item ${i} came in place of ${next}`);
        next++;
        if (next === leave_at) break;
      }
      if (leave_at === 0 && next !== whole)
        this.faults.push(`stream of ${tag} ended quietly after ${next} of ${whole}`);
    } catch {
      // It said that it did not end well.
    }
    return { tag };
  }

  async #back(tag: number, run: any, count: number, pause_ms: number) {
    const calls: Promise<unknown>[] = [];
    for (let i = 0; i < count; i++) {
      if (pause_ms > 0) await wait(pause_ms);
      calls.push(this.back.follow(`back ${tag}.${i}`, run(i), LIMITS.call_ms, (value) => value === i));
    }
    await Promise.all(calls);
    run[Symbol.dispose]();
    return { tag };
  }
}

/** Runs one schedule; in memory without waiting, and the same seed takes the same course. */
export async function runSchedule(options: ScheduleOptions): Promise<Outcome> {
  const { bench: shared, seed, tcp } = options;
  // Signing takes a thread of its own, and real time.
  const role: TicketRole = seed % 2 === 0 ? 'owner' : 'visitor';
  const issued = await issue(shared.office, shared.caller.thumbprint, { role });
  const given = { issued, role };
  if (tcp) return run(options, { ...given, now: () => performance.now() });
  return withoutWaiting((clock) => run(options, { ...given, now: () => clock.now, moved: clock.moved }));
}

async function run(options: ScheduleOptions, { issued, role, now, moved }: Surroundings): Promise<Outcome> {
  const { seed, bench: shared, tally: counted, tcp = false } = options;
  const dice = new Dice(seed);
  const [net_dice, call_dice, way_dice] = [dice.fork(), dice.fork(), dice.fork()];
  const story: string[] = [];
  const tell = (text: string) => story.push(`${Math.round(now())} ${text}`);
  const faults: string[] = [];
  const caller_book = new Book();
  const worker = new Worker(caller_book);
  const claims = new Claims(worker.book);
  const joined: Joined[] = [];
  let whole = false;
  let dead = false;

  // ---- The worker, behind its gate
  const inner: { session: Session; transport: Transport }[] = [];
  const inside = {
    open(transport: Transport) {
      const heard = options.spoil?.(transport, dice.fork()) ?? transport;
      const session = new Session({
        transport: heard,
        dispatch: (method, params) => worker.call(method, params as unknown[]),
      });
      inner.push({ session, transport });
      // What was on its way to a worker that is dead by now finds nobody.
      if (dead) transport.close('killed');
      void session.closed.then((why) => tell(`the worker’s session ended: ${why}`));
    },
  } as unknown as Inside;
  const server = tcp ? createServer() : (new EventEmitter() as Server);
  openGate({ server, worker: SELF.worker, redeemer: shared.redeemer, inside, methods: () => ['now'], tls: false });

  // ---- The network
  const ends = new Set<Duplex>();
  const plans: Plan[] = [];
  let front: Server | undefined;
  const splice = (near: Duplex, far: Duplex, plan: Plan) => {
    ends.add(near).add(far);
    joined.push(join(near, far, plan, net_dice, counted));
    while (joined.length > 64) joined.shift();
  };
  if (tcp) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    front = createServer({ allowHalfOpen: true }, (near) => {
      near.on('error', () => near.destroy());
      const far = dialTcp({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
      far.on('error', () => far.destroy());
      const plan = plans.shift() ?? WHOLE;
      // Dialled before the network was whole, and taken after.
      splice(near, far, whole ? WHOLE : plan);
    });
    front.listen(0, '127.0.0.1');
    await once(front, 'listening');
  }
  const dial = async (what: string, given?: Plan): Promise<Duplex> => {
    const rolled = rollPlan(net_dice);
    const plan = given ?? (whole ? WHOLE : rolled);
    tell(`${what}: ${plan.fault}${plan.fault === 'none' ? '' : ` after ${plan.at} ${plan.direction}`}`);
    if (dead || plan.fault === 'refuse') {
      counted.refused++;
      throw new ConnectionLost({ why: 'refused' });
    }
    if (!tcp) {
      const [near, near_end] = streamPair(moved);
      const [far_end, far] = streamPair(moved);
      server.emit('connection', far as Socket);
      splice(near_end, far_end, plan);
      near.on('error', () => {});
      ends.add(near).add(far);
      return near;
    }
    plans.push(plan);
    const socket = dialTcp({ port: (front!.address() as { port: number }).port, host: '127.0.0.1', noDelay: true });
    ends.add(socket);
    socket.on('error', () => {});
    await once(socket, 'connect');
    return socket;
  };

  // ---- The caller
  const resume_key = await resumeKey(issued.ticket.secret, issued.jti);
  shared.redeemer.expect({ jti: issued.jti, role, key: issued.key, resume_key });
  const kind = options.caller ?? dice.pick(['route', 'route', 'reckless'] as const);
  const given = { ticket: issued.ticket, key: shared.caller, dial, dice: way_dice, tell };
  const died = new WorkerDied({ worker: SELF.worker, cause: 'killed', reason: 'the schedule says so' });
  const way =
    kind === 'route'
      ? await routed({ ...given, fate: async () => (dead ? died : undefined) })
      : await reckless({
          ...given,
          jti: issued.jti,
          resume_key,
          channel: options.channel,
          quiet: () => whole,
          gone: () => dead,
        });
  const session = new Session({ transport: way.channel, timeout_ms: 30_000 });
  const far = () => inner[0];
  tell(`${kind}, ${role}`);

  // ---- What it does
  const tasks: Promise<unknown>[] = [];
  const held: any[] = [];
  let next_tag = 1;
  const options_of = (roll: Dice): { timeout_ms?: number; signal?: AbortSignal } => {
    if (roll.chance(0.15)) return { timeout_ms: roll.pick([1, 5, 30, 200, 2_000]) };
    if (roll.chance(0.1)) {
      const controller = new AbortController();
      const after_ms = roll.pick([0, 1, 20, 300]);
      if (after_ms === 0) queueMicrotask(() => controller.abort(new Error('changed my mind')));
      else setTimeout(() => controller.abort(new Error('changed my mind')), after_ms);
      return { signal: controller.signal };
    }
    return {};
  };
  const follow = (tag: number, call: Promise<unknown>, timeout_ms = 30_000, right: (v: any) => boolean = () => true) =>
    claims.follow(String(tag), call, timeout_ms, right);
  const same = (tag: number) => (value: any) => value?.tag === tag;

  const acts: Record<string, (roll: Dice) => unknown> = {
    plain(roll) {
      for (let left = roll.int(1, 6); left > 0; left--) {
        const tag = next_tag++;
        const how = options_of(roll);
        const [method, ...args] = roll.pick([
          ['now'],
          ['now'],
          ['later', roll.pick([1, 10, 400])],
          ['big', roll.pick([10, 3_000, 30_000])],
          ['fail'],
        ] as const);
        const right = method === 'big' ? (v: any) => v.tag === tag && v.text.length === args[0] : same(tag);
        follow(tag, session.call(method, [tag, ...args], how), how.timeout_ms, right);
      }
    },
    async reference(roll) {
      const tag = next_tag++;
      const how = options_of(roll);
      const method = roll.pick(['make', 'makeLater']);
      const counter: any = await follow(tag, session.call(method, [tag, roll.int(1, 50)], how), how.timeout_ms);
      if (!counter) return;
      held.push(counter);
      for (let left = roll.int(1, 5); left > 0; left--) {
        const mine = next_tag++;
        follow(mine, counter.add(mine, `counter ${tag}`), 30_000, same(mine));
        if (roll.chance(0.3)) await wait(roll.pick([0, 5, 100]));
      }
      if (roll.chance(0.5)) {
        const mine = next_tag++;
        const touched = next_tag++;
        const both = session.call('touch', [mine, counter, touched]);
        follow(mine, both, 30_000, same(touched));
        claims.follow(String(touched), both, 30_000, same(touched));
      }
    },
    async pipelined(roll) {
      const tag = next_tag++;
      const how = options_of(roll);
      const method = roll.pick(['make', 'makeLater']);
      const made: any = session.call(method, [tag, roll.int(1, 50)], how);
      const calls: Promise<unknown>[] = [];
      if (!session.open) return follow(tag, made);
      for (let left = roll.int(1, 4); left > 0; left--) {
        const mine = next_tag++;
        calls.push(follow(mine, made.add(mine, `result ${tag}`), 30_000, same(mine)));
      }
      if (roll.chance(0.3)) {
        const mine = next_tag++;
        calls.push(follow(mine, session.call('touch', [mine, made, next_tag++]), 30_000));
      }
      const got = follow(tag, made, how.timeout_ms);
      if (roll.chance(0.3)) {
        // It waits for a result that it names, while what it is given streams on.
        const mine = next_tag++;
        const count = roll.int(0, 10);
        const items = (async function* () {
          for (let i = 0; i < count; i++) yield { i };
        })();
        calls.push(follow(mine, session.call('feedAlso', [mine, made, items, count]), 30_000, same(mine)));
      }
      if (roll.chance(0.3)) {
        // A call on the result of a call that waits itself.
        const mine = next_tag++;
        const its = next_tag++;
        const again: any = session.call('same', [mine, made]);
        calls.push(follow(its, again.add(its, `same ${mine}`), 30_000, same(its)));
        const counter = await follow(mine, again);
        if (counter) held.push(counter);
      }
      const counter = await got;
      if (counter) held.push(counter);
    },
    async stream_down(roll) {
      const tag = next_tag++;
      const how = options_of(roll);
      const [count, size] = roll.chance(0.1) ? [30, 20_000] : [roll.int(0, 20), roll.pick([1, 200])];
      const leave_at = roll.chance(0.2) ? roll.int(1, 5) : 0;
      const call = session.call('give', [tag, count, size, roll.pick([0, 0, 10])], how);
      const stream = (await follow(tag, call, how.timeout_ms)) as AsyncIterable<{ i: number }> | undefined;
      if (!stream) return;
      let next = 0;
      try {
        for await (const { i } of stream) {
          if (i !== next) faults.push(`stream ${tag}: item ${i} came in place of ${next}`);
          if (++next === leave_at) break;
        }
        if (leave_at === 0 && next !== count) faults.push(`stream ${tag} ended quietly after ${next} of ${count}`);
      } catch (error) {
        if (session.open) faults.push(`stream ${tag} broke although its session lives: ${error}`);
      }
    },
    stream_up(roll) {
      const tag = next_tag++;
      const how = options_of(roll);
      const [count, size] = roll.chance(0.1) ? [30, 20_000] : [roll.int(0, 20), roll.pick([1, 200])];
      const pause_ms = roll.pick([0, 0, 10]);
      const items = async function* () {
        for (let i = 0; i < count; i++) {
          if (pause_ms > 0 && i % 3 === 2) await wait(pause_ms);
          yield { i, text: 'x'.repeat(size) };
        }
      };
      const leave_at = roll.chance(0.2) ? roll.int(1, 5) : 0;
      return follow(tag, session.call('feed', [tag, items(), count, leave_at], how), how.timeout_ms, same(tag));
    },
    callback(roll) {
      const tag = next_tag++;
      const how = options_of(roll);
      const run = (i: number) => {
        caller_book.write(i, `callback of ${tag}`, `back ${tag}.${i}`);
        return roll.chance(0.3) ? wait(3).then(() => i) : i;
      };
      const args = [tag, run, roll.int(1, 8), roll.pick([0, 0, 4])];
      return follow(tag, session.call('back', args, how), how.timeout_ms, same(tag));
    },
  };
  const names = ['plain', 'plain', 'plain', ...Object.keys(acts)];

  const act = async () => {
    for (let left = call_dice.int(5, 14); left > 0; left--) {
      const name = call_dice.pick(names);
      const roll = call_dice.fork();
      tell(name);
      tasks.push(Promise.resolve(acts[name]!(roll)));
      if (call_dice.chance(0.6)) await wait(call_dice.pick(tcp ? [0, 1, 5, 30] : [0, 1, 5, 60, 700]));
      if (call_dice.chance(0.15)) {
        tell('cut from outside');
        joined.at(-1)?.cut();
      }
      if (call_dice.chance(0.1)) {
        // Somebody says again what was said on an earlier connection.
        const old = call_dice.pick(joined);
        const again = await dial('replay', WHOLE).catch(() => undefined);
        if (again) for (const chunk of [...old.went_up]) again.write(chunk);
        if (again) setTimeout(() => again.destroy(), 50);
      }
    }
  };

  const rolled = dice.pick(['heal', 'heal', 'heal', 'leave', 'leave', 'worker', 'forget'] as const);
  // Where time is real nobody waits until the worker has given up a caller whose bye was lost.
  const ending = tcp && rolled === 'leave' ? 'heal' : rolled;
  /** Waits until `holds`; a fault when that takes longer than anything should. */
  const until = async (what: string, holds: () => boolean, within_ms = tcp ? 10_000 : HEALED_MS) => {
    const last = now() + within_ms;
    let pause_ms = 5;
    while (!holds()) {
      if (now() > last) {
        faults.push(`not within ${within_ms} ms: ${what}`);
        return;
      }
      await wait(tcp ? 2 : pause_ms);
      pause_ms = Math.min(2 * pause_ms, 2_000);
    }
  };
  const empty = (side: Session) => {
    const { in_flight, serving, exported, imported, kept, streams } = side.stats();
    return in_flight + serving + exported + imported + kept + streams === 0;
  };
  const table = (side: Session | undefined) => JSON.stringify(side?.stats());

  await act();
  tell(`the end: ${ending}`);
  if (ending === 'worker') {
    dead = true;
    far()?.transport.close('killed');
    for (const one of joined) one.cut();
  } else if (ending === 'forget') {
    (far()?.transport as Channel | undefined)?.fail?.('forgotten');
    for (const one of joined) one.cut();
  } else if (ending === 'leave') {
    for (const one of joined) if (dice.chance(0.5)) one.cut();
    session.close('left');
  }
  whole = true;
  for (const one of joined) if (tcp || dice.chance(0.5)) one.cut();
  const everything = Promise.all(tasks).then(() => {
    settled = true;
  });
  let settled = false;
  await until('all calls are settled', () => settled && claims.open.size === 0);
  if (settled) await everything;
  for (const counter of held) await counter[Symbol.asyncDispose]();
  if (session.open && ending === 'heal') {
    await until('the tables are empty', () => empty(session) && empty(far()!.session) && worker.back.open.size === 0);
    if (tcp) await until('it goes on', () => way.channel.attached);
    if (!empty(session) || !empty(far()!.session)) tell(`${table(session)} | ${table(far()!.session)}`);
    session.close('left');
  } else if (ending === 'heal') faults.push(`the session ended: ${await session.closed}`);
  // It was to be forgotten before it had begun.
  if (session.open) {
    if (tcp) await until('it goes on', () => way.channel.attached || !session.open);
    session.close('left');
  }
  await until(
    'the worker’s side has ended',
    () => far() === undefined || !far()!.session.open,
    tcp ? 10_000 : LIMITS.resume_ms * 2,
  );
  way.stop();
  await until('the worker is idle', () => worker.busy === 0);
  // What may still be under way has its time.
  if (tcp) await until('the tables are empty at the end', () => empty(session) && (!far() || empty(far()!.session)));
  else await wait(1_000);
  for (let i = 0; i < 30; i++) await turn();
  if (!empty(session)) faults.push(`the caller’s tables are not empty at the end: ${table(session)}`);
  if (far() && !empty(far()!.session))
    faults.push(`the worker’s tables are not empty at the end: ${table(far()!.session)}`);
  for (const end of ends) end.destroy();
  if (tcp) {
    await new Promise((resolve) => server.close(resolve));
    await new Promise((resolve) => front!.close(resolve));
  }
  faults.push(
    ...worker.book.faults('the worker'),
    ...caller_book.faults('the caller'),
    ...claims.check(),
    ...worker.back.check(),
    ...worker.faults,
  );
  const rejected = { ...claims.rejected };
  for (const [name, count] of Object.entries(worker.back.rejected)) rejected[name] = (rejected[name] ?? 0) + count;
  return {
    seed,
    faults,
    calls: claims.made + worker.back.made,
    executions: worker.book.total + caller_book.total,
    connections: way.channel.connections,
    resolved: claims.resolved + worker.back.resolved,
    rejected,
    story,
  };
}

interface Way {
  channel: Channel;
  stop(): void;
}

interface Given {
  ticket: Ticket;
  key: CallerKey;
  dial: (what: string, plan?: Plan) => Promise<Duplex>;
  dice: Dice;
  tell: (text: string) => void;
}

/** The SDK's own way. Its direct route is closed at times. */
async function routed(given: Given & { fate: () => Promise<MeshError | undefined> }): Promise<Way> {
  const { ticket, key, dial, dice, fate, tell } = given;
  let first = true;
  let blocked = dice.chance(0.3);
  const reach = async (route: string): Promise<FrameTransport> => {
    const plan = first ? WHOLE : undefined;
    if (dice.chance(0.2)) blocked = !blocked;
    if (route === 'direct' && blocked) throw new ConnectionLost({ why: 'the direct route is closed' });
    first = false;
    return streamTransport(await dial(route, plan));
  };
  const routing = dice.pick(['p2p_preferred', 'p2p_preferred', 'relay_only'] as const);
  const way = new WorkerRoute({
    core: { base: '', token: '', request: async () => assertNever() },
    powers: {
      direct: true,
      dial: (_core, _ticket, _body, wanted) =>
        eitherRoute(
          wanted,
          () => reach('direct'),
          () => reach('relay'),
        ),
    },
    routing,
    fate,
  });
  tell(routing);
  await way.open(ticket, key);
  return { channel: way.channel, stop: () => way.stop() };
}

const assertNever = (): never => {
  throw new Error('the core is not asked here');
};

/** Resumes when it must, and when it need not; several at once; gives up late. */
async function reckless(
  given: Given & {
    jti: string;
    resume_key: string;
    channel: ScheduleOptions['channel'];
    /** The network is whole. */
    quiet: () => boolean;
    /** The worker is dead. */
    gone: () => boolean;
  },
): Promise<Way> {
  const { ticket, key, dial, dice, jti, resume_key, quiet, gone, tell } = given;
  let stopped = false;
  let under_way = 0;
  const made = given.channel ?? ((detached) => new Channel(detached));
  const channel: Channel = made(() => {
    if (channel.ended) return;
    void again();
    if (dice.chance(0.4)) void again();
  });
  /** Enough to get in each other's way. */
  let loops = 0;
  const attempt = async (what: string) => {
    under_way++;
    try {
      await resumeSession(streamTransport(await dial(what)), channel, jti, resume_key);
    } catch (error) {
      tell(`${what} failed: ${error}`);
      if (isError(error, SessionLost)) channel.fail(error.message);
    } finally {
      under_way--;
    }
  };
  const again = async () => {
    if (loops >= (quiet() ? 1 : 2)) return;
    loops++;
    for (let tries = 0; !channel.attached && !channel.ended && !stopped; tries++) {
      await attempt('resume');
      if (gone() && !channel.attached) return channel.fail('the worker is gone');
      // Two that take the session from each other come to rest only when they do not keep step.
      await wait(dice.int(5, 50 + tries * 20));
    }
    loops--;
  };
  const restless = async () => {
    while (!stopped && !channel.ended && !quiet()) {
      await wait(dice.pick([5, 30, 200]));
      if (channel.attached && under_way < 3 && dice.chance(0.3)) void attempt('switch');
    }
  };
  await openSession(streamTransport(await dial('open', WHOLE)), channel, ticket, key);
  void restless();
  return {
    channel,
    stop() {
      stopped = true;
    },
  };
}
