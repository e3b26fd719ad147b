/** Modules in Python, from outside: a FastAPI router or an ASGI application serves like any module, and fails like any. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { EvolveRejected, isError } from '@hauki/mesh';
import { useKernel } from './support/kernel.ts';
import { missing, until } from './support/mesh.ts';
import { assertEchoes, openSocket, refusal } from './support/sockets.ts';

const no_fastapi =
  process.env.CI !== 'true' &&
  !existsSync('/usr/lib/python3/dist-packages/fastapi') &&
  'FastAPI is not installed: apt-get install python3-fastapi';

/** As the design notes have it. */
const NOTES = `
from fastapi import APIRouter
from pydantic import BaseModel

router = APIRouter()

class Item(BaseModel):
    pointer: str
    content: str

stored = {}

@router.get("/x")
def read(q: str = "nobody"):
    return {"hello": q}

@router.post("/api/v2/meshfs/write")
async def write(item: Item):
    stored[item.pointer] = item.content
    return {"status": "success", "pointer": item.pointer}

@router.get("/api/v2/meshfs/resolve")
async def resolve(pointer: str):
    return {"status": "success", "pointer": pointer, "content": stored[pointer]}
`;

/** An ASGI application without any framework. */
const PLAIN = `
import json
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("only http")
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    shown = {name: scope[name] for name in ("method", "path", "root_path", "scheme")}
    shown["query"], shown["raw_path"], shown["bytes"] = scope["query_string"].decode(), scope["raw_path"].decode(), len(body)
    shown["mine"] = [value.decode() for name, value in scope["headers"] if name == b"x-mine"]
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-own", b"yes"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]})
    await send({"type": "http.response.body", "body": json.dumps(shown).encode()})
`;

const rejected = (stage: string, why: RegExp, line?: number) => (error: unknown) => {
  assert.ok(isError(error, EvolveRejected), String(error));
  assert.equal(error.fields.stage, stage, error.message);
  assert.match(error.message, why);
  if (line !== undefined) assert.equal(error.fields.line, line);
  return true;
};

