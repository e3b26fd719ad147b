/** What is called with a clone rides with its request (docs/protocol.md, section 20): once, in order, with every outcome. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { type CloneOptions, connect, type Mesh, type PendingGhost, withOptions } from '@hauki/mesh';
import { DRIVERS, missing, type TestMesh, until, useMesh } from './support/mesh.ts';

const SPAWN = '/api/v2/swarm_spawn_ephemeral';
const SOURCE = `
  const said = [];
  let ended = '';
  const heard = {};
  export const say = (word) => { said.push(word); heard[word]?.(); return said.length; };
  export const hears = (word) => new Promise((resolve) => { heard[word] = () => resolve(word); });
  export const all = () => said;
  export const fail = () => { throw new TypeError('not like this'); };
  export const tell = (listener, word) => listener(word);
  export const open = () => new (class { #n = 0; count() { return ++this.#n; } })();
  export const repeat = (text, times) => text.repeat(times);
  export const numbers = async function* (n) { for (let i = 1; i <= n; i++) yield i; };
  export const back = (value) => value;
  export const time = () => hauki.call.timeout_ms ?? null;
  export const wait = () => {
    said.push('waits');
    const { signal } = hauki.call;
    return new Promise(() => signal.addEventListener('abort', () => { ended = String(signal.reason); }));
  };
  export const why = () => ended;
  export const spin = () => { for (;;); };
`;
interface Sayer {
  say(word: string): number;
  hears(word: string): string;
  all(): string[];
  fail(): void;
  tell(listener: (word: string) => string, word: string): string;
  open(): { count(): number };
  repeat(text: string, times: number): string;
  numbers(n: number): AsyncGenerator<number>;
  back<T>(value: T): T;
  time(): number | null;
  wait(): void;
  why(): string;
  spin(): void;
}
interface First {
  text: string;
}

/** A mesh as seen through a proxy before its core, which notes what rides and may drop what the core answers. */
async function overheard(used: TestMesh): Promise<{
  mesh: Mesh;
  asked: First[][];
  answered: First[][];
  /** Asked for each answer to a clone. */
  drops: { if?: () => boolean };
  [Symbol.asyncDispose](): Promise<void>;
}> {
  const asked: First[][] = [];
  const answered: First[][] = [];
  const drops: { if?: () => boolean } = {};
  const proxy = createServer(async (incoming, reply) => {
    const body = Buffer.concat(await incoming.toArray());
    const clones = incoming.url === SPAWN;
    if (clones) asked.push(JSON.parse(body.toString()).first ?? []);
    const { method, headers, url } = incoming;
    const outgoing = request(new URL(url!, used.local.url), { method, headers }, async (answer) => {
      const text = Buffer.concat(await answer.toArray()).toString();
      if (clones) answered.push(text.split('\n').flatMap((line) => (line ? (JSON.parse(line).first ?? []) : [])));
      if (clones && drops.if?.()) return reply.destroy();
      reply.writeHead(answer.statusCode!, answer.headers).end(text);
    });
    outgoing.on('error', () => reply.destroy());
    outgoing.end(body);
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const core = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  const mesh = await connect({ core, token: used.local.token });
  return {
    mesh,
    asked,
    answered,
    drops,
    async [Symbol.asyncDispose]() {
      await mesh.close();
      proxy.closeAllConnections();
      proxy.close();
    },
  };
}

const methods = (messages: First[] | undefined) => messages?.map(({ text }) => JSON.parse(text).method);

for (const driver of DRIVERS)
  describe(`what is called with the clone of a ${driver} worker`, { skip: missing(driver), concurrency: 3 }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });
    const sayer = (mesh: Mesh, options: CloneOptions = {}): PendingGhost<Sayer> =>
      mesh.clone<Sayer>({ source: SOURCE }, { driver, ...options });

    it('rides with the request, runs once, and before all that is called later', async () => {
      await using heard = await overheard(used);
      const worker = sayer(heard.mesh);
      const first = [worker.say('one'), worker.hears('four'), worker.say('two')];
      await new Promise((resolve) => setImmediate(resolve));
      const third = worker.say('three');
      await worker;
      assert.deepEqual(await Promise.all([worker.say('four'), ...first, third]), [4, 1, 'four', 2, 3]);
      assert.deepEqual(await worker.all(), ['one', 'two', 'three', 'four']);
      assert.deepEqual(heard.asked.map(methods), [['say', 'hears', 'say']]);
      assert.ok(
        heard.answered[0]!.every(({ text }) => /"id":[13],/.test(text)),
        'what takes longer is not waited for',
      );
      const { worker: name } = await heard.mesh.details(worker);
      await until('its session tells of all calls', async () => {
        const session = (await heard.mesh.sessions()).find((one) => one.worker === name);
        return session?.connections === 1 && session.connected && session.stats!.calls_served! >= 6;
      });
    });

    it('has its errors and its values, references, callbacks and streams included', async () => {
      await using heard = await overheard(used);
      const worker = sayer(heard.mesh);
      const told: string[] = [];
      const opened = worker.open();
      const [thing, ...outcomes] = await Promise.all([
        opened,
        worker.fail().catch((error: any) => [error.name, error.message]),
        (worker as any).nothing().catch((error: Error) => error.name),
        worker.tell((word) => {
          told.push(word);
          return `${word}!`;
        }, 'hear'),
        opened.count(),
        worker.back({ at: new Date(7), bytes: new Uint8Array([1, 2, 3]), big: 2n ** 70n }),
        worker.numbers(3).then((stream) => Array.fromAsync(stream)),
      ]);
      assert.deepEqual(outcomes, [
        ['RemoteError', 'TypeError: not like this'],
        'NoSuchMethod',
        'hear!',
        1,
        { at: new Date(7), bytes: new Uint8Array([1, 2, 3]), big: 2n ** 70n },
        [1, 2, 3],
      ]);
      assert.deepEqual(told, ['hear']);
      assert.equal(await thing.count(), 2);
      assert.equal(heard.asked[0]!.length, 7);
    });

    it('goes over the session where it is too large, and so does what is answered', async () => {
      await using heard = await overheard(used);
      const worker = sayer(heard.mesh);
      const large = 'x'.repeat(100_000);
      const [one, length, many, last] = await Promise.all([
        worker.say('one'),
        worker.back(large),
        worker.repeat('y', 200_000),
        worker.say('last'),
      ]);
      assert.deepEqual([one, length === large, many.length, last], [1, true, 200_000, 2]);
      assert.deepEqual(heard.asked.map(methods), [['say']]);
      assert.deepEqual(await worker.all(), ['one', 'last']);
      const other = sayer(heard.mesh);
      assert.deepEqual(await Promise.all([other.repeat('y', 200_000), other.say('two')]), ['y'.repeat(200_000), 1]);
      assert.deepEqual(heard.asked.map(methods)[1], ['repeat', 'say']);
      assert.deepEqual(heard.answered[1], []);
    });

    it('does not ride where payload may not pass the core', async () => {
      await using heard = await overheard(used);
      const worker = sayer(heard.mesh, { routing: 'p2p_only' });
      assert.equal(await worker.say('one'), 1);
      assert.deepEqual(await worker.all(), ['one']);
      assert.deepEqual(heard.asked, [[]]);
    });

    it('does not leave at all where the routing is none that there is', async () => {
      await using heard = await overheard(used);
      const worker = sayer(heard.mesh, { routing: 'p2p-only' as 'p2p_only' });
      await assert.rejects(worker.say('one'), { name: 'BadInput', message: /^routing: .*p2p_only/ });
      assert.deepEqual(heard.asked, []);
    });

    it('is refused with the clone', async () => {
      const refused = sayer(used.mesh, { labels: { zone: 'nowhere' } });
      await assert.rejects(refused.say('one'), { name: 'NoNodeFits' });
      await assert.rejects(async () => refused, { name: 'NoNodeFits' });
      const broken = used.mesh.clone<Sayer>({ source: 'export const say = (' }, { driver });
      await assert.rejects(broken.say('one'), { name: 'SourceRejected' });
    });

    it('has its deadline and its signal, and the worker hears of both', async () => {
      const late = sayer(used.mesh);
      assert.equal(await withOptions(sayer(used.mesh), { timeout_ms: 15_000 }).time(), 15_000);
      const waits = withOptions(late, { timeout_ms: 4_000 }).wait();
      await assert.rejects(waits, (error: any) => error.name === 'DeadlineExceeded' && error.fields.may_have_run);
      await until('the worker hears of time', async () => /4000 ms/.test(await late.why()));
      const controller = new AbortController();
      const given_up = sayer(used.mesh);
      const called = withOptions(given_up, { signal: controller.signal }).wait();
      await new Promise((resolve) => setImmediate(resolve));
      controller.abort(new Error('the user went home'));
      await assert.rejects(called, (error: any) => error.name === 'Cancelled' && error.fields.may_have_run);
      await until('the worker hears', async () => /the user went home/.test(await given_up.why()));
      assert.deepEqual(await given_up.all(), ['waits']);
    });

    it('may have run where the answer is lost, and is not called again', async () => {
      await using heard = await overheard(used);
      heard.drops.if = () => true;
      const before = new Set((await used.mesh.registry()).workers.map(({ worker }) => worker));
      const lost = sayer(heard.mesh, { labels: {}, memory_mib: 100 });
      await assert.rejects(lost.say('one'), { name: 'OutcomeUnknown' });
      await assert.rejects(async () => lost, { name: 'OutcomeUnknown' });
      assert.deepEqual(heard.asked.map(methods), [['say']]);
      const { workers } = await used.mesh.registry();
      const [born] = workers.filter(({ worker, memory_mib }) => !before.has(worker) && memory_mib === 100);
      assert.deepEqual(await used.mesh.visit<Sayer>(born!.worker).all(), ['one']);
      await used.mesh.destruct(born!.worker);
    });

    it('may end its worker, and hears so', async () => {
      const turn = driver === 'quickjs' ? { turn_ms: 200 } : {};
      const worker = sayer(used.mesh, { ...turn, max_life_ms: 1_500 });
      const spun = worker.spin();
      await assert.rejects(spun, { name: 'WorkerDied' });
      // Whoever gave up a call that rode may have its worker killed before it has come to it.
      const given = { timeout_ms: 500, kill_after_ms: 50 };
      const killed = sayer(used.mesh, { memory_mib: 101 });
      await assert.rejects(withOptions(killed, given).wait(), { name: 'DeadlineExceeded' });
      const gone = async () => (await used.mesh.registry()).workers.every(({ memory_mib }) => memory_mib !== 101);
      await until('it is killed', gone);
    });
  });

