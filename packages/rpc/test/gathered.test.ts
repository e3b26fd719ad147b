/** Requests that go together, and what may come back for them: also from one who means harm. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Answer, ConnectionLost, type FlatHeaders, isError, OutcomeUnknown } from '@hauki/protocol';
import fc from 'fast-check';
import { Gathered } from '../src/gathered.ts';
import { Gatherer } from '../src/gatherer.ts';
import { Served } from '../src/served.ts';

type Fetch = ConstructorParameters<typeof Gathered>[0];
type Call = ConstructorParameters<typeof Gatherer>[0]['call'];

/** Both halves, joined as a session joins them: by JSON; `calls` has what crossed. */
function joined(fetch: Fetch) {
  const gathered = new Gathered(fetch);
  const leaver = new Served(undefined);
  const calls: string[] = [];
  const call: Call = async (method, params) => {
    calls.push(method);
    const [first, list] = JSON.parse(JSON.stringify(params)) as [number, string[]];
    return method === 'fetchAll'
      ? gathered.fetchAll(first, list)
      : gathered.lateAnswer(first, params[1] as boolean, leaver);
  };
  return { gatherer: new Gatherer({ call }), calls, leaver };
}

const answering = (list: unknown, late: unknown = 'late') =>
  new Gatherer({ call: async (method) => (method === 'fetchAll' ? list : late) });
const ask = (gatherer: Gatherer, count: number) =>
  Promise.allSettled(Array.from({ length: count }, (_, i) => gatherer.fetch('GET', `/${i}`, [], undefined)));
const told = (outcomes: PromiseSettledResult<Answer>[]) =>
  outcomes.map((one) => (one.status === 'fulfilled' ? one.value : 'failed'));