for (const driver of ['lxc', 'process'] as const)
  describe(`modules in Python, with ${driver} vaults`, { skip: missing(driver) || no_fastapi }, () => {
    const kernel = useKernel({ drivers: [driver] });
    const evolve = (target_module: string, content: string, more = {}) =>
      kernel.door.evolve({ target_module, content, ...more });
    const text = async (path: string, init?: RequestInit) => (await kernel.get(path, init)).text();
    const post = (body: unknown) => ({
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });

    it('serves the router of a FastAPI module below its prefix, absolute routes too, and lists its routes', async () => {
      const { routes, prefix } = await evolve('notes.py', NOTES, {
        tests: [{ path: '/x?q=you', expect: { json: { hello: 'you' } } }],
      });
      assert.equal(prefix, '/api/plugins/notes/');
      assert.deepEqual(routes, ['GET /x', 'POST /api/v2/meshfs/write', 'GET /api/v2/meshfs/resolve']);
      assert.deepEqual(await kernel.json('notes/x?q=ada'), { hello: 'ada' });
      const item = { pointer: 'gem-pointer://a', content: 'hällo' };
      assert.equal((await kernel.get('notes/api/v2/meshfs/write', post(item))).status, 200);
      assert.equal((await kernel.json(`notes/api/v2/meshfs/resolve?pointer=${item.pointer}`)).content, 'hällo');
      assert.equal((await kernel.get('/api/v2/meshfs/write', post(item))).status, 404);
      const refused = await kernel.get('notes/api/v2/meshfs/write', post({ pointer: 1 }));
      assert.equal(refused.status, 422);
      assert.match(await refused.text(), /field required/);
      const { paths } = await kernel.json('/docs/json');
      assert.ok(paths['/api/plugins/notes/api/v2/meshfs/write'].post, 'it is in the description');
    });

    it('serves the example, which keeps its count from version to version', async () => {
      const example = readFileSync(new URL('../examples/plugins/hello.py', import.meta.url), 'utf8');
      await evolve('hello.py', example);
      assert.deepEqual(await kernel.json('hello/?name=Ada'), { hello: 'Ada', greeted: 1 });
      await evolve('hello.py', `${example}\n# another version`);
      assert.deepEqual(await kernel.json('hello/'), { hello: 'you', greeted: 2 });
    });

    it('takes a module by its language, serves it at an alias, and at the prefix itself', async () => {
      await evolve('named', NOTES.replace('"/x"', '""'), { language: 'python', alias: '/api/v2/meshfs/' });
      const item = { pointer: 'gem-pointer://b', content: 'at the alias' };
      assert.equal((await kernel.get('/api/v2/meshfs/write', post(item))).status, 200);
      const read = await kernel.json(`/api/v2/meshfs/resolve?pointer=${item.pointer}`);
      assert.deepEqual(read, { status: 'success', ...item });
      assert.deepEqual(await kernel.json('named/'), { hello: 'nobody' });
      assert.deepEqual(await kernel.json('/api/plugins/named'), { hello: 'nobody' });
    });

    it('serves an ASGI application of any kind, and tells it its prefix', async () => {
      const { routes } = await evolve('plain.py', PLAIN);
      assert.deepEqual(routes, ['* /*']);
      const answer = await kernel.get('plain/a%20b/c?d=1', {
        method: 'PUT',
        body: 'abc',
        headers: { 'x-mine': 'one' },
      });
      assert.equal(answer.status, 201);
      assert.deepEqual([answer.headers.get('x-own'), answer.headers.getSetCookie()], ['yes', ['a=1', 'b=2']]);
      assert.equal(answer.headers.get('x-hauki-version'), '1');
      assert.deepEqual(await answer.json(), {
        method: 'PUT',
        path: '/a b/c',
        root_path: '/api/plugins/plain',
        scheme: 'http',
        query: 'd=1',
        raw_path: '/a%20b/c',
        bytes: 3,
        mine: ['one'],
      });
    });

    it('runs handlers that block beside each other, and beside those that do not', async () => {
      await evolve(
        'blocks.py',
        `
import threading
from fastapi import APIRouter
router = APIRouter()
gate, held = threading.Barrier(8), threading.Event()
@router.get("/meet")
def meet(): return gate.wait(25) >= 0
@router.get("/held")
def wait(): return held.wait(25)
@router.get("/free")
async def free():
    held.set()
    return "freed"
`,
      );
      const meeting = Array.from({ length: 8 }, () => kernel.json('blocks/meet'));
      assert.deepEqual(new Set(await Promise.all(meeting)), new Set([true]));
      const waiting = kernel.json('blocks/held');
      assert.equal(await kernel.json('blocks/free'), 'freed');
      assert.equal(await waiting, true);
    });

    it('streams answers as they come, no faster than they are read, and ends them when their reader leaves', async () => {
      await evolve(
        'streams.py',
        `
import asyncio
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
router = APIRouter()
seen = {"made": 0, "closed": []}
go_on = asyncio.Event()
@router.get("/events")
async def events():
    async def tell():
        try:
            yield "data: one\\n\\n"
            await go_on.wait()
            yield "data: two\\n\\n"
            await asyncio.sleep(60)
        finally:
            seen["closed"].append("events")
    return StreamingResponse(tell(), media_type="text/event-stream")
@router.get("/flood")
def flood():
    def pieces():
        while True:
            seen["made"] += 1
            yield b"x" * 65536
    return StreamingResponse(pieces())
@router.get("/large")
def large(): return StreamingResponse(iter([b"y" * 3_000_000, b"z"]))
@router.post("/next")
async def next_(): go_on.set()
@router.get("/seen")
async def look(): return seen
`,
      );
      const answer = await kernel.get('streams/events');
      assert.match(answer.headers.get('content-type')!, /^text\/event-stream/);
      const reader = answer.body!.getReader();
      const next = async () => new TextDecoder().decode((await reader.read()).value);
      assert.equal(await next(), 'data: one\n\n');
      await kernel.get('streams/next', { method: 'POST' });
      assert.equal(await next(), 'data: two\n\n');
      await reader.cancel();
      const flood = (await kernel.get('streams/flood')).body!.getReader();
      await flood.read();
      const looked = async () => (await kernel.json('streams/seen')) as { made: number; closed: string[] };
      let made = 0;
      await until('it stands still while nobody reads', async () => {
        const before = made;
        made = (await looked()).made;
        await new Promise((resolve) => setTimeout(resolve, 100));
        return made > 1 && made === before;
      });
      assert.ok(made < 1_000, `${made} pieces of 64 KiB were made for one who reads none`);
      await flood.cancel();
      await until('it was told', async () => (await looked()).closed.includes('events'));
      assert.equal((await (await kernel.get('streams/large')).arrayBuffer()).byteLength, 3_000_001);
    });

    it('takes bodies of any size as they come, and answers also where nobody reads them', async () => {
      await evolve(
        'bodies.py',
        `
from fastapi import APIRouter, Request
router = APIRouter()
@router.post("/size")
async def size(request: Request):
    total = pieces = 0
    async for piece in request.stream():
        total, pieces = total + len(piece), pieces + 1
    return {"bytes": total, "many": pieces > 2}
@router.post("/ignored")
async def ignored(): return "not read"
`,
      );
      const body = new Uint8Array(5 * 1024 * 1024);
      assert.deepEqual(await kernel.json('bodies/size', { method: 'POST', body }), { bytes: body.length, many: true });
      assert.deepEqual(await kernel.json('bodies/size', { method: 'POST', body: 'abc' }), { bytes: 3, many: false });
      assert.deepEqual(await kernel.json('bodies/size', { method: 'POST' }), { bytes: 0, many: false });
      assert.equal(await kernel.json('bodies/ignored', { method: 'POST', body }), 'not read');
    });

    it('tells a handler that its client has gone', async () => {
      await evolve(
        'leaves.py',
        `
import asyncio
from fastapi import APIRouter, Request
router = APIRouter()
seen = []
@router.get("/wait")
async def wait(request: Request):
    seen.append("begun")
    while not await request.is_disconnected():
        await asyncio.sleep(0.01)
    seen.append("gone")
@router.get("/seen")
async def look(): return seen
`,
      );
      const leave = new AbortController();
      const asked = kernel.get('leaves/wait', { signal: leave.signal });
      await until('it waits', async () => (await kernel.json('leaves/seen')).includes('begun'));
      leave.abort();
      await assert.rejects(asked);
      await until('it was told', async () => (await kernel.json('leaves/seen')).includes('gone'));
    });

    it('runs start-up before the first request, and background tasks after the answer', async () => {
      await evolve(
        'life.py',
        `
import asyncio
from fastapi import FastAPI, BackgroundTasks
app = FastAPI()
seen, done = [], asyncio.Event()
@app.on_event("startup")
async def begin(): seen.append("startup")
async def later():
    await done.wait()
    seen.append("background")
@app.get("/later")
async def ask(tasks: BackgroundTasks):
    tasks.add_task(later)
    return seen
@app.get("/seen")
async def look():
    done.set()
    return seen
`,
      );
      assert.deepEqual(await kernel.json('life/later'), ['startup']);
      await until('the task ran', async () => (await kernel.json('life/seen')).length === 2);
      assert.deepEqual(await kernel.json('life/seen'), ['startup', 'background']);
      const failing = `
from fastapi import APIRouter
router = APIRouter()
@router.on_event("startup")
def begin():
    raise ValueError("not today")
@router.get("/")
def get(): pass
`;
      await assert.rejects(evolve('life.py', failing), rejected('load', /startup failed: ValueError: not today/, 6));
      assert.equal((await kernel.json('life/seen'))[0], 'startup');
    });

    it('changes nothing when a version fails, and says at which stage, why, where, and what it logged', async () => {
      await evolve('safe.py', PLAIN);
      const fails = (content: string, more = {}) => evolve('safe.py', content, more);
      await assert.rejects(fails('def a():\n  return (\n'), rejected('parse', /SyntaxError: .*worker\.py:2/, 2));
      await assert.rejects(
        fails('import os\nprint("told")\n\nraise ValueError("late")\n'),
        (error) => rejected('load', /ValueError: late \(at worker\.py:4: raise/, 4)(error) && /told/.test(log(error)),
      );
      await assert.rejects(fails('import nothing_of_that_name\n'), rejected('load', /ModuleNotFoundError/, 1));
      await assert.rejects(fails('x = 1'), rejected('exports', /a FastAPI `router`, or an ASGI `app`.*has only x/));
      await assert.rejects(
        fails(
          'from fastapi import APIRouter\nrouter = APIRouter()\n@router.get("/", response_model=1)\ndef get(): 0\n',
        ),
        rejected('load', /FastAPIError/, 3),
      );
      await assert.rejects(
        fails('from fastapi import APIRouter\nrouter = APIRouter()\n'),
        rejected('routes', /it has no routes/),
      );
      await assert.rejects(
        fails(NOTES, { tests: [{ path: '/x', expect: { json: { hello: 'them' } } }] }),
        rejected('tests', /GET \/x: the body is \{"hello":"nobody"\}/),
      );
      assert.equal((await kernel.json('safe/')).path, '/');
      assert.equal((await kernel.door.versions('safe')).length, 1);
    });

    it('refuses what harms while it is loaded, each for its own reason', async () => {
      const planted: [string, string, RegExp][] = [
        ['while True: pass', 'load', /did not finish loading within 10000 ms/],
        [
          'import asyncio\nfrom fastapi import FastAPI\napp = FastAPI()\n@app.on_event("startup")\nasync def begin(): await asyncio.sleep(999)',
          'load',
          /did not finish loading within 10000 ms/,
        ],
        ['kept = []\nwhile True: kept.append(bytes(range(256)) * 4096)', 'load', /memory/i],
        ['import sys\nsys.exit(0)', 'load', /SystemExit: 0/],
        ['import os\nos._exit(0)', 'load', /exited|ended|died/i],
        ['def again(): again()\nagain()', 'load', /RecursionError/],
        [
          'import threading, time\nfor i in range(999): threading.Thread(target=time.sleep, args=(99,)).start()',
          'load',
          /thread/,
        ],
        ['import socket\nsocket.create_server(("127.0.0.1", 0))', 'load', /PermissionError/],
        ['import os\nos.fork()', 'load', /PermissionError/],
        ['import subprocess\nsubprocess.run(["/bin/true"])', 'load', /Error/],
        ['open("/etc/shadow")', 'load', /FileNotFoundError/],
        ['open("/hauki/python/guest.py", "w")', 'load', /OSError|PermissionError/],
        ['router = 5', 'exports', /a FastAPI `router`/],
        ['def app_(scope, receive, send): pass', 'exports', /has only app_/],
        ['if True:\n\tx = 1\n        y = 2', 'parse', /TabError|IndentationError/],
        ['x = "\\ud800"\nraise ValueError(x)', 'load', /ValueError/],
      ];
      // A few at once: most of them wait.
      const left = planted.entries();
      const some = Array.from({ length: 3 }, async () => {
        for (const [i, [source, stage, why]] of left) {
          await assert.rejects(evolve(`planted_${i}.py`, source), rejected(stage, why), source);
          assert.equal((await kernel.get(`planted_${i}/`)).status, 404);
        }
      });
      await Promise.all(some);
    });

    const log = (error: unknown) => (isError(error, EvolveRejected) ? (error.fields.log ?? '') : '');

    it('answers 500 for what a handler raises, with its line in the log, and goes on', async () => {
      await evolve(
        'raises.py',
        `
from fastapi import APIRouter, HTTPException
router = APIRouter()
@router.get("/boom")
def boom():
    raise ValueError("secret")
@router.get("/teapot")
def teapot(): raise HTTPException(418, "short and stout")
@router.get("/ok")
def ok(): return "ok"
`,
      );
      const answer = await kernel.get('raises/boom');
      assert.equal(answer.status, 500);
      assert.doesNotMatch(await answer.text(), /secret/);
      assert.equal((await kernel.get('raises/teapot')).status, 418);
      assert.equal(await kernel.json('raises/ok'), 'ok');
      await evolve('plain_raises.py', 'async def app(scope, receive, send):\n    raise ValueError("at once")\n');
      const plain = await kernel.get('plain_raises/');
      assert.deepEqual([plain.status, /ValueError: at once/.test(await plain.text())], [500, true]);
    });

    it('hands the state over, by name and type or by its hooks, and gives it back on a rollback', async () => {
      const counting = (version: string) => `
from fastapi import APIRouter
router = APIRouter()
state = {"count": 0, "seen": {}, "last": None, "pair": (0, 0)}
@router.get("/{name}")
async def count(name: str):
    state["count"] += 1
    state["seen"][name] = state["seen"].get(name, 0) + 1
    state["last"], state["pair"] = name, (state["count"], 1)
    return {"version": "${version}", **state, "tuple": isinstance(state["pair"], tuple)}
`;
      await evolve('count.py', counting('a'));
      for (let i = 0; i < 3; i++) await kernel.json('count/x');
      await evolve('count.py', counting('b'));
      const expected = { version: 'b', count: 4, seen: { x: 4 }, last: 'x', pair: [4, 1], tuple: true };
      assert.deepEqual(await kernel.json('count/x'), expected);
      await kernel.door.rollback('count');
      assert.deepEqual(await kernel.json('count/x'), { ...expected, version: 'a' });
      const hooked = (hydrate: string) => `
from fastapi import APIRouter
router = APIRouter()
kept = {1: {"a", "b"}}
def dehydrate(): return kept
async def hydrate(state, from_version):
    global kept
    ${hydrate}
@router.get("/")
def look(): return [sorted(kept), sorted(kept[1]), isinstance(kept[1], set)]
@router.post("/{what}")
def put(what: str): kept[1].add(what)
`;
      await evolve('hooks.py', hooked('kept = state'));
      await kernel.get('hooks/c', { method: 'POST' });
      await assert.rejects(
        evolve('hooks.py', hooked('raise ValueError("no")')),
        rejected('swap', /hydrate failed: .*no/),
      );
      await evolve('hooks.py', hooked('kept = {**state, from_version: set()}'));
      assert.deepEqual(await kernel.json('hooks/'), [[1], [], true]);
    });

    it('keeps the files that a module writes under its home, from version to version', async () => {
      const writing = (more: string) => `
import os, pathlib
from fastapi import APIRouter
router = APIRouter()
folder = pathlib.Path.home() / "uah_data"
folder.mkdir(exist_ok=True)
@router.post("/{name}")
def write(name: str): (folder / name).write_text(name)
@router.get("/")
def look(): return sorted(os.listdir(folder))${more}
`;
      const grants = { volume: 'files' };
      await evolve('files.py', writing(''), { grants });
      await kernel.get('files/one', { method: 'POST' });
      await evolve('files.py', writing(' + ["new"]'), { grants });
      assert.deepEqual(await kernel.json('files/'), ['one', 'new']);
    });

    it('carries WebSockets both ways, and refuses those that a module does not take', async () => {
      await evolve(
        'sockets.py',
        `
from fastapi import APIRouter, WebSocket
router = APIRouter()
@router.get("/")
def plain(): return "plain"
@router.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    while True:
        message = await socket.receive()
        if message.get("text") == "bye":
            return await socket.close()
        if "text" in message:
            await socket.send_text("echo " + message["text"])
        elif "bytes" in message:
            await socket.send_bytes(message["bytes"])
        else:
            return
`,
      );
      await assertEchoes(await openSocket(kernel.process, 'sockets/echo'));
      const authorization = `Bearer ${kernel.process.token}`;
      assert.equal(await refusal(`${kernel.process.url}/api/plugins/sockets/nothing`, { authorization }), 403);
    });

    it('loses no request while versions change, and finishes on the old one what it has begun', async () => {
      const version = (n: number) => `
import time
from fastapi import APIRouter
router = APIRouter()
@router.get("/")
async def quick(): return ${n}
@router.get("/slow")
def slow():
    time.sleep(1)
    return ${n}
`;
      await evolve('swap.py', version(1));
      let over = false;
      const statuses = new Set<number>();
      const asking = (async () => {
        while (!over) statuses.add((await kernel.get('swap/')).status);
      })();
      const slow = kernel.json('swap/slow');
      await until('it is under way', async () => {
        const { modules } = await kernel.door.status();
        return modules.find(({ module }) => module === 'swap')!.live[0]!.in_flight > 0;
      });
      const { digest } = await evolve('swap.py', version(2));
      await kernel.door.evolve({
        target_module: 'swap',
        base_digest: digest,
        edits: [{ find: 'async def quick(): return 2', replace: 'async def quick(): return 3' }],
      });
      over = true;
      await asking;
      assert.deepEqual([...statuses], [200]);
      assert.equal(await slow, 1);
      assert.equal(await text('swap/'), '3');
      await kernel.door.rollback('swap', 1);
      assert.equal(await text('swap/'), '1');
    });

    it('goes on after code that never returns, on the event loop and in a thread', async () => {
      await evolve(
        'endless.py',
        `
from fastapi import APIRouter
router = APIRouter()
@router.get("/loop")
async def loop():
    while True: pass
@router.get("/thread")
def thread():
    while True: pass
@router.get("/")
async def quick(): return "quick"
`,
      );
      const leave = new AbortController();
      const held = kernel.get('endless/thread', { signal: leave.signal });
      assert.equal(await kernel.json('endless/'), 'quick');
      leave.abort();
      await assert.rejects(held);
      assert.ok((await kernel.get('endless/loop')).status >= 500);
      await until('it was started again', async () => (await kernel.get('endless/')).status === 200, 40_000);
    });

    it('serves the same after a kill -9 of the kernel', async () => {
      await evolve('stays.py', NOTES);
      await kernel.restart();
      assert.deepEqual(await kernel.json('stays/x?q=again'), { hello: 'again' });
    });
  });
