/**
 * A planner that has nothing but a URL, a token, and what the core and a kernel say of themselves (`/docs/json`): the
 * description names its routes rightly, has a word on whatever may be posted, and what it tells to do comes true.
 */
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { useKernel } from './support/kernel.ts';
import { missing, until, useMesh } from './support/mesh.ts';

interface Schema {
  description?: string;
  enum?: unknown[];
  anyOf?: Schema[];
  properties?: Record<string, Schema>;
}
interface Description {
  info: { description: string };
  paths: Record<string, Record<string, { requestBody?: { content: { 'application/json': { schema: Schema } } } }>>;
}

const described = async (url: string): Promise<Description> =>
  (await (await fetch(new URL('/docs/json', url))).json()) as Description;

/** Routes that a text names, as in `GET /health`. */
const named = (text: string) =>
  [...text.matchAll(/`(GET|POST|DELETE) (\/[^\s`]+)`/g)].map(([, method, path]) => [method!, path!]);

/** Members of what a route takes of which nothing is said. */
function unsaid({ paths }: Description, path: string): string[] {
  const { schema } = paths[path]!.post!.requestBody!.content['application/json'];
  return Object.entries(schema.properties!).flatMap(([name, member]) => (member.description ? [] : [name]));
}

const SOURCE = 'export const greet = (name) => { console.log(name); return "Hello, " + name; };';

describe('the core, to a planner', { skip: missing('quickjs') }, () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });
  let core: Description;
  before(async () => {
    core = await described(used.local.url);
  });

  const ask = async (method: string, path: string, body?: object): Promise<any> => {
    const headers = { authorization: `Bearer ${used.local.token}`, 'content-type': 'application/json' };
    const told = await fetch(new URL(path, used.local.url), {
      method,
      headers: body ? headers : { authorization: headers.authorization },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    const answer = await told.json();
    assert.ok(told.ok, `${method} ${path}: ${JSON.stringify(answer)}`);
    return answer;
  };

  it('names routes that there are, and says something of all that may be posted to them', () => {
    const routes = named(core.info.description);
    assert.ok(routes.length >= 8, String(routes.length));
    for (const [method, path] of routes) assert.ok(core.paths[path!]?.[method!.toLowerCase()], `${method} ${path}`);
    for (const path of ['/api/v2/omega_spool', '/api/v2/swarm_spawn_ephemeral', '/api/evolve'])
      assert.deepEqual(unsaid(core, path), [], path);
  });

  it('runs code once by the steps that its description gives', async () => {
    const { job } = await ask('POST', '/api/v2/omega_spool', { source: SOURCE, method: 'greet', params: ['Ada'] });
    const { state, result } = await ask('GET', `/api/v2/omega_spool/${job}?wait_ms=30000`);
    assert.deepEqual({ state, result }, { state: 'done', result: 'Hello, Ada' });
  });

  it('makes a worker, is called, tells its log and ends it, all over HTTP', async () => {
    const order = { source: SOURCE, ttl_ms: 60_000, audience: 'A'.repeat(43) };
    const { worker } = await ask('POST', '/api/v2/swarm_spawn_ephemeral', order);
    const call = { jsonrpc: '2.0', id: 1, method: 'greet', params: ['Ada'] };
    assert.equal((await ask('POST', `/api/v2/ephemeral/${worker}`, call)).result, 'Hello, Ada');
    // What it says comes a way of its own, behind its answer perhaps.
    const logs = async () => JSON.stringify(await ask('GET', `/api/v2/ephemeral/${worker}/logs`));
    await until('its log tells of it', async () => (await logs()).includes('Ada'));
    await ask('DELETE', `/api/v2/ephemeral/${worker}`);
  });

  it('says where it is described to who asks for what there is not', async () => {
    for (const path of ['/', '/openapi.json']) {
      const { error } = (await (await fetch(new URL(path, used.local.url))).json()) as any;
      assert.match(error.message, /\/docs\/json/, path);
    }
  });
});

describe('a kernel, to a planner', { skip: missing('quickjs') }, () => {
  const used = useKernel({ drivers: ['quickjs'], open: true });

  it('names routes that there are, says something of all that may be posted, and where it is described', async () => {
    const kernel = await described(used.process.url);
    const routes = named(kernel.info.description);
    assert.ok(routes.length >= 5, String(routes.length));
    for (const [method, path] of routes) assert.ok(kernel.paths[path!]?.[method!.toLowerCase()], `${method} ${path}`);
    assert.deepEqual(unsaid(kernel, '/api/evolve'), []);
    const { error } = (await (await fetch(new URL('/openapi.json', used.process.url))).json()) as any;
    assert.match(error.message, /\/docs\/json/);
  });

  it('serves the module of its description, and takes edits of it by the digest that it tells', async () => {
    const { info } = await described(used.process.url);
    const content = /`(export default .+?)`,/.exec(info.description)![1]!;
    const ask = async (path: string, body?: object): Promise<any> => {
      const sent = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
      const told = await fetch(new URL(path, used.process.url), body ? sent : {});
      assert.ok(told.ok, `${path}: ${told.status}`);
      return told.headers.get('content-type')?.startsWith('application/json') ? told.json() : told.text();
    };
    await ask('/api/evolve', { target_module: 'hello.js', content });
    assert.equal(await ask('/api/plugins/hello/'), 'hello');
    const { digest } = await ask('/api/modules/hello');
    const edits = [{ find: '"hello"', replace: '"hullo"' }];
    await ask('/api/evolve', { target_module: 'hello.js', base_digest: digest, edits });
    assert.equal(await ask('/api/plugins/hello/'), 'hullo');
    await ask('/api/modules/hello/rollback', {});
    assert.equal(await ask('/api/plugins/hello/'), 'hello');
  });
});
