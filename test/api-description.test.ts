/**
 * What the core and a kernel say of their own HTTP APIs, held against what they do: requests are made from their
 * descriptions (OpenAPI), such as these call valid, and such as differ from those in one place. `API_RUNS`: how many of
 * each for an operation. What fails is printed with its seed.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { useJoinedKernels } from './support/kernel.ts';
import { CALCULATOR, useMesh } from './support/mesh.ts';
import {
  type Answer,
  type Asked,
  answersAs,
  asker,
  asserts,
  broken,
  brokenText,
  errorIn,
  type Hints,
  type Operation,
  operationsOf,
  requestOf,
  valid,
  validParameters,
} from './support/openapi.ts';

const MODULE = 'export default { async fetch(request) { return new Response("hi " + request.method) } }';
const is = (...values: unknown[]) => values;
const json = { 'content-type': 'application/json' };

/** Values that mean something, by the names of members and parameters. */
const HINTS: Hints = {
  pointer: is('gem-pointer://wiki/p/a', 'gem-pointer://wiki/p/b'),
  prefix: is('gem-pointer://', 'gem-pointer://wiki/'),
  source: is(CALCULATOR),
  content: is(MODULE),
  language: is('javascript'),
  media_type: is('text/plain'),
  driver: is('quickjs'),
  memory_mib: is(16, 32),
  min_isolation: is('none', 'vm'),
  labels: is({}),
  method: is('add'),
  params: is([1, 2]),
  expression: is('1 + 1'),
  to: is('example.com:443'),
  fetch: is(['example.com:443']),
  connect: is(['example.com:443']),
  read: is(['gem-pointer://wiki/']),
  write: is(['gem-pointer://wiki/']),
  grants: is({}, { time: true }, { fetch: ['example.com:443'] }),
  secrets: is({ KEY: { value: 'hush hush', to: ['example.com:443'] } }),
  targets: is({ nodes: ['*'] }, { pointers: ['gem-pointer://wiki/'] }),
  tests: is([], [{ path: '/', expect: { status: 200 } }]),
  target_module: is('echo.js', 'other.js'),
  versions: is({ 1: 100 }, { 1: 40, 2: 60 }),
  version: is(1, 2),
  from: is(1),
  name: is('abc', 'n-1'),
  wait_ms: is(0, 10),
  watch_ms: is(0),
  timeout_ms: is(1_000, 30_000),
  load_timeout_ms: is(10_000),
  alias: is(null, '/api/v2/fuzzed/'),
  volume: is(null, 'data', { name: 'data', quota_mib: 8 }),
  clone: is(null, 2),
  methods: is(['GET']),
  'if-match': is('*', '"1"'),
  'if-none-match': is('*'),
  'content-range': is('bytes 0-1/2', 'bytes 0-1/*'),
  'repr-digest': is(`sha-256=:${'A'.repeat(43)}=:`),
  traceparent: is('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'),
  'if-range': is('"1"'),
  range: is('bytes=0-1', 'bytes=-1', 'bytes=9-'),
  'last-event-id': is('0'),
};

/** What no schema says: how members go together, and what there must be already. */
const CONTEXT = [
  'give either a pointer or a source',
  'give one of content, pointer and edits',
  'it cannot stand beside If-None-Match',
  'it needs both',
  'no driver but quickjs bounds a turn',
  'a quickjs vault has at least',
  'heartbeat_ms: from',
  'it cannot live at least',
  'Write it with a language',
  'it has no such grant',
  'it has another length',
  'it has more than',
  'give it the scope node alone',
  'served before this; name one',
  'there is a log of',
  'is taken: ',
  'comes under',
  'belongs to',
  'weights',
  'name none beside it',
];

/** What may be ended. */
const SPARED: Hints = { worker: is('w-nobody'), module: is('nobody'), pointer: is('gem-pointer://wiki/p/b') };

