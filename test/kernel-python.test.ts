/** Modules in Python, from outside: a FastAPI router or an ASGI application serves like any module. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { useKernel } from './support/kernel.ts';
import { missing, until } from './support/mesh.ts';
import { NOTES, no_fastapi, no_multipart, PLAIN, rejected } from './support/python-modules.ts';
import { assertEchoes, assertSpeaks, openSocket, refusal } from './support/sockets.ts';

for (const driver of ['lxc', 'process'] as const)
  describe(`modules in Python, with ${driver} vaults`, { skip: missing(driver) || no_fastapi }, () => {
    const kernel = useKernel({ drivers: [driver] });
    const evolve = (target_module: string, content: string, more = {}) =>
      kernel.door.evolve({ target_module, content, ...more });
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

    it('has a FastAPI application’s own description name the prefix, and names what is mounted', async () => {
      await evolve(
        'own.py',
        'from fastapi import FastAPI\n\napp = FastAPI()\n\n@app.get("/x")\ndef x():\n    return 1\n',
      );
      assert.deepEqual((await kernel.json('own/openapi.json')).servers, [{ url: '/api/plugins/own' }]);
      const { routes } = await evolve(
        'below.py',
        'from fastapi import FastAPI\n\napp = FastAPI(openapi_url=None)\napp.mount("/sub", FastAPI())\n',
      );
      assert.deepEqual(routes, ['* /sub/*']);
    });

    it('tells a caller by its own request that an answer was lost, not by a call of the kernel’s', async () => {
      const source =
        'import os\nfrom fastapi import APIRouter\n\nrouter = APIRouter()\n\n@router.get("/die")\ndef die():\n    os._exit(1)\n';
      await evolve('dies.py', source);
      const answer = await kernel.get('dies/die?a=1');
      assert.equal(answer.status, 502);
      assert.match(
        (await answer.json()).error.message,
        /^GET \/die was sent to the module dies, but its answer was lost/,
      );
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

    it('takes forms and uploads, small ones and those that go to a file', { skip: no_multipart }, async () => {
      await evolve(
        'uploads.py',
        `
from fastapi import APIRouter, File, Form, UploadFile
router = APIRouter()
@router.post("/form")
def form(name: str = Form(), n: int = Form(1)): return [name, n]
@router.post("/file")
async def file(file: UploadFile, note: str = Form("")):
    content = await file.read()
    return [file.filename, len(content), sum(content) % 65536, note]
@router.post("/bytes")
def whole(file: bytes = File()): return len(file)
`,
      );
      const sent = async (path: string, body: BodyInit) =>
        (await kernel.get(`uploads/${path}`, { method: 'POST', body })).json();
      assert.deepEqual(await sent('form', new URLSearchParams({ name: 'ä b', n: '3' })), ['ä b', 3]);
      for (const length of [10, 3_000_000]) {
        const bytes = Uint8Array.from({ length }, (_, i) => i % 251);
        const form = new FormData();
        form.append('file', new File([bytes], 'ä.bin'));
        form.append('note', 'noted');
        const sum = bytes.reduce((total, byte) => (total + byte) % 65_536, 0);
        assert.deepEqual(await sent('file', form), ['ä.bin', length, sum, 'noted']);
        assert.equal(await sent('bytes', form), length);
      }
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

    it('answers 502 for a header that cannot be sent, with its name, the version and the digest', async () => {
      await evolve(
        'headers.py',
        `
async def app(scope, receive, send):
    bad = {"/split": (b"x-bad", b"a\\r\\nset-cookie: b=1"), "/name": (b"x bad", b"a")}.get(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [bad] if bad else []})
    await send({"type": "http.response.body", "body": b"ok"})
`,
      );
      for (const [path, named] of [
        ['split', /PluginFailed.*the header \\"x-bad\\" of its answer/],
        ['name', /PluginFailed.*a header by the name \\"x bad\\"/],
      ] as const) {
        const answer = await kernel.get(`headers/${path}`);
        assert.deepEqual([answer.status, answer.headers.get('x-hauki-version')], [502, '1']);
        assert.match(answer.headers.get('x-hauki-digest')!, /^[0-9a-f]{64}$/);
        assert.match(await answer.text(), named);
      }
      assert.equal(await (await kernel.get('headers/')).text(), 'ok');
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
      await evolve(
        'speaker.py',
        `
from fastapi import APIRouter, WebSocket, Response
router = APIRouter()
closes = []
@router.get("/")
def told(): return closes
@router.websocket("/")
async def speak(socket: WebSocket):
    await socket.accept(subprotocol="chat.v2" if "chat.v2" in socket.scope["subprotocols"] else None)
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return closes.append([message["code"], message.get("reason", ""), message["code"] != 1006])
        verb, _, rest = message["text"].partition(" ")
        code, _, reason = rest.partition(" ")
        if verb != "close":
            await socket.send_text(message["text"])
        elif not 3000 <= int(code) <= 4999 or len(reason) > 123:
            await socket.send_text("TypeError")
        else:
            return await socket.close(int(code), reason)
`,
      );
      await assertSpeaks(kernel.process, 'speaker/');
    });
  });