describe('a request with what rides', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });
  const ask = async (first: unknown) => {
    const response = await fetch(`${used.local.url}${SPAWN}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${used.local.token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ source: SOURCE, audience: 'A'.repeat(43), first }),
    });
    return { status: response.status, body: (await response.json()) as any };
  };
  const call = (id: number, method: string, ...params: unknown[]) => ({
    text: JSON.stringify({ jsonrpc: '2.0', id, method, params }),
  });

  it('is answered with ticket and first answers, to whoever wants one answer', async () => {
    let answers: unknown[] = [];
    // A busy machine may answer without them, for they come over the session too.
    await until('it is answered so', async () => {
      const { status, body } = await ask([call(1, 'say', 'one'), call(2, 'all')]);
      assert.equal(status, 200);
      assert.equal(typeof body.ticket.signed, 'string');
      answers = body.first.map(({ text }: First) => JSON.parse(text));
      return answers.length > 0;
    });
    assert.deepEqual(answers, [
      { jsonrpc: '2.0', id: 1, result: 1 },
      { jsonrpc: '2.0', id: 2, result: ['one'] },
    ]);
  });

  it('is refused where that is too much, or no messages', async () => {
    const before = (await used.mesh.registry()).workers.length;
    const many = Array.from({ length: 33 }, (_, i) => call(i, 'all'));
    for (const first of [
      [call(1, 'say', 'x'.repeat(70_000))],
      many,
      [{ text: 1 }],
      [{ text: '', bytes: '?' }],
      'text',
    ]) {
      const { status, body } = await ask(first);
      assert.deepEqual([status, body.error.data.name], [400, 'BadInput']);
    }
    assert.equal((await used.mesh.registry()).workers.length, before);
  });

  it('that breaks the protocol spoils that session alone', async () => {
    const { status, body } = await ask([{ text: 'this is no message' }]);
    assert.deepEqual([status, body.first], [200, []]);
    assert.deepEqual(await used.mesh.visit<Sayer>(body.worker).all(), []);
  });
});

describe('a core that is killed after it has answered a clone', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });

  it('takes nothing along: what rode was called once, and the session goes on without it', async () => {
    await using heard = await overheard(used);
    const killed = Promise.withResolvers<void>();
    heard.drops.if = () => {
      used.local.core.kill().then(killed.resolve, killed.reject);
      return false;
    };
    const worker = heard.mesh.clone<Sayer>({ source: SOURCE });
    assert.equal(await worker.say('one'), 1);
    await killed.promise;
    assert.equal(await worker.say('two'), 2);
    assert.deepEqual(await worker.all(), ['one', 'two']);
    assert.deepEqual(heard.asked.map(methods), [['say']]);
  });
});
