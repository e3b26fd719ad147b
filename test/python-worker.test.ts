/**
 * Workers in Python, end to end: through the whole house into each driver that runs them, called by the SDK; and what
 * such a worker tries against its vault, each attempt shown to work outside of one.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Forbidden, GrantMissing, isError, NoNodeFits, RemoteError, SourceRejected, WorkerDied } from '@hauki/mesh';
import { type DriverName, missing, traces, until, useMesh } from './support/mesh.ts';

const PYTHON = '/usr/bin/python3';
const no_python = !existsSync(PYTHON) && process.env.CI !== 'true' && 'python3 is not installed';
const GREETER = fileURLToPath(new URL('../examples/workers/greeter.py', import.meta.url));

/** What a captured worker would try; each answers "done" where it works. */
const ATTEMPTS = `
import ctypes, errno, os, socket

def told(error):
    return errno.errorcode.get(error.errno, str(error)) if isinstance(error, OSError) else type(error).__name__

def fork():
    pid = os.fork()
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)

def inet(): socket.socket(socket.AF_INET, socket.SOCK_STREAM)
def inet6(): socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
def unix(): socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
def netlink(): socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
def dial(port): socket.create_connection(("127.0.0.1", port), 2)
def bind_pair():
    a, b = socket.socketpair()
    a.bind(b"\\0hauki-attempt-%d" % os.getpid())
def pass_descriptor():
    a, b = socket.socketpair()
    socket.send_fds(a, [b"x"], [0])
def namespace():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000): raise OSError(ctypes.get_errno(), "unshare")
def trace():
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    if libc.ptrace(0, 0, 0, 0): raise OSError(ctypes.get_errno(), "ptrace")
def read(path): open(path).read()
def memory_file(): os.memfd_create("x")

def attempt(name, *args):
    try:
        globals()[name](*args)
        return "done"
    except Exception as error:
        return told(error)
`;
const TRIED: [string, ...unknown[]][] = [
  ['fork'],
  ['inet'],
  ['inet6'],
  ['unix'],
  ['netlink'],
  ['bind_pair'],
  ['pass_descriptor'],
  ['namespace'],
  ['trace'],
  ['memory_file'],
];

