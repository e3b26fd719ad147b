/** A worker's sessions with its callers: who may take one over, and how long it waits for whom. */
import assert from 'node:assert/strict';
import { describe, it, mock } from 'node:test';
import { ConnectionLost, type ErrorClass, isError, LIMITS, SessionLost, type TicketRole } from '@hauki/protocol';
import {
  Channel,
  type FrameTransport,
  mac,
  memoryPair,
  type Resumption,
  randomText,
  resumeTranscript,
} from '@hauki/rpc';
import fc from 'fast-check';
import { CallerSessions } from '../src/guest/sessions.ts';

const KEY = randomText(32);
const LEASE_MS = 120_000;
/** The kind of a frame that ends a session (docs/protocol.md, section 2). */
const KIND_BYE = 4;

/** A session that was redeemed, and its caller's half, which makes its resumptions by hand. */
function redeemed(sessions: CallerSessions, jti = randomText(8), role: TicketRole = 'visitor', by?: string) {
  const begun: Channel[] = [];
  sessions.keep({ jti, role, key: KEY, resume_key: KEY, ...(by ? { by } : {}) }, LEASE_MS, (channel) =>
    begun.push(channel),
  );
  const wanted = async (received: number, nonce: string, key = KEY): Promise<Resumption> => {
    const mine = randomText(8);
    const proof = await mac(key, resumeTranscript('caller', jti, nonce, mine, received));
    return { session: jti, nonce: mine, received, proof };
  };
  return {
    jti,
    begun,
    wanted,
    open() {
      const [near, far] = memoryPair();
      const caller = new Channel();
      sessions.open(jti, far);
      caller.attach(near);
      return { caller, near };
    },
    async resume(received = 0) {
      const nonce = randomText(8);
      return sessions.resume(await wanted(received, nonce), nonce);
    },
  };
}

const refuses = async (promise: Promise<unknown>, kind: ErrorClass<any>) => {
  const thrown = await promise.then(
    () => assert.fail(`expected ${kind.row.name}, but it resolved`),
    (error) => error,
  );
  assert.ok(isError(thrown, kind), `expected ${kind.row.name}, got ${thrown}`);
};

