/** The Python guest with a plugin, by itself: a plain process without any packages, called through its gate's shell. */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { AgentForShell, Answer } from '@hauki/protocol';
import { findFrameworks } from '../src/drivers/lxc/python-frameworks.ts';
import { writePythonGuest } from '../src/guest/python/files.ts';
import { no_python, PYTHON, rejected, useGatedGuests } from './gated-guest.ts';

describe('a plugin in the Python guest', { skip: no_python }, () => {
  const guests = useGatedGuests('python-plugin', writePythonGuest);
  const { folder } = guests;

  const start = async (source: string, prelude = 'pass') => {
    const main = `import sys; sys.path.insert(0, ${JSON.stringify(folder)}); import guest; ${prelude}; guest.main()`;
    const guest = await guests.start(PYTHON, ['-I', '-S', '-B', '-c', main]);
    const lines: string[] = [];
    const agent: Pick<AgentForShell, 'effect'> = {
      effect: async (name, [level, line]) => void (name === 'log' && lines.push(`${level} ${line}`)),
    };
    const order = { source, language: 'python', kind: 'plugin', load_timeout_ms: 30_000 } as const;
    const { shell } = await guests.load(guest, order, agent);
    const call = (method: string, ...args: unknown[]) => shell.call(method, args);
    const get = async (path = '/', headers: string[] = []) =>
      (await call('fetch', 'GET', `http://h:81${path}`, headers, null)) as Answer;
    const text = async (path?: string) => Buffer.from((await get(path))[2] as Uint8Array).toString();
    return { shell, call, get, text, lines };
  };
  const app = (body: string, before = '') => `${before}
async def app(scope, receive, send):
    if scope["type"] != "http": raise RuntimeError("only http")
${body.replaceAll(/^/gm, '    ')}
`;
  const begin = 'await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]})';

  it('refuses a module that needs FastAPI where there is none, says what to do, and takes others', async () => {
    await assert.rejects(
      start('x = 1\nfrom fastapi import APIRouter\nrouter = APIRouter()\n'),
      rejected('import', /fastapi is not installed on this node: apt-get install python3-fastapi.*worker\.py:2/),
    );
    const listing = await start(app('pass', 'routes = ["GET /a", "ALL /b", "/c"]'));
    assert.deepEqual(((await listing.call('describe')) as { routes: string[] }).routes, ['GET /a', '* /b', '* /c']);
    await assert.rejects(
      start('raise RuntimeError(\'Form data requires "python-multipart" to be installed.\')'),
      rejected('import', /python-multipart is not installed on this node: apt-get install python3-multipart.*:1/),
    );
    await assert.rejects(start('def app_(): pass'), rejected('exports', /a FastAPI `router`, or an ASGI `app`.*app_/));
    const { text } = await start(app(`${begin}\nawait send({"type": "http.response.body", "body": b"plain"})`));
    assert.equal(await text(), 'plain');
  });

  it('gives an answer that is there at once whole, with its status and headers', async () => {
    const { get, call } = await start(
      app(
        `${begin}
await send({"type": "http.response.body", "body": (scope["path"] + "?" + scope["query_string"].decode() + str(scope["server"]) + str(scope["client"]) + str(scope["headers"])).encode()})`,
      ),
    );
    const [status, headers, body] = await get('/%C3%A4?b=%20', ['X-B', 'ü']);
    assert.deepEqual([status, headers], [200, ['x-a', '1']]);
    assert.equal(Buffer.from(body as Uint8Array).toString(), "/ä?b=%20('h', 81)('unknown', 0)[(b'x-b', b'\\xfc')]");
    assert.deepEqual(await call('describe'), { routes: ['* /*'], state: 'none' });
  });

  it('fails the request, and nothing else, of an application that breaks the rules', async () => {
    const { get, text, lines } = await start(
      app(`match = scope["path"]
if match == "/early": await send({"type": "http.response.body", "body": b""})
if match == "/none": return
if match == "/raises": raise ValueError("no")
${begin}
if match == "/twice":
    ${begin}
await send({"type": "http.response.body", "body": b"ok"})
if match == "/late": raise ValueError("after the answer")
if match == "/more": await send({"type": "http.response.body", "body": b"more"})`),
    );
    await assert.rejects(get('/early'), /http\.response\.body where it does not belong/);
    await assert.rejects(get('/none'), /returned before its response was complete/);
    await assert.rejects(get('/raises'), /ValueError: no/);
    await assert.rejects(get('/twice'), /http\.response\.start where it does not belong/);
    assert.equal(await text('/more'), 'ok');
    assert.equal(await text('/late'), 'ok');
    for (let i = 0; i < 400 && lines.length < 2; i++) await new Promise((resolve) => setTimeout(resolve, 25));
    assert.match(lines.join('\n'), /http\.response\.body where it does not belong/);
    assert.match(lines.join('\n'), /ValueError: after the answer\n.*app \(worker\.py:12\)/);
  });

  it('runs start-up and shut-down of an application that has them, and passes its state on', async () => {
    const lifespan = (startup: string) => `
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        ${startup}
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        print("shut down")
        return await send({"type": "lifespan.shutdown.complete"})
    ${begin}
    await send({"type": "http.response.body", "body": scope["state"]["name"].encode()})
`;
    const { text, shell, lines } = await start(lifespan('scope["state"]["name"] = "begun"'));
    assert.equal(await text(), 'begun');
    await shell.end('enough');
    for (let i = 0; i < 400 && lines.length === 0; i++) await new Promise((resolve) => setTimeout(resolve, 25));
    assert.deepEqual(lines, ['info shut down']);
    await assert.rejects(
      start(lifespan('return await send({"type": "lifespan.startup.failed", "message": "no room"})')),
      rejected('load', /its startup failed: no room/),
    );
  });

  it('owns up to handlers that never return, so that its kernel starts it again', async () => {
    const { get, call } = await start(
      app(
        `await send({"type": "http.response.start", "status": 200, "headers": []})
await send({"type": "http.response.body", "body": b"begun", "more_body": True})
while True:
    try:
        await asyncio.sleep(99)
    except asyncio.CancelledError:
        print("cancelled")`,
        'import asyncio',
      ),
      'import asgi; asgi._STUCK, asgi._GONE_S, asgi._STUCK_S = 2, 0.05, 0.1',
    );
    const leave = async () => {
      const stream = ((await get())[2] as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]();
      assert.equal(Buffer.from((await stream.next()).value as Uint8Array).toString(), 'begun');
      await stream.return!();
    };
    await leave();
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.deepEqual(await call('describe'), { routes: ['* /*'], state: 'none' });
    await leave();
    let told = '';
    for (let i = 0; i < 400 && told === ''; i++) {
      await call('describe').catch((error: Error) => {
        told = error.message;
      });
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    assert.match(told, /too many of its handlers never return/);
  });

  it('takes a state over by name and type, in Python’s own types', async () => {
    const { call, text } = await start(
      app(
        `${begin}
await send({"type": "http.response.body", "body": repr(state).encode()})`,
        'state = {"n": 1, "f": 0.5, "s": "a", "t": (), "d": {}, "set": set(), "none": None, "kept": [1]}',
      ),
    );
    assert.equal(((await call('describe')) as { state: string }).state, 'export');
    const given = {
      n: 7,
      f: 2,
      s: 5,
      t: [1, 2],
      d: new Map([[1, new Set(['x'])]]),
      none: 'now',
      kept: { a: 1 },
      new: 1,
    };
    await call('hydrate', { ...given, set: new Set([3]) }, 1);
    assert.equal(
      await text(),
      "{'n': 7, 'f': 2.0, 's': 'a', 't': (1, 2), 'd': {1: {'x'}}, 'set': {3}, 'none': 'now', 'kept': [1]}",
    );
    const back = (await call('dehydrate')) as { d: unknown; set: unknown };
    assert.deepEqual([back.d, back.set], [new Map([[1, new Set(['x'])]]), new Set([3])]);
    const empty = await start(
      app(`${begin}\nawait send({"type": "http.response.body", "body": repr(state).encode()})`, 'state = {}'),
    );
    await empty.call('hydrate', { a: 1, b: [2] }, 1);
    assert.equal(await empty.text(), "{'a': 1, 'b': [2]}");
  });

  it('reads the state when it is given away and taken over: it may be another object by then', async () => {
    const counting = app(
      `global state
if scope["path"] == "/anew": state = {"n": state["n"] + 1}
${begin}
await send({"type": "http.response.body", "body": repr(state).encode()})`,
      'state = {"n": 0}',
    );
    const { call, text } = await start(counting);
    await text('/anew');
    assert.deepEqual(await call('dehydrate'), { n: 1 });
    await call('hydrate', { n: 7 }, 1);
    assert.equal(await text(), "{'n': 7}");
  });

  it('takes a state over that holds itself, and itself is then the one of now', async () => {
    const { call, text } = await start(
      app(
        `${begin}
told = state["self"] is state and state["child"]["parent"] is state and state["list"][0] is state["list"]
await send({"type": "http.response.body", "body": repr((told, state["n"])).encode()})`,
        'state = {"n": 0, "self": None, "child": {}, "list": []}',
      ),
    );
    const given: Record<string, unknown> = { n: 5, child: {}, list: [] };
    given.self = given;
    given.child = { parent: given };
    (given.list as unknown[]).push(given.list);
    await call('hydrate', given, 1);
    assert.equal(await text(), '(True, 5)');
    const back = (await call('dehydrate')) as { self: unknown; n: number };
    assert.equal(back.self, back);
  });

  it('keeps classes of a state that come as lists, dicts and sets, and says in the log what it left behind', async () => {
    const { call, text, lines } = await start(
      app(
        `${begin}
await send({"type": "http.response.body", "body": repr(state).encode()})`,
        `from collections import Counter, OrderedDict, namedtuple
Point = namedtuple("Point", "x y")
state = {"hits": Counter(), "at": Point(0, 0), "fixed": frozenset(), "by": {}, "n": 1}`,
      ),
    );
    const by = new Map([[['a', 1], new Set([[1, 2]])]]);
    await call('hydrate', { hits: { a: 2 }, at: [1, 2], fixed: new Set([3]), by, n: 'text', gone: 1 }, 1);
    assert.equal(
      await text(),
      "{'hits': Counter({'a': 2}), 'at': Point(x=1, y=2), 'fixed': frozenset({3}), 'by': {('a', 1): {(1, 2)}}, 'n': 1}",
    );
    for (let i = 0; i < 400 && lines.length === 0; i++) await new Promise((resolve) => setTimeout(resolve, 25));
    assert.match(lines.join(), /not taken over.*: n, gone$/);
  });

  it('finds what a framework imports, wherever it is installed, and looks again when something changes', async () => {
    const [site, stage] = [join(folder, 'site'), join(folder, 'stage')];
    for (const name of ['frame', 'part', 'unused']) mkdirSync(join(site, name), { recursive: true });
    mkdirSync(stage);
    writeFileSync(join(site, 'frame', '__init__.py'), 'import part, single, json, like_six');
    writeFileSync(join(site, 'like_six.py'), '__path__ = []');
    for (const name of ['part', 'unused']) writeFileSync(join(site, name, '__init__.py'), '');
    const find = () => findFrameworks(PYTHON, [site], stage, ['frame', 'absent']);
    assert.deepEqual(await find(), { part: join(site, 'part') }, 'one that cannot be imported is not there');
    writeFileSync(join(site, 'single.py'), '');
    const files = { single: join(site, 'single.py'), like_six: join(site, 'like_six.py') };
    const whole = { frame: join(site, 'frame'), part: join(site, 'part'), ...files };
    assert.deepEqual(await find(), whole);
    // A change within a package is no change of what there is: what was found is remembered.
    writeFileSync(join(site, 'frame', '__init__.py'), 'import unused');
    assert.deepEqual(await find(), whole);
  });
});