describe('requests of one turn', () => {
  it('may have run where the line ends before their late answer is asked for', async () => {
    const gatherer = new Gatherer({
      call: async (method) => {
        if (method === 'fetchAll') return [0];
        throw new ConnectionLost({ why: 'the other side ended the session' });
      },
    });
    await assert.rejects(gatherer.fetch('POST', '/', [], undefined), (error) => isError(error, OutcomeUnknown));
  });

  it('cross as one call and are answered each with its own, whatever they are', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            url: fc.string({ unit: 'binary' }),
            // Some are said again.
            headers: fc.oneof(
              fc.constantFrom(['accept', '*/*'], [], ['accept', '*']),
              fc.array(fc.string(), { maxLength: 6 }),
            ),
            body: fc.option(fc.string({ unit: 'binary' })),
            how: fc.constantFrom('now', 'soon', 'late', 'bytes', 'fails', 'throws'),
          }),
          { minLength: 1, maxLength: 20 },
        ),
        async (requests) => {
          const { gatherer, calls } = joined((method, asked, headers) => {
            const [at, ...rest] = asked.split(':');
            const { how, body, url } = requests[Number(at)]!;
            assert.equal(rest.join(':'), url);
            assert.equal(method, 'GET');
            const answer: Answer = [200, [...headers], how === 'bytes' ? new Uint8Array([1]) : body];
            if (how === 'throws') throw new Error('thrown');
            if (how === 'fails') return Promise.reject(new Error('failed'));
            if (how === 'soon') return Promise.resolve(answer);
            if (how === 'late') return new Promise((resolve) => setTimeout(resolve, 5, answer));
            return answer;
          });
          const outcomes = await Promise.allSettled(
            requests.map(({ url, headers }, i) => gatherer.fetch('GET', `${i}:${url}`, headers, undefined)),
          );
          assert.equal(calls.filter((method) => method === 'fetchAll').length, 1);
          for (const [i, { headers, body, how }] of requests.entries()) {
            const outcome = outcomes[i]!;
            if (how === 'fails' || how === 'throws') {
              assert.equal(outcome.status, 'rejected');
              continue;
            }
            const wanted = [200, headers, how === 'bytes' ? new Uint8Array([1]) : body];
            assert.deepEqual(outcome.status === 'fulfilled' && outcome.value, wanted);
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  it('say headers once that come again, and so do their answers', async () => {
    const crossed: unknown[] = [];
    const gathered = new Gathered((_method, url) => [200, url === '/2' ? ['a', '2'] : ['a', '1'], url]);
    const gatherer = new Gatherer({
      call: async (_method, [first, list]) => {
        const answers = await gathered.fetchAll(first as number, list as string[]);
        crossed.push(list, answers);
        return answers;
      },
    });
    const headers = [1, 2, 3, 4].map((of) => (of === 4 ? ['x', 'other'] : ['x', 'same']));
    const outcomes = await Promise.all(headers.map((each, i) => gatherer.fetch('GET', `/${i}`, each, undefined)));
    assert.deepEqual(crossed, [
      ['GET', '/0', 2, 'x', 'same', 'GET', '/1', -1, 'GET', '/2', -1, 'GET', '/3', 2, 'x', 'other'],
      [200, 2, 'a', '1', '/0', 200, -1, '/1', 200, 2, 'a', '2', '/2', 200, 2, 'a', '1', '/3'],
    ]);
    assert.deepEqual(outcomes, [
      [200, ['a', '1'], '/0'],
      [200, ['a', '1'], '/1'],
      [200, ['a', '2'], '/2'],
      [200, ['a', '1'], '/3'],
    ]);
  });

  it('do not wait for one that is slow', async () => {
    const slow = Promise.withResolvers<Answer>();
    const { gatherer } = joined((_method, url) => (url === '/slow' ? slow.promise : [200, [], url]));
    const waits = gatherer.fetch('GET', '/slow', [], undefined);
    assert.deepEqual(await gatherer.fetch('GET', '/quick', [], undefined), [200, [], '/quick']);
    slow.resolve([200, [], 'at last']);
    assert.deepEqual(await waits, [200, [], 'at last']);
  });

  it('are no more in one call than it may have, nor are their answers', async () => {
    const { gatherer, calls } = joined(() => [200, [], 'x'.repeat(100_000)]);
    const outcomes = await ask(gatherer, 100);
    assert.ok(told(outcomes).every((answer) => answer[2]?.toString().length === 100_000));
    assert.equal(calls.filter((method) => method === 'fetchAll').length, 2);
    assert.ok(calls.filter((method) => method === 'lateAnswer').length >= 96, 'large answers go alone');
    const long = joined(() => [200, [], null]);
    const url = `/${'x'.repeat(200_000)}`;
    await Promise.all([1, 2, 3, 4].map(() => long.gatherer.fetch('GET', url, [], undefined)));
    assert.deepEqual(long.calls, ['fetchAll', 'fetchAll'], 'nor have they more characters');
  });

  it('go alone for a while where most of them were late', async () => {
    const { gatherer } = joined(() => new Promise((resolve) => setTimeout(resolve, 50, [200, [], null])));
    assert.ok(gatherer.takes());
    await ask(gatherer, 4);
    let alone = 0;
    while (!gatherer.takes()) alone++;
    assert.ok(alone > 0 && alone < 10_000);
  });

  it('tell their handlers when their clients leave, before and after an answer was late', async () => {
    const told: string[] = [];
    const { gatherer, calls, leaver } = joined(
      (_method, url, _headers, _body, call) =>
        new Promise((_resolve, reject) =>
          call.signal.addEventListener('abort', () => {
            told.push(url);
            reject(new Error('left'));
          }),
        ),
    );
    const signal = { aborted: false, reason: 'gone', addEventListener() {}, removeEventListener() {} };
    const before = gatherer.fetch('GET', '/before', [], signal);
    signal.aborted = true;
    await assert.rejects(before);
    const after = gatherer.fetch('GET', '/after', [], undefined);
    while (calls.filter((method) => method === 'lateAnswer').length < 2)
      await new Promise((resolve) => setTimeout(resolve, 5));
    leaver.abort('left');
    await assert.rejects(after);
    assert.deepEqual(told, ['/before', '/after']);
  });

  it('all fail with the call', async () => {
    const gatherer = new Gatherer({ call: async () => Promise.reject(new Error('the vault died')) });
    for (const outcome of await ask(gatherer, 3))
      assert.match(String(outcome.status === 'rejected' && outcome.reason), /the vault died/);
  });
});

