/** Events: numbered without a gap, bounded in memory, and no reader is left in the dark about what it missed. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { BadInput, EVENTS_LOST, isError, LIMITS, type MeshEvent } from '@hauki/protocol';
import fc from 'fast-check';
import Fastify, { type FastifyInstance } from 'fastify';
import { Events, visibleTo } from '../src/events.ts';
import { ADMIN, attenuate, type Principal } from '../src/rights.ts';
import { eventRoutes } from '../src/routes/events.ts';

const seqs = (events: MeshEvent[]) => events.map(({ name, seq }) => (name === EVENTS_LOST ? `lost ${seq}` : seq));
const all = (reader: { take(): MeshEvent | undefined }) => {
  const found: MeshEvent[] = [];
  for (let event = reader.take(); event; event = reader.take()) found.push(event);
  return found;
};

describe('the ring of events', () => {
  it('numbers them from 1 under an id of this start, with time, name and fields', () => {
    const logged: string[] = [];
    const events = new Events({ core_id: 'c0', now: () => 7, log: (line) => logged.push(line) });
    events.emit('WORKER_BORN', { worker: 'w-1' });
    events.emit('NODE_AWAY');
    assert.deepEqual(
      events.recent({ limit: 10 }).map(({ text: _t, ...event }: any) => event),
      [
        { id: 'c0-1', seq: 1, at: 7, name: 'WORKER_BORN', fields: { worker: 'w-1' } },
        { id: 'c0-2', seq: 2, at: 7, name: 'NODE_AWAY', fields: {} },
      ],
    );
    assert.deepEqual(logged, ['WORKER_BORN', 'NODE_AWAY']);
  });

  it('keeps a copy, cuts long texts, and drops the longest fields of what is too much', () => {
    const events = new Events({ core_id: 'c' });
    const fields: Record<string, unknown> = { worker: 'w', reason: 'x'.repeat(100_000), gone: undefined };
    for (let i = 0; i < 20; i++) fields[`text_${i}`] = 'y'.repeat(LIMITS.event_text_chars);
    events.emit('NODE_AWAY', fields);
    fields.worker = 'changed';
    const [kept] = events.recent({ limit: 1 });
    assert.equal(kept!.fields.worker, 'w');
    assert.ok(!('gone' in kept!.fields));
    assert.ok(JSON.stringify(kept!.fields).length < LIMITS.event_chars * 1.2);
    events.emit('NODE_REGISTERED', { reason: `${'x'.repeat(LIMITS.event_text_chars - 1)}\u{1f600}` });
    const [cut] = events.recent({ limit: 1 });
    assert.equal((cut!.fields.reason as string).length, LIMITS.event_text_chars + 1);
    assert.ok((cut!.fields.reason as string).isWellFormed());
  });

  it('is bounded in events and in characters', () => {
    const events = new Events({ core_id: 'c' });
    for (let i = 0; i < LIMITS.events + 50; i++) events.emit('NODE_AWAY');
    assert.equal(events.recent({ limit: 1_000_000 }).length, LIMITS.events);
    assert.equal(events.oldest, 51);
    const wide = { a: 'x'.repeat(1_000), b: 'x'.repeat(1_000), c: 'x'.repeat(1_000), d: 'x'.repeat(1_000) };
    for (let i = 0; i < LIMITS.events; i++) events.emit('NODE_REGISTERED', wide);
    const kept = events.recent({ limit: 1_000_000 }) as (MeshEvent & { text: string })[];
    assert.ok(kept.reduce((sum, { text }) => sum + text.length, 0) <= LIMITS.events_chars);
    assert.ok(kept.length > LIMITS.events_chars / 5_000, 'what was dropped counts no more');
    assert.equal(kept.at(-1)!.seq, 2 * LIMITS.events + 50);
  });

  it('gives every reader each event once and in order, or says how many it missed', () => {
    const command = fc.oneof(
      fc.record({ emit: fc.integer({ min: 1, max: 12 }) }),
      fc.record({ take: fc.integer({ min: 1, max: 12 }), who: fc.integer({ min: 0, max: 2 }) }),
      fc.record({ resume: fc.integer({ min: 0, max: 2 }) }),
    );
    fc.assert(
      fc.property(fc.array(command, { maxLength: 40 }), (commands) => {
        const events = new Events({ core_id: 'c', most: 8 });
        const odd = (event: MeshEvent) => event.seq % 2 === 1;
        const readers = [undefined, undefined, odd].map((match) => ({
          reader: events.reader(match ? { match } : {}),
          match,
          got: [] as MeshEvent[],
        }));
        for (const one of commands) {
          if ('emit' in one) for (let i = 0; i < one.emit; i++) events.emit('NODE_AWAY');
          else if ('take' in one) {
            const { reader, got } = readers[one.who]!;
            for (let i = 0; i < one.take; i++) {
              const event = reader.take();
              if (event) got.push(event);
            }
          } else {
            // Cut, and back again with what was had last.
            const the = readers[one.resume]!;
            const last = the.got.at(-1)?.id ?? 'c-0';
            the.reader.close();
            the.reader = events.reader({ after: last, ...(the.match ? { match: the.match } : {}) });
          }
        }
        for (const { reader, match, got } of readers) {
          got.push(...all(reader));
          let seq = 0;
          for (const event of got) {
            assert.ok(event.seq > seq, `${event.seq} after ${seq}`);
            const missing = Array.from({ length: event.seq - seq - 1 }, (_, i) => seq + 1 + i);
            if (event.name === EVENTS_LOST) assert.ok(event.seq - seq >= (event.fields.lost as number));
            else
              assert.deepEqual(
                match ? missing.filter((n) => n % 2 === 1) : missing,
                [],
                'nothing is left out in silence',
              );
            seq = event.seq;
          }
          const rest = events.last - seq;
          assert.ok(match ? rest <= 1 : rest === 0, 'all has been read');
          if (!match) {
            const lost = got
              .filter((e) => e.name === EVENTS_LOST)
              .reduce((sum, e) => sum + (e.fields.lost as number), 0);
            assert.equal(
              got.filter((e) => e.name !== EVENTS_LOST).length + lost,
              events.last,
              'every one is accounted for',
            );
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  it('tells who resumes from another start of the core so, and gives all that is new', () => {
    const events = new Events({ core_id: 'new' });
    events.emit('NODE_AWAY');
    events.emit('NODE_REGISTERED');
    const found = all(events.reader({ after: 'old-77' }));
    assert.deepEqual(seqs(found), ['lost 0', 1, 2]);
    assert.equal(found[0]!.fields.lost, null);
    assert.match(found[0]!.fields.why as string, /restarted/);
    assert.deepEqual(seqs(all(events.reader({ after: found[0]!.id }))), [1, 2], 'and once only');
    assert.deepEqual(seqs(all(events.reader({ after: '0' }))), [1, 2]);
    assert.deepEqual(seqs(all(events.reader())), []);
    assert.deepEqual(seqs(all(events.reader({ after: 'new-999' }))), [], 'from the future: what is to come');
    const ahead = events.reader({ after: 'new-999' });
    events.emit('NODE_AWAY');
    assert.deepEqual(seqs(all(ahead)), [3]);
    for (const after of ['', 'new', '-1', 'new-', 'new--', 'a b-1', `new-${'9'.repeat(16)}`, '<script>-1\n'])
      assert.throws(
        () => events.reader({ after }),
        (e) => isError(e, BadInput),
        after,
      );
  });

  it('gives the last ones, or the first after an id', () => {
    const events = new Events({ core_id: 'c', most: 4 });
    for (let i = 0; i < 6; i++) events.emit('NODE_AWAY');
    assert.deepEqual(seqs(events.recent({ limit: 2 })), [5, 6]);
    assert.deepEqual(seqs(events.recent({ limit: 9 })), [3, 4, 5, 6]);
    assert.deepEqual(seqs(events.recent({ limit: 2, after: 'c-3' })), [4, 5]);
    assert.deepEqual(seqs(events.recent({ limit: 2, after: 'c-0' })), ['lost 2', 3]);
    assert.deepEqual(seqs(events.recent({ limit: 9, match: ({ seq }) => seq === 4 })), [4]);
  });

  it('wakes nobody who has left, and keeps no reader for a look', () => {
    const events = new Events({ core_id: 'c' });
    const { reader } = Events.prototype;
    const made: ReturnType<typeof reader>[] = [];
    events.reader = (wanted) => {
      made.push(reader.call(events, wanted));
      return made.at(-1)!;
    };
    events.recent({ limit: 1, after: 'c-0' });
    events.reader().close();
    assert.equal(made.length, 2);
    for (const left of made) left.wake = () => assert.fail('it was woken');
    events.emit('NODE_AWAY');
  });
});

describe('an event is seen', () => {
  const holder = (
    ...args: Parameters<typeof attenuate> extends [any, infer R] ? [Omit<R, 'name'>] : never
  ): Principal => ({
    ...attenuate(ADMIN, { name: 't', ...args[0] } as never),
    id: 't-1',
    name: 'a-1/t-1',
  });
  const sees = (who: Principal, fields: object) =>
    visibleTo(who, { id: 'c-1', seq: 1, at: 0, name: 'X', fields: { ...fields } });

  it('by the owner, by whoever stands above, and by nobody beside', () => {
    const who = holder({ scopes: ['events'] });
    assert.ok(sees(who, { owner: 'a-1/t-1', worker: 'w' }) && sees(who, { owner: 'a-1/t-1/x-1' }));
    for (const owner of ['a-1', 'a-1/t-11', 'admin']) assert.ok(!sees(who, { owner, worker: 'w' }), owner);
    assert.ok(!sees(who, { node: 'north' }) && !sees(who, {}));
    assert.ok(sees(holder({ scopes: ['events'], targets: { workers: ['w'] } }), { owner: 'admin', worker: 'w' }));
  });

  it('by readers, but not tokens’, nor pointers that they do not reach', () => {
    const who = holder({ scopes: ['read'], targets: { pointers: ['gem-pointer://wiki/a/'] } });
    assert.ok(sees(who, {}) && sees(who, { worker: 'w', owner: 'admin' }));
    assert.ok(sees(who, { pointer: 'gem-pointer://wiki/a/x' }) && !sees(who, { pointer: 'gem-pointer://wiki/b/x' }));
    assert.ok(!sees(who, { token: 't-2', owner: 't-2' }) && sees(who, { token: 't-1', owner: 'a-1/t-1' }));
    assert.ok(!sees(who, { pointer: 'no pointer' }) && !sees(who, { pointer: 5 }));
    assert.ok(sees(ADMIN, { token: 't-2', owner: 't-2' }) && sees(ADMIN, { pointer: 'no pointer' }));
    const admin = holder({ scopes: ['admin'], targets: { pointers: ['gem-pointer://wiki/a/'] } });
    assert.ok(sees(admin, { token: 't-2', owner: 't-2' }) && sees(admin, { pointer: 'gem-pointer://wiki/a/x' }));
    assert.ok(!sees(admin, { pointer: 'gem-pointer://wiki/b/x' }));
  });
});

describe('a stream of events over HTTP', () => {
  const events = new Events({ core_id: 'core', most: 64 });
  const holds = new Set<(why: string) => void>();
  let app: FastifyInstance;
  let port: number;
  before(async () => {
    app = Fastify({ forceCloseConnections: true });
    app.addHook('onRequest', async (request) => {
      const who = String(request.headers['x-who'] ?? 'admin');
      request.principal = { ...ADMIN, id: who, name: who };
    });
    const hold = (_principal: Principal, end: (why: string) => void) => {
      holds.add(end);
      return () => holds.delete(end);
    };
    await app.register(eventRoutes, { events, tokens: { hold } });
    port = Number(new URL(await app.listen({ host: '127.0.0.1', port: 0 })).port);
  });
  after(() => app.close());

  it('tells a reader that does not read what it missed, and holds no more for it', { timeout: 60_000 }, async () => {
    const socket = connect(port, '127.0.0.1');
    socket.pause();
    socket.write('GET /api/v2/events?after=0&name=MESHFS_WRITTEN HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(socket, 'connect');
    while (holds.size === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    const first = events.last + 1;
    const text = 'x'.repeat(900);
    // More than all buffers between two sockets on this machine hold.
    for (let i = 0; i < 400; i++) {
      for (let n = 0; n < 60; n++) events.emit('MESHFS_WRITTEN', { text });
      await new Promise((resolve) => setImmediate(resolve));
    }
    const last = events.last;
    let got = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk) => {
      got += chunk;
    });
    socket.resume();
    while (!got.includes(`"id":"core-${last}"`)) await new Promise((resolve) => setTimeout(resolve, 10));
    socket.destroy();
    const read = [...got.matchAll(/^data: (.*)$/gm)].map(([, json]) => JSON.parse(json!) as MeshEvent);
    const lost = read.filter(({ name }) => name === EVENTS_LOST);
    const had = read.filter(({ name }) => name === 'MESHFS_WRITTEN');
    assert.ok(lost.length > 0, 'it was slow enough to miss some');
    assert.equal(lost.reduce((sum, { fields }) => sum + (fields.lost as number), 0) + had.length, last - first + 1);
    for (const [i, event] of read.entries()) if (i > 0) assert.ok(event.seq > read[i - 1]!.seq);
    while (holds.size > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  });

  it('is one of a bounded number, of all and of each token', async () => {
    const leaving = new AbortController();
    // Held, or the collector of garbage would end them.
    const held: Response[] = [];
    const open = async (who: string) => {
      const headers = { 'x-who': who };
      held.push(await fetch(`http://127.0.0.1:${port}/api/v2/events`, { headers, signal: leaving.signal }));
      return held.at(-1)!.status;
    };
    for (let i = 0; i < LIMITS.event_streams_each; i++) assert.equal(await open('one'), 200);
    assert.equal(await open('one'), 429);
    for (let i = holds.size; i < LIMITS.event_streams; i++) assert.equal(await open('admin'), 200);
    assert.equal(await open('other'), 429);
    leaving.abort();
    while (holds.size > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    const again = new AbortController();
    assert.equal((await fetch(`http://127.0.0.1:${port}/api/v2/events`, { signal: again.signal })).status, 200);
    again.abort();
  });

  it('refuses names that are none, and ids that are none', async () => {
    for (const query of ['name=lower', 'after=nothing', 'name=A%0AB', `worker=${'w'.repeat(65)}`])
      assert.equal((await fetch(`http://127.0.0.1:${port}/api/v2/events?${query}`)).status, 400, query);
  });
});
