/** Modules in Python, from outside: how versions are refused, fail, hand over what they have, and come back. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { EvolveRejected, isError } from '@hauki/mesh';
import { useKernel } from './support/kernel.ts';
import { missing, until } from './support/mesh.ts';
import { NOTES, no_fastapi, PLAIN, rejected } from './support/python-modules.ts';

for (const driver of ['lxc', 'process'] as const)
  describe(`changes of modules in Python, with ${driver} vaults`, { skip: missing(driver) || no_fastapi }, () => {
    const kernel = useKernel({ drivers: [driver] });
    const evolve = (target_module: string, content: string, more = {}) =>
      kernel.door.evolve({ target_module, content, ...more });
    const text = async (path: string, init?: RequestInit) => (await kernel.get(path, init)).text();

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
        ['async def app(scope, receive, send): pass\ndef hydrate(state, version): pass', 'exports', /go together/],
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
      for (const [module, wanted] of [
        ['raises', /ValueError: secret\n[\s\S]*worker\.py:6/],
        ['plain_raises', /ValueError: at once\n.*worker\.py:2/],
      ] as const)
        await until(`the log of ${module} says so`, async () => {
          const [log] = await kernel.door.logs(module);
          return wanted.test(log!.lines.map((line) => line.text).join('\n'));
        });
    });

    it('hands a time without a zone over as one, so that it can be compared with others of its kind', async () => {
      const since = (version: string) => `
from datetime import datetime
from fastapi import APIRouter
router = APIRouter()
state = {"since": datetime(2020, 1, 1)}
@router.get("/")
def get():
    state["since"] = max(state["since"], datetime(2021, 2, 3, 4, 5, 6))
    return ["${version}", state["since"].isoformat()]
`;
      for (const version of ['a', 'b']) {
        await evolve('since.py', since(version));
        for (let i = 0; i < 2; i++) assert.deepEqual(await kernel.json('since/'), [version, '2021-02-03T04:05:06']);
      }
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

    const keeping = (more: string) => `
import os
from fastapi import APIRouter
router = APIRouter()
os.makedirs("/root/uah_data", exist_ok=True)
@router.post("/{name}")
def write(name: str):
    for path in (f"/root/uah_data/{name}", name): open(path, "w").close()
@router.get("/beside")
def beside(): return sorted(os.listdir("."))
@router.get("/")
def look(): return sorted(os.listdir("/root/uah_data"))${more}
`;

    it('keeps the files that a module writes under its home: from version to version, kernels’ ends, and away', async () => {
      await evolve('files.py', keeping(''));
      const [version] = await kernel.door.versions('files');
      assert.deepEqual(version!.grants.volume, { name: 'home', quota_mib: 64 });
      await kernel.get('files/one', { method: 'POST' });
      await evolve('files.py', keeping(' + ["new"]'));
      assert.deepEqual(await kernel.json('files/'), ['one', 'new']);
      assert.deepEqual(await kernel.json('files/beside'), ['one', 'uah_data']);
      await kernel.restart();
      assert.deepEqual(await kernel.json('files/'), ['one', 'new']);
      await kernel.door.remove('files');
      await assert.rejects(evolve('files.py', 'raise ValueError'), rejected('load', /ValueError/, 1));
      await evolve('files.py', keeping(''));
      assert.deepEqual(await kernel.json('files/'), ['one']);
    });

    it('runs shut-down when a version is left, its kernel ends, or it is removed', async () => {
      const ends = `
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            if event == "lifespan.shutdown":
                print("down")
                with open("/root/ends.txt", "a") as file: file.write("down ")
            await send({"type": event + ".complete"})
    with open("/root/ends.txt", "a+") as file:
        file.seek(0)
        body = file.read().encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
`;
      await evolve('ends.py', ends);
      await evolve('ends.py', ends);
      await until('the first was shut down', async () => (await text('ends/')) === 'down ');
      await kernel.restart({ kill: false });
      assert.equal(await text('ends/'), 'down down ');
      await kernel.door.remove('ends');
      await until('it has ended', async () => (await kernel.door.logs('ends')).every(({ ended }) => ended));
      const [{ lines } = { lines: [] }] = await kernel.door.logs('ends');
      assert.deepEqual(
        lines.map((line) => line.text),
        ['down'],
      );
    });

    it('keeps no files for whom they are declined for, and those of a version that came to nothing', async () => {
      const images = () =>
        readdirSync(join(kernel.data_dir, 'vaults', 'volumes')).filter((name) => name.endsWith('.img'));
      const before = images();
      await assert.rejects(
        evolve('files_of_none.py', `${keeping('')}\nraise ValueError`),
        rejected('load', /ValueError/, 14),
      );
      await evolve('files_of_none.py', keeping(''), { dry_run: true });
      assert.deepEqual(images(), before);
      await assert.rejects(
        evolve('files_of_none.py', keeping(''), { grants: { volume: null } }),
        rejected('load', /OSError.*Read-only/, 5),
      );
      assert.deepEqual(images(), before);
      await evolve('files_of_none.py', keeping(''), { grants: { volume: 'named' } });
      const [version] = await kernel.door.versions('files_of_none');
      assert.equal(version!.grants.volume?.name, 'named');
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