describe('a list of answers', () => {
  it('that cannot be one fails those that it has not answered before', async () => {
    const good = [200, 2, 'a', 'b', 'text'];
    const first = [200, ['a', 'b'], 'text'];
    for (const [list, wanted] of [
      [undefined, ['failed', 'failed']],
      ['text', ['failed', 'failed']],
      [{ length: 9 }, ['failed', 'failed']],
      [[], ['failed', 'failed']],
      [good, [first, 'failed']],
      [
        [...good, 200],
        [first, 'failed'],
      ],
      [
        [...good, 200, 0],
        [first, 'failed'],
      ],
      [
        [...good, 200, -2, null],
        [first, 'failed'],
      ],
      [
        [...good, 200, -1],
        [first, 'failed'],
      ],
      [
        [...good, 200, -1, 'more'],
        [first, [200, ['a', 'b'], 'more']],
      ],
      [
        [200, -1, null, ...good],
        ['failed', 'failed'],
      ],
      [
        [...good, 200, 1e9, null],
        [first, 'failed'],
      ],
      [
        [...good, 200, 0.5, null],
        [first, 'failed'],
      ],
      [
        [...good, 200, 'x', null],
        [first, 'failed'],
      ],
      [
        [200, 1e308, 'x'],
        ['failed', 'failed'],
      ],
    ] as [unknown, unknown[]][])
      assert.deepEqual(told(await ask(answering(list), 2)), wanted, JSON.stringify(list));
  });

  it('may not have few characters stand for many', async () => {
    const large = 'x'.repeat(100_000);
    const outcomes = told(await ask(answering([200, 1, large, null, ...Array(7).fill([200, -1, null]).flat()]), 8));
    assert.deepEqual(outcomes[2], [200, [large], null], 'as many as an honest list has');
    assert.deepEqual(outcomes.slice(3), Array(5).fill('failed'));
  });

  it('that is longer than what was asked, or answers the same again, answers nobody else', async () => {
    const good = [200, 0, 'mine'];
    assert.deepEqual(told(await ask(answering([...good, ...good, ...good, 0, 0, 0]), 2)), [
      [200, [], 'mine'],
      [200, [], 'mine'],
    ]);
  });

  it('is passed on as it came, for its reader to check', async () => {
    assert.deepEqual(told(await ask(answering(['200 OK', 1, 7, { a: 1 }]), 1)), [['200 OK', [7], null]]);
  });

  it('may say of any that it is late, and then has to give it', async () => {
    assert.deepEqual(told(await ask(answering([0, 0], [201, [], null]), 2)), [
      [201, [], null],
      [201, [], null],
    ]);
  });

  it('is heard to its end though nobody waits any more: streams of late answers are left', async () => {
    let left = 0;
    const body = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise<never>(() => {}),
        return: async () => {
          left++;
          return { done: true as const, value: undefined };
        },
      }),
    };
    const signal = { aborted: true, reason: 'gone', addEventListener() {}, removeEventListener() {} };
    const gatherer = answering([0, 200, 0, 'x'], [200, [] as FlatHeaders, body]);
    const outcomes = await Promise.allSettled(['/a', '/b'].map((url) => gatherer.fetch('GET', url, [], signal)));
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['rejected', 'rejected'],
    );
    assert.equal(left, 1);
  });

  it('gives each late answer once', async () => {
    const gathered = new Gathered(() => [200, [], new Uint8Array([1])]);
    assert.deepEqual(await gathered.fetchAll(7, ['GET', '/', 0]), [0]);
    assert.deepEqual(await gathered.lateAnswer(7, false), [200, [], new Uint8Array([1])]);
    await assert.rejects(gathered.lateAnswer(7, false), /no late answer 7/);
    await assert.rejects(gathered.lateAnswer(8, false), /no late answer 8/);
  });
});