for (const driver of ['lxc', 'process'] satisfies DriverName[])
  describe(`a worker in Python, in a ${driver} vault`, { skip: missing(driver) || no_python }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver, 'quickjs'] }] });
    const clone = <T extends object>(source: string, options: object = {}) =>
      used.mesh.clone<T>({ source, language: 'python' }, { driver, ...options });
    const died = (cause: string) => (error: unknown) => isError(error, WorkerDied) && error.fields.cause === cause;

    const host = createServer((_, response) => response.end('fine weather'));
    const secret_file = join(tmpdir(), `hauki-secret-${process.pid}-${driver}`);
    before(() => {
      writeFileSync(secret_file, 'secret', { mode: 0o644 });
      return new Promise<void>((resolve) => host.listen(0, '127.0.0.1', resolve));
    });
    after(() => {
      host.close();
      rmSync(secret_file, { force: true });
    });

    it('is cloned from a file or a pointer, called, streamed from, and gone when it is destructed', async () => {
      const { mesh } = used;
      interface Greeter {
        greet(name: string): string;
        count_down(start: number): AsyncIterable<number>;
        weather(url: string): string;
      }
      const target = `127.0.0.1:${(host.address() as AddressInfo).port}`;
      const greeter = mesh.clone<Greeter>({ file: GREETER }, { driver, grants: { fetch: [target] } });
      assert.equal(await greeter.greet('ada'), 'Hello, Ada!');
      assert.deepEqual(await Array.fromAsync(await greeter.count_down(3)), [3, 2, 1]);
      assert.equal(await greeter.weather(`http://${target}/`), 'fine weather');
      await assert.rejects(greeter.weather('http://127.0.0.1:1/'), GrantMissing);
      const { worker } = await mesh.details(greeter);
      await mesh.destruct(greeter);
      assert.deepEqual(traces(worker), []);

      const pointer = `gem-pointer://workers/twice_${driver}.py`;
      const kept = await mesh.meshfs.write(pointer, 'def twice(n): return 2 * n\n');
      assert.equal((await mesh.meshfs.resolve(kept.pointer)).media_type, 'text/x-python');
      const twice = mesh.clone<{ twice(n: number): number }>(pointer, { driver });
      assert.equal(await twice.twice(21), 42);
      await mesh.destruct(twice);
    });

    it('has the time zones of its machine', {
      skip: !existsSync('/usr/share/zoneinfo') && 'there are none',
    }, async () => {
      const source = `
import datetime, zoneinfo
def noon(zone): return datetime.datetime(2026, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo(zone)).isoformat()
`;
      const worker = clone<{ noon(zone: string): string }>(source);
      assert.equal(await worker.noon('Europe/Berlin'), '2026-07-01T12:00:00+02:00');
      await used.mesh.destruct(worker);
    });

    it('copies files with what belongs to them, and maps them into memory, as elsewhere', async () => {
      const source = `
import mmap, os, pathlib, shutil, tempfile
def copied():
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "a" / "b").mkdir(parents=True)
    first = folder / "a" / "b" / "first.txt"
    first.write_text("kept")
    os.utime(first, (1, 1))
    shutil.copytree(folder / "a", folder / "c")
    second = pathlib.Path(shutil.copy2(folder / "c" / "b" / "first.txt", folder))
    return [second.read_text(), second.stat().st_mtime]
def mapped():
    with tempfile.TemporaryFile() as file:
        file.truncate(4096)
        with mmap.mmap(file.fileno(), 0) as memory:
            memory[:4] = b"kept"
            memory.flush()
        return os.pread(file.fileno(), 4, 0).decode()
`;
      const worker = clone<{ copied(): [string, number]; mapped(): string }>(source);
      assert.deepEqual(await worker.copied(), ['kept', 1]);
      assert.equal(await worker.mapped(), 'kept');
      await used.mesh.destruct(worker);
    });

    it('has the clock and entropy, and says so; a worker that lacks them may not clone one', async () => {
      const { mesh } = used;
      const source = `
import os, time
def now(): return time.time()
def drawn(): return os.urandom(8)
`;
      const worker = clone<{ now(): number; drawn(): Uint8Array }>(source, { grants: { time: false } });
      assert.ok((await worker.now()) > 0);
      assert.equal((await worker.drawn()).length, 8);
      const { worker: name } = await mesh.details(worker);
      const { grants } = (await mesh.registry()).workers.find((one) => one.worker === name)!;
      assert.deepEqual([grants.time, grants.random], [true, true]);
      await mesh.destruct(worker);

      const { pointer } = await mesh.meshfs.write(`gem-pointer://workers/clock_${driver}.py`, source);
      const family = `export const now = async () => (await hauki.clone('${pointer}', { driver: '${driver}' })).now();`;
      const parent = (more: object) =>
        mesh.clone<{ now(): number }>(
          { source: family },
          { driver: 'quickjs', min_isolation: 'process', grants: { clone: 1, meshfs: { read: [pointer] }, ...more } },
        );
      await assert.rejects(
        Promise.resolve(parent({}).now()),
        (error) => isError(error, Forbidden) && /time/.test(error.message),
      );
      assert.ok((await parent({ time: true, random: true }).now()) > 0);
    });

    it('gives whole values, errors with their lines, and calls back', async () => {
      const worker = clone<{
        echo<T>(value: T): T;
        boom(): never;
        each(f: (n: number) => number, n: number): number[];
      }>(`
def echo(x): return x
def boom():
    raise KeyError("missing")
def each(f, n): return [f(i) for i in range(int(n))]
`);
      const value = { map: new Map([[1n, new Set(['a'])]]), bytes: new Uint8Array([1, 2, 3]), at: new Date(1) };
      assert.deepEqual(await worker.echo(value), value);
      await assert.rejects(worker.boom(), (error) => {
        assert.ok(isError(error, RemoteError));
        return /KeyError/.test(error.message) && /worker\.py:4/.test(error.stack!);
      });
      assert.deepEqual(await worker.each((n) => n * n, 4), [0, 1, 4, 9]);
      await used.mesh.destruct(worker);
    });

    it('connects and streams where it is granted, in methods and coroutines', async () => {
      const echo = createTcp((socket) => {
        socket.on('error', () => {});
        socket.pipe(socket);
      });
      await new Promise<void>((resolve) => echo.listen(0, '127.0.0.1', resolve));
      const there = `127.0.0.1:${(echo.address() as AddressInfo).port}`;
      const web = `127.0.0.1:${(host.address() as AddressInfo).port}`;
      const worker = clone<{
        talk(target: string, text: string): string;
        atalk(target: string, size: number): number;
        body(url: string): string;
        nobody(target: string): never;
      }>(
        `
def talk(target, text):
    with hauki.connect(target) as connection:
        connection.send(text.encode())
        connection.end()
        return b"".join(connection).decode()
async def atalk(target, size):
    connection = await hauki.connect(target)
    import asyncio
    async def send():
        for _ in range(int(size) // 100_000): await connection.send(bytes(100_000))
        connection.end()
    sending = asyncio.ensure_future(send())
    got = 0
    async for piece in connection: got += len(piece)
    await sending
    return got
def body(url):
    response = hauki.fetch(url, method="POST", body=(part for part in [b"one ", b"two"]), stream=True)
    return b"".join(response.body).decode()
def nobody(target): hauki.connect(target)
`,
        { grants: { connect: [there], fetch: [web] } },
      );
      assert.equal(await worker.talk(there, 'hello'), 'hello');
      assert.equal(await worker.atalk(there, 3_000_000), 3_000_000);
      assert.equal(await worker.body(`http://${web}/`), 'fine weather');
      await assert.rejects(worker.nobody('127.0.0.1:1'), GrantMissing);
      await used.mesh.destruct(worker);
      echo.close();
    });

    it('is refused with the place where its source is wrong, and by a driver that runs no Python', async () => {
      await assert.rejects(
        used.mesh.details(clone('def a():\n    return (\n')),
        (error) =>
          isError(error, SourceRejected) && error.fields.stage === 'parse' && /worker\.py:2/.test(error.message),
      );
      await assert.rejects(
        used.mesh.details(clone('import numpy_of_nobody\ndef a(): pass')),
        (error) => isError(error, SourceRejected) && error.fields.stage === 'load',
      );
      await assert.rejects(
        used.mesh.details(clone('def a(): pass', { driver: 'quickjs' })),
        (error) => isError(error, NoNodeFits) && /quickjs runs no python here/.test(error.message),
      );
    });

    it('serves others while methods block, and ends with its lease in the middle of an endless loop', async () => {
      const worker = clone<{ block(): number; spin(): never; quick(): number }>(
        `
import threading, time
together = threading.Barrier(4)
def block(): return together.wait(20) >= 0
def spin():
    while True: pass
def quick(): return 1
`,
      );
      assert.deepEqual(await Promise.all([1, 2, 3, 4].map(() => worker.block())), [true, true, true, true]);
      const { worker: name } = await used.mesh.details(worker);
      const spinning = assert.rejects(worker.spin(), died('destructed'));
      assert.equal(await worker.quick(), 1);
      await used.mesh.destruct(worker);
      await spinning;
      assert.deepEqual(traces(name), []);
      // Nobody redeems this one's ticket, so nobody renews its lease.
      const { local } = used;
      const headers = { authorization: `Bearer ${local.token}`, 'content-type': 'application/json' };
      const source = `
import threading
def spin():
    while True: pass
threading.Thread(target=spin, daemon=True).start()
`;
      const asked = { source, language: 'python', driver, lease_ms: 1_000, audience: 'A'.repeat(43) };
      const spawned = await fetch(`${local.url}/api/v2/swarm_spawn_ephemeral`, {
        method: 'POST',
        headers,
        body: JSON.stringify(asked),
      });
      const { worker: left } = (await spawned.json()) as { worker: string };
      const fate = async () => {
        const known = await fetch(`${local.url}/api/v2/ephemeral/${left}`, { headers });
        return ((await known.json()) as { fate?: { cause: string } }).fate?.cause;
      };
      await until('its lease has run out', async () => (await fate()) === 'lease_expired');
      assert.deepEqual(traces(left), []);
    });

    it('is ended by the kernel when it takes too much memory, and its fate says so', async () => {
      const worker = clone<{ grow(): never }>(
        'def grow():\n    all = []\n    while True: all.append(bytes(1_000_000))\n',
        {
          memory_mib: 64,
        },
      );
      await assert.rejects(worker.grow(), died('out_of_memory'));
    });

    it('gets nowhere: each attempt is refused inside, and works outside of a vault', async () => {
      const listener = createTcp((socket) => socket.destroy());
      await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
      const tried = [
        ...TRIED,
        ['dial', (listener.address() as AddressInfo).port],
        ['read', secret_file],
      ] as typeof TRIED;
      const worker = clone<{ attempt(...what: unknown[]): string; descriptors(): number[]; environment(): string[] }>(
        `${ATTEMPTS}
def is_open(fd):
    try:
        os.fstat(fd)
        return True
    except OSError:
        return False
def environment(): return sorted(os.environ)
def descriptors(): return [fd for fd in range(256) if is_open(fd)]
`,
      );
      for (const what of tried) {
        const inside = await worker.attempt(...what);
        assert.ok(['EPERM', 'ENOENT', 'ENOSYS', 'EACCES'].includes(inside), `${what[0]} answered ${inside} inside`);
        const program = `${ATTEMPTS}\nimport json, sys\nprint(attempt(*json.loads(sys.argv[1])))`;
        const { stdout } = await promisify(execFile)(PYTHON, ['-I', '-S', '-c', program, JSON.stringify(what)]);
        assert.equal(stdout.trim(), 'done', `${what[0]} does not work outside, so it proves nothing`);
      }
      assert.deepEqual(
        (await worker.environment()).filter((name) => !/^(HOME|container|PWD|LC_CTYPE)$/.test(name)),
        [],
      );
      const descriptors = await worker.descriptors();
      assert.ok(Math.max(...descriptors) <= 4, `descriptors inside: ${descriptors}`);
      listener.close();
      await used.mesh.destruct(worker);
    });

    // What a process vault's home holds belongs to another id: there, only the calls reach it.
    const has_home = driver === 'lxc';
    it('keeps the files in its home for the next one', async (t) => {
      const [node] = (await used.mesh.registry()).nodes;
      if (!node!.volumes?.available) return t.skip(`no volumes: ${node!.volumes?.reason}`);
      const source = `
from pathlib import Path
def keep(name, text): ${has_home ? 'Path.home().joinpath(name).write_text(text)' : 'hauki.volume.write(name, text)'}
def find(name): return [str(Path.home()), ${has_home ? 'Path.home().joinpath(name).read_text()' : 'hauki.volume.read(name)'}, hauki.volume.read(name)]
`;
      interface Keeper {
        keep(name: string, text: string): number;
        find(name: string): string[];
      }
      const first = clone<Keeper>(source, { grants: { volume: `notes-${driver}` } });
      await first.keep('a.txt', 'kept');
      await used.mesh.destruct(first);
      const next = clone<Keeper>(source, { grants: { volume: `notes-${driver}` } });
      assert.deepEqual(await next.find('a.txt'), ['/root', 'kept', 'kept']);
      await used.mesh.destruct(next);
    });

    it('says how it ended by itself', async () => {
      const worker = clone<{ leave(): never }>('import os\ndef leave(): os._exit(3)\n');
      await assert.rejects(
        worker.leave(),
        (error) => isError(error, WorkerDied) && error.fields.cause === 'exited' && /code 3/.test(error.fields.reason),
      );
    });
  });