/** What has one place wrong, each with its body. */
function brokenRequests(operation: Operation, hints: Hints): fc.Arbitrary<Asked>[] {
  const schema = operation.body['application/json']?.schema;
  const body = schema ? valid(schema, hints) : fc.constant(undefined);
  const given = validParameters(operation, hints);
  const texts = operation.parameters.flatMap((parameter) => {
    const wrong = parameter.in === 'header' ? undefined : brokenText(parameter);
    const made = (one: Record<string, unknown>, text: unknown, with_body: unknown) =>
      requestOf(operation, { ...one, [parameter.name]: text }, with_body);
    return wrong ? [fc.tuple(given, wrong, body).map(([one, text, with_body]) => made(one, text, with_body))] : [];
  });
  if (!schema) return texts;
  return [...texts, fc.tuple(given, broken(schema, hints)).map(([one, wrong]) => requestOf(operation, one, wrong))];
}

/** What no description has to say, since HTTP and JSON do. */
const MALFORMED: [name: string, headers: Record<string, string>, body: string | Buffer | undefined][] = [
  ['no body', {}, undefined],
  ['an empty body', json, ''],
  ['half a body', json, '{"target_module": '],
  ['broken UTF-8', json, Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d])],
  ['no JSON', json, 'NaN'],
  ['two of it', json, '{}{}'],
  ['a list', json, '[]'],
  ['a number beyond all bounds', json, '{"memory_mib":1e400}'],
  ['a prototype', json, '{"__proto__":{"a":1}}'],
  ['a depth', json, '['.repeat(50_000) + ']'.repeat(50_000)],
  ['another type', { 'content-type': 'application/xml' }, '<a/>'],
  ['no such type', { 'content-type': ';;' }, '{}'],
];

interface Described {
  document: any;
  operations: Operation[];
  ask(asked: Asked): Promise<Answer>;
  stranger(asked: Asked): Promise<Answer>;
  close(): void;
}
async function describedBy(url: string, token: string): Promise<Described> {
  const own = asker(url, token);
  const none = asker(url, '');
  const document = JSON.parse((await own.ask({ method: 'GET', path: '/docs/json' })).text);
  const close = () => {
    own.close();
    none.close();
  };
  return { document, operations: operationsOf(document), ask: own.ask, stranger: none.ask, close };
}