describe('a worker’s sessions', () => {
  it('are taken over by who proves the resume key, with a nonce of this connection', async () => {
    const sessions = new CallerSessions();
    const { wanted, open, begun, jti } = redeemed(sessions);
    open();
    const nonce = randomText(8);
    await refuses(sessions.resume(await wanted(0, nonce, randomText(32)), nonce), SessionLost);
    await refuses(sessions.resume(await wanted(0, nonce), randomText(8)), SessionLost);
    await refuses(sessions.resume({ ...(await wanted(0, nonce)), session: 'another' }, nonce), SessionLost);
    await refuses(sessions.resume({ ...(await wanted(0, nonce)), received: 1 }, nonce), SessionLost);
    await refuses(sessions.resume(await wanted(7, nonce), nonce), SessionLost);
    await refuses(sessions.resume(undefined as never, nonce), SessionLost);
    assert.equal(begun[0]!.attached, true, 'whoever failed took nothing away');
    const { answer, go } = await sessions.resume(await wanted(0, nonce), nonce);
    assert.equal(answer.received, 0);
    go(memoryPair()[0]);
    assert.equal(begun[0]!.connections, 2);
    assert.ok(sessions.keyOf(jti));
    begun[0]!.fail('over');
    assert.equal(sessions.keyOf(jti), undefined);
  });

  it('may be resumed from their redemption on, and begin once', async () => {
    const sessions = new CallerSessions();
    const session = redeemed(sessions);
    // Its connection was cut before rpc.open came.
    const { go } = await session.resume();
    go(memoryPair()[0]);
    assert.equal(session.begun.length, 1);
    // The open of the first connection comes late: it goes on elsewhere.
    const { near } = session.open();
    const ends: string[] = [];
    near.start({ message: () => {}, close: (reason) => ends.push(reason) });
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(ends, ['the session goes on elsewhere']);
    assert.equal(session.begun.length, 1);
    session.begun[0]!.fail('over');
  });

  it('go to the latest of those who take one over at the same time', async () => {
    const sessions = new CallerSessions();
    const session = redeemed(sessions);
    session.open();
    const [first, second] = await Promise.all([session.resume(), session.resume()]);
    const [older, newer] = [memoryPair(), memoryPair()];
    const ends: string[] = [];
    older[1].start({ message: () => {}, close: (reason) => ends.push(reason) });
    second.go(newer[0]);
    first.go(older[0]);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(ends, ['another connection took over']);
    assert.equal(session.begun[0]!.attached, true);
    session.begun[0]!.fail('over');
  });

  it('tell an attempt that was overtaken that it may try again', async () => {
    const sessions = new CallerSessions();
    const session = redeemed(sessions);
    const { caller } = session.open();
    caller.start({ message: () => {}, close: () => {} });
    for (let i = 0; i < 64; i++) session.begun[0]!.send('x');
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(caller.received, 64);
    // It has acknowledged all of them since it said 3.
    await refuses(session.resume(3), ConnectionLost);
    assert.equal(session.begun[0]!.attached, true);
    caller.close();
  });

  it('wait for a visitor for a bounded time, for an owner as long as its lease, and not after they are back', async () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      const sessions = new CallerSessions();
      const visitor = redeemed(sessions);
      const back = redeemed(sessions);
      const owner = redeemed(sessions, randomText(8), 'owner');
      for (const { near } of [visitor.open(), back.open(), owner.open()]) near.close('cut');
      await new Promise((resolve) => setImmediate(resolve));
      const { go } = await back.resume();
      mock.timers.tick(LIMITS.resume_ms - 1);
      assert.ok(sessions.keyOf(visitor.jti));
      go(memoryPair()[0]);
      mock.timers.tick(1);
      assert.deepEqual(
        [visitor, back, owner].map(({ jti }) => sessions.keyOf(jti) !== undefined),
        [false, true, true],
      );
      mock.timers.tick(LEASE_MS);
      assert.deepEqual(
        [back, owner].map(({ jti }) => sessions.keyOf(jti) !== undefined),
        [true, false],
      );
      back.begun[0]!.fail('over');
    } finally {
      mock.timers.reset();
    }
  });

  it('of visitors that are away are kept up to a number, the oldest goes first', async () => {
    const sessions = new CallerSessions();
    const owner = redeemed(sessions, randomText(8), 'owner');
    const visitors = Array.from({ length: LIMITS.sessions_waiting + 3 }, () => redeemed(sessions));
    assert.ok(
      visitors.every(({ jti }) => sessions.keyOf(jti)),
      'who is about to open is not away',
    );
    for (const { near } of visitors.map((visitor) => visitor.open())) near.close('cut');
    await new Promise((resolve) => setImmediate(resolve));
    const kept = visitors.filter(({ jti }) => sessions.keyOf(jti));
    assert.equal(kept.length, LIMITS.sessions_waiting);
    assert.equal(sessions.keyOf(visitors[0]!.jti), undefined);
    assert.ok(sessions.keyOf(visitors.at(-1)!.jti) && sessions.keyOf(owner.jti));
    sessions.forget(owner.jti);
    assert.equal(sessions.keyOf(owner.jti), undefined);
  });

  it('of visitors that are away go of the token that has most of them', async () => {
    const sessions = new CallerSessions();
    const bobs = redeemed(sessions, randomText(8), 'visitor', 'bob');
    const adas = Array.from({ length: LIMITS.sessions_waiting }, () =>
      redeemed(sessions, randomText(8), 'visitor', 'ada'),
    );
    for (const { near } of [bobs, ...adas].map((visitor) => visitor.open())) near.close('cut');
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(sessions.keyOf(bobs.jti));
    assert.equal(sessions.keyOf(adas[0]!.jti), undefined);
    assert.equal(adas.filter(({ jti }) => sessions.keyOf(jti)).length, LIMITS.sessions_waiting - 1);
    for (const { begun } of [bobs, ...adas]) begun[0]?.fail('over');
  });

  it('give back their place once, at their end, and let go of each connection that they leave', async () => {
    const steps = fc.array(
      fc.tuple(fc.nat({ max: 2 }), fc.constantFrom('open', 'cut', 'resume', 'bye', 'forget', 'make room', 'fail')),
      { maxLength: 24 },
    );
    await fc.assert(
      fc.asyncProperty(steps, async (all) => {
        const sessions = new CallerSessions();
        const made = ['ada', 'ada', 'bob'].map((by) => {
          const jti = randomText(8);
          const connections: { taken: number; left: number; gone: boolean; end?: FrameTransport }[] = [];
          const connect = () => {
            const connection = { taken: 0, left: 0, gone: false };
            connections.push(connection);
            const carrier = {
              peer: '',
              get gone() {
                return connection.gone;
              },
              taken: () => void connection.taken++,
              left: () => void connection.left++,
            };
            return { carrier, over: (end: FrameTransport) => Object.assign(connection, { end }) };
          };
          const one = {
            jti,
            by,
            connections,
            connect,
            left: 0,
            is_literal: false,
            channel: undefined as never as Channel,
          };
          const first = connect();
          const begin = (channel: Channel) => Object.assign(one, { channel });
          const ticket = { jti, role: 'visitor' as const, key: KEY, resume_key: KEY, by };
          sessions.keep(ticket, LEASE_MS, begin, first.carrier, () => void one.left++);
          return { ...{ first, opened: false }, one };
        });
        for (const [which, step] of all) {
          const session = made[which]!;
          const { one, first } = session;
          const living = sessions.keyOf(one.jti) !== undefined;
          const last = one.connections.at(-1)!;
          if (step === 'open' && !session.opened) {
            session.opened = true;
            const [near, far] = memoryPair();
            first.over(near);
            sessions.open(one.jti, far, first.carrier);
          } else if (step === 'cut') {
            last.gone = true;
            last.end?.close('cut');
          } else if (step === 'resume' && living) {
            const nonce = randomText(8);
            const mine = randomText(8);
            const proof = await mac(KEY, resumeTranscript('caller', one.jti, nonce, mine, 0));
            const { go } = await sessions.resume({ session: one.jti, nonce: mine, received: 0, proof }, nonce);
            const [near, far] = memoryPair();
            const next = one.connect();
            next.over(near);
            go(far, next.carrier);
          } else if (step === 'bye') last.end?.control(KIND_BYE, new Uint8Array(0));
          else if (step === 'forget' && living && !session.opened && one.connections.length === 1) {
            one.is_literal = true;
            const leave = sessions.forget(one.jti);
            assert.equal(one.left, 0, 'its connection has it now');
            leave();
          } else if (step === 'make room') {
            const before = made.filter(({ one: { jti } }) => sessions.keyOf(jti)).length;
            const did = sessions.makeRoom(one.by);
            assert.equal(made.filter(({ one: { jti } }) => sessions.keyOf(jti)).length, before - (did ? 1 : 0));
          } else if (step === 'fail') one.channel?.fail('over');
          await new Promise((resolve) => setImmediate(resolve));
          for (const { one: each } of made) {
            const ended = sessions.keyOf(each.jti) === undefined;
            assert.equal(each.left, ended ? 1 : 0, `${step}: places given back`);
            each.connections.forEach(({ taken, left }, i) => {
              const carries = !ended && i === each.connections.length - 1;
              assert.deepEqual([taken, left], [1, carries || each.is_literal ? 0 : 1], `${step}: connection ${i}`);
            });
          }
        }
        for (const { one } of made) one.channel?.fail('over');
      }),
    );
  });

  it('may begin before their ticket is redeemed, and are gone on with by nobody else', async () => {
    const sessions = new CallerSessions();
    const jti = randomText(8);
    const ticket = { jti, role: 'owner' as TicketRole, key: KEY, resume_key: KEY };
    const heard: string[] = [];
    const begin = (channel: Channel) =>
      channel.start({
        message(text) {
          heard.push(text);
          channel.send(`${text}!`);
        },
        close: () => {},
      });
    const said = await sessions.ride(ticket, [{ text: 'one' }, { text: 'two' }], begin);
    assert.deepEqual(said, [{ text: 'one!' }, { text: 'two!' }]);
    const look = () => sessions.list()[jti]!;
    assert.deepEqual([look().connected, look().connections], [false, 0]);

    // Ticket and secret are not enough: who redeems shows its key too.
    const nonce = randomText(8);
    const proof = await mac(KEY, resumeTranscript('caller', jti, nonce, 'mine', 2));
    await refuses(sessions.resume({ session: jti, nonce: 'mine', received: 2, proof }, nonce), SessionLost);

    const beginAgain = () => assert.fail('it has begun');
    sessions.keep(ticket, LEASE_MS, beginAgain);
    const [near, far] = memoryPair();
    sessions.open(jti, far, undefined, 1);
    const caller = new Channel();
    const got: string[] = [];
    caller.start({ message: (text) => got.push(text), close: () => {} });
    caller.attach(near);
    caller.send('three');
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(heard, ['one', 'two', 'three']);
    assert.deepEqual(got, ['two!', 'three!'], 'the first came with the ride');
    assert.deepEqual([look().connected, look().connections], [true, 1]);
  });

  it('that began so end where their caller counts what was never sent', async () => {
    const sessions = new CallerSessions();
    const ticket = { jti: 'j', role: 'owner' as TicketRole, key: KEY, resume_key: KEY };
    await sessions.ride(ticket, [], (channel) => channel.start({ message: () => {}, close: () => {} }));
    sessions.keep(ticket, LEASE_MS, () => {});
    const [near, far] = memoryPair();
    const ends: string[] = [];
    near.start({ message: () => {}, close: (reason) => ends.push(reason) });
    sessions.open('j', far, undefined, 1);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(ends, ['it counts messages never sent']);
    assert.deepEqual(sessions.list(), {});
  });
});