describe('the descriptions of a core and of a kernel', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });
  const kernels = useJoinedKernels(used, 'api');
  const hints: Hints = { ...HINTS };
  const apis: Record<string, Described> = {};
  let worker: string;

  before(async () => {
    await kernels.start(0);
    apis.core = await describedBy(used.local.url, used.local.token);
    apis.kernel = await describedBy(kernels.all[0]!.url, kernels.all[0]!.token);
    await used.mesh.meshfs.write('gem-pointer://wiki/p/a', 'kept');
    const ghost = used.mesh.clone({ source: CALCULATOR });
    ({ worker } = await used.mesh.details(ghost));
    const content = { target_module: 'echo.js', content: MODULE };
    const evolved = await apis.kernel.ask({
      method: 'POST',
      path: '/api/evolve',
      headers: json,
      body: JSON.stringify(content),
    });
    assert.equal(evolved.status, 200, evolved.text);
    Object.assign(hints, {
      worker: is(worker, 'w-nobody'),
      kernel: is(kernels.name(0)),
      module: is('echo', 'nobody'),
    });
  });
  after(() => {
    for (const api of Object.values(apis)) api.close();
  });

  /** All that a refused request could have changed. */
  const seen = async () => {
    const events = await apis.core!.ask({ method: 'GET', path: '/api/v2/events/recent?limit=1' });
    const history = await apis.kernel!.ask({ method: 'GET', path: '/api/history' });
    return [JSON.parse(events.text).events.at(-1)?.seq, JSON.parse(history.text).entries.length];
  };

  for (const name of ['core', 'kernel'] as const) {
    it(`of the ${name}: what it calls invalid is refused, by the table of errors, and changes nothing`, async () => {
      const { ask, operations } = apis[name]!;
      // Modules speak for themselves, and JSON-RPC too.
      const own = /^\/api\/plugins\/|^\/api\/v2\/ephemeral\/\{worker\}$/;
      for (const operation of operations.filter(({ path }) => !own.test(path)))
        for (const requests of brokenRequests(operation, hints)) {
          const earlier = await seen();
          await asserts(requests, async (asked) => {
            const answer = await ask(asked);
            const what = `${asked.method} ${asked.path} ${asked.body} => ${answer.text}`;
            assert.equal(answer.status, 400, what);
            // What is too deep for the link to a kernel is never sent.
            if (asked.method !== 'HEAD') assert.match(errorIn(answer) ?? '', /^(BadInput|Unserialisable)$/, what);
          });
          assert.deepEqual(await seen(), earlier, `${operation.method} ${operation.path} changed something`);
        }
    });
  }

  for (const name of ['core', 'kernel'] as const) {
    it(`of the ${name}: what it calls valid is answered as it says, and never refused as malformed`, async () => {
      const { ask, operations } = apis[name]!;
      for (const operation of operations) {
        const { method, path, body: kinds } = operation;
        // What all others are asked about stays.
        const own = method === 'DELETE' ? { ...hints, ...SPARED } : hints;
        const schema = kinds['application/json']?.schema;
        const bodies = schema ? valid(schema, own) : fc.constant(undefined);
        await asserts(fc.tuple(validParameters(operation, own), bodies), async ([given, body]) => {
          const asked = requestOf(operation, given, body);
          if (kinds['*/*'])
            Object.assign(asked, { body: 'hi', headers: { ...asked.headers, 'content-type': 'text/plain' } });
          const answer = await ask(asked);
          const what = `${method} ${asked.path} ${asked.body} ${JSON.stringify(asked.headers)} => ${answer.text}`;
          if (path.startsWith('/api/plugins/')) return;
          answersAs(operation, answer);
          if (method !== 'HEAD' && errorIn(answer) === 'BadInput')
            assert.ok(
              CONTEXT.some((one) => answer.text.includes(one)),
              what,
            );
        });
      }
    });

    it(`of the ${name}: nothing malformed, and no other method, is more than refused`, async () => {
      const routes = apis[name]!.operations.filter(({ path }) => !path.startsWith('/api/plugins/'));
      for (const operation of routes)
        await asserts(
          validParameters(operation, { ...hints, ...SPARED }),
          async (given) => malform(operation, given),
          1,
        );
    });

    const malform = async (operation: Operation, given: Record<string, unknown>) => {
      const { ask, stranger, operations } = apis[name]!;
      const { method, path, headers = {} } = requestOf(operation, given);
      const refused = async (what: string, asked: Asked, by = ask) => {
        const answer = await by(asked);
        if (asked.method !== 'HEAD') errorIn(answer);
        assert.ok(
          answer.status < 500 || answer.status === 503,
          `${what}: ${asked.method} ${path} => ${answer.status} ${answer.text}`,
        );
        return answer.status;
      };
      for (const [what, more, body] of MALFORMED) {
        const status = await refused(what, { method, path, headers: { ...headers, ...more }, body });
        if (operation.body['application/json'] && /evolve|tokens|write|spawn|weights|pin$/.test(path))
          assert.equal(status, 400, `${what}: ${method} ${path}`);
      }
      for (const other of ['PATCH', 'PUT', 'DELETE', 'TRACE', 'OPTIONS', 'PROPFIND', 'POST', 'HEAD'])
        if (!operations.some((one) => one.method === other && one.path === operation.path)) {
          const known =
            other === 'HEAD' && operations.some((one) => one.method === 'GET' && one.path === operation.path);
          // Of two routes one path may fit both.
          const also = other === 'DELETE' && operation.path.endsWith('/self');
          const status = await refused(other, { method: other, path });
          if (!known && !also) assert.equal(status, 404, `${other} ${path}`);
        }
      // The kernel checks what the core passes on.
      const knows = operation.parameters.some((one) => one.in === 'query') && !path.startsWith('/api/v2/kernels/');
      const joint = path.includes('?') ? '&' : '?';
      const strange = await refused('a query', { method, path: `${path}${joint}surprise=1`, headers });
      if (knows) assert.equal(strange, 400, `${method} ${path}`);
      for (const junk of ['/%', '/%ff', `/${'x'.repeat(200)}`, '//', '/..%2f', '/\\'])
        await refused(junk, { method, path: path.split('?')[0] + junk });
      if (operation.open) return;
      for (const authorization of ['', 'Basic abc', 'Bearer ', 'Bearer hauki_wrong', 'Bearer a, Bearer b']) {
        const body = method === 'GET' || method === 'HEAD' ? undefined : '{';
        const status = await refused('no token', { method, path, headers: { ...json, authorization }, body }, stranger);
        assert.equal(status, 401, `${authorization}: ${method} ${path}`);
      }
    };
  }

  it('what never becomes a request is refused in the same words', async () => {
    const big = `{"target_module":"${'x'.repeat(13 * 1024 * 1024)}"}`;
    for (const [name, path] of [
      ['core', '/api/v2/tokens'],
      ['kernel', '/api/evolve'],
    ] as const) {
      const { ask } = apis[name]!;
      const headers = await ask({ method: 'GET', path: '/health', headers: { x: 'y'.repeat(20_000) } });
      assert.deepEqual([headers.status, errorIn(headers)], [431, 'BadInput']);
      const coded = await ask({ method: 'POST', path, headers: { ...json, 'transfer-encoding': 'gzip, chunked' } });
      assert.deepEqual([coded.status, errorIn(coded)], [501, 'BadInput']);
      const large = await ask({ method: 'POST', path, headers: json, body: big });
      assert.deepEqual([large.status, errorIn(large)], [413, 'TooLarge'], 'its sender reads why');
    }
  });

  it('a text that is no UTF-8 is refused, and written nowhere', async () => {
    const { ask } = apis.core!;
    const pointer = 'gem-pointer://wiki/p/broken';
    const body = Buffer.from(JSON.stringify({ pointer, content: 'a\u00ffb' }), 'latin1');
    const answer = await ask({ method: 'POST', path: '/api/v2/meshfs/write', headers: json, body });
    assert.equal(errorIn(answer), 'BadInput', answer.text);
    const found = await ask({ method: 'GET', path: `/api/v2/meshfs/resolve?pointer=${pointer}` });
    assert.equal(errorIn(found), 'PointerUnknown');
    const call = Buffer.from('{"jsonrpc":"2.0","id":1,"method":"add","params":["\u00ff"]}', 'latin1');
    const called = await ask({ method: 'POST', path: `/api/v2/ephemeral/${worker}`, headers: json, body: call });
    assert.equal(JSON.parse(called.text).error.code, -32700, 'as JSON-RPC has it');
    const content = Buffer.from(JSON.stringify({ target_module: 'broken.js', content: `${MODULE}//\u00ff` }), 'latin1');
    assert.equal(
      errorIn(await apis.kernel!.ask({ method: 'POST', path: '/api/evolve', headers: json, body: content })),
      'BadInput',
    );
  });

  it('after all of that the core and the kernel are whole, and have what they had', async () => {
    assert.ok((await used.mesh.meshfs.history('gem-pointer://wiki/p/a')).versions.length > 0);
    const { text } = await apis.core!.ask({
      method: 'POST',
      path: `/api/v2/ephemeral/${worker}`,
      headers: json,
      body: '{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2]}',
    });
    assert.equal(JSON.parse(text).result, 3);
    assert.equal((await apis.kernel!.ask({ method: 'GET', path: '/api/plugins/echo/' })).text, 'hi GET');
    assert.doesNotMatch(used.log(), /a request failed|uncaught|unhandled/i);
    assert.equal(({} as { polluted?: number }).polluted, undefined);
  });
});
