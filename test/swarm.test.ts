/** The Spawner: kernels in sandboxes of their own, heard on IRC, changed by a worker agent, and gone without a trace. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type Ircd, ircMissing, startIrcd, Watcher } from './support/ircd.ts';
import { lives, missing, processes, traces, until, useMesh } from './support/mesh.ts';
import { no_fastapi } from './support/python-modules.ts';

const CLI = fileURLToPath(new URL('../apps/cli/bin/hauki.js', import.meta.url));
const AGENT = fileURLToPath(new URL('../examples/agents/ops-agent.ts', import.meta.url));
const noNetworks = existsSync('/sbin/ip') || process.env.CI ? false : 'iproute2 is not installed';
const no_python = existsSync('/usr/bin/python3') ? false : 'Python is not installed: apt-get install python3';
/** A kernel's start compiles all of it, on however busy a machine. */
const UP_MS = 240_000;

describe('a swarm', { skip: ircMissing || missing('lxc') || noNetworks }, () => {
  // Below a folder that nobody else may enter, as a home is.
  const used = useMesh({ nodes: [], below: 'home' });
  let ircd: Ircd;
  let watcher: Watcher;
  let up: ChildProcess | undefined;
  let kernels: { kernel: string; pid: number }[] = [];
  const args = () => ['--data', used.local.data_dir, '--core', used.local.url, '--json'];
  const hauki = async (...verbs: string[]) => {
    const { stdout } = await promisify(execFile)(process.execPath, [CLI, ...verbs, ...args()], { timeout: UP_MS });
    return JSON.parse(stdout);
  };
  const start = async () => {
    const irc = ['--irc', `127.0.0.1:${ircd.port}`];
    const child = spawn(process.execPath, [CLI, 'swarm', 'up', '--count', '2', '--first', '7', ...irc, ...args()], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    up = child;
    let out = '';
    let err = '';
    child.stdout!.on('data', (chunk) => {
      out += chunk;
    });
    child.stderr!.on('data', (chunk) => {
      err += chunk;
    });
    await until(
      'the swarm is up',
      () => {
        if (child.exitCode !== null) assert.fail(`swarm up ended with ${child.exitCode}: ${err}`);
        return out.includes('\n');
      },
      UP_MS,
    );
    kernels = JSON.parse(out).kernels;
  };
  const group = () => `hauki.swarm-${up!.pid!.toString(36)}.`;
  const nothingLeft = async () => {
    await until('nothing of it is left', () => traces(group()).length === 0 && kernels.every(({ pid }) => !lives(pid)));
    await until('its disks are let go of', () => traces(join(used.local.data_dir, 'swarm/')).length === 0);
    assert.deepEqual(processes('packages/microkernel/src/main.ts', `"${used.local.data_dir}`), []);
  };

  before(async () => {
    ircd = await startIrcd();
    watcher = await new Watcher(ircd.port).join();
  });
  after(async () => {
    if (up && up.exitCode === null && up.signalCode === null) {
      const ended = once(up, 'exit');
      up.kill('SIGKILL');
      await ended;
    }
    watcher?.leave();
    await ircd?.stop();
  });

  it('has kernels on port 8000 of networks of their own, which are heard on IRC', { timeout: UP_MS }, async () => {
    await start();
    assert.deepEqual(
      kernels.map(({ kernel }) => kernel),
      ['Microkernel-7', 'Microkernel-8'],
    );
    await until('both are online', () => watcher.lines('Online. Awaiting DNA Injection.').length === 2, 60_000);
    const networks = kernels.map(({ pid }) => readlinkSync(`/proc/${pid}/ns/net`));
    assert.equal(new Set([...networks, readlinkSync('/proc/self/ns/net')]).size, 3);
    for (const { pid } of kernels) {
      // As /proc tells it: an address and a port in hexadecimal, and 0A for one that listens.
      assert.match(readFileSync(`/proc/${pid}/net/tcp`, 'utf8'), /0100007F:1F40 00000000:0000 0A/);
      const devices = readFileSync(`/proc/${pid}/net/dev`, 'utf8')
        .split('\n')
        .slice(2)
        .map((line) => line.split(':')[0]!.trim());
      assert.ok(devices.includes('lo') && !devices.some((name) => /^(?:eth|en|veth|wl)/.test(name)), devices.join());
      assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^CapEff:\s*0+$/m);
    }
    const { kernels: listed } = await hauki('swarm', 'ls');
    assert.deepEqual(
      listed.map((one: any) => [one.kernel, one.online, one.modules]),
      [
        ['Microkernel-7', true, ['irc']],
        ['Microkernel-8', true, ['irc']],
      ],
    );
  });

  it('is changed by a worker agent that hears of it, and connects nowhere else', { timeout: UP_MS }, async () => {
    const { token } = await used.mesh.tokens.create({ name: 'scout', scopes: ['evolve'], expires_in_ms: 600_000 });
    const env = { ...process.env, HAUKI_URL: used.local.url, HAUKI_TOKEN: token };
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', AGENT, `127.0.0.1:${ircd.port}`],
      { env, timeout: 120_000 },
    );
    assert.match(stdout, /^scraped: \{"title":"Ports"/m);
    await until('it is told', () => watcher.lines('New routes available at /api/plugins/data_scraper/').length === 1);

    const beyond = new URL(used.local.url).host;
    await used.mesh.kernels.evolve({
      kernel: 'Microkernel-7',
      target_module: 'beyond',
      content: `export default { async fetch() {
        try { await hauki.connect('${beyond}'); return new Response('connected'); } catch (error) { return new Response(error.message); }
      } };`,
      grants: { connect: [beyond] },
    });
    const answer = await fetch(`${used.local.url}/api/plugins/beyond/`, {
      headers: { authorization: `Bearer ${used.local.token}` },
    });
    assert.match(await answer.text(), /this swarm connects to 127\.0\.0\.1:\d+ alone/);
  });

  const ask = (path: string) =>
    fetch(`${used.local.url}/api/plugins/${path}`, { headers: { authorization: `Bearer ${used.local.token}` } });

  it('runs a module as a process in its kernel’s sandbox where that is asked for, and says how it is held', {
    timeout: UP_MS,
  }, async () => {
    const kernel = 'Microkernel-7';
    const content = `import { release } from 'node:os'; export default { fetch: () => new Response(typeof release()) };`;
    const child = { kernel, target_module: 'child', content, driver: 'process', memory_mib: 48 };
    const { vault, kernels: on } = await used.mesh.kernels.evolve(child);
    assert.match(vault.isolation, /contained from the host, not from each other/);
    assert.deepEqual([vault.level, on[0]!.driver, on[0]!.level], ['none', 'process', 'none']);
    const answer = await ask('child/');
    assert.deepEqual([await answer.text(), answer.headers.get('x-hauki-kernel')], ['string', kernel]);
    await assert.rejects(
      used.mesh.kernels.evolve({ ...child, min_isolation: 'process' }),
      /process, which is of isolation none, less than process/,
    );
    await used.mesh.kernels.remove('child');
  });

  it('runs FastAPI modules as processes in its kernels’ sandboxes, whose files last', {
    timeout: UP_MS,
    skip: no_fastapi,
  }, async () => {
    const content = `
import ctypes, fcntl, os, socket, subprocess
from fastapi import APIRouter

router = APIRouter()
os.makedirs("/root/uah_data", exist_ok=True)

@router.get("/kept")
def kept(path: str = "/root/uah_data/kept.txt"):
    path = os.path.expanduser(path)
    count = int(open(path).read()) + 1 if os.path.exists(path) else 1
    with open(path, "w") as file:
        file.write(str(count))
    return {"count": count}

@router.get("/start")
def start():
    try:
        subprocess.Popen(["/bin/node"])
    except PermissionError as error:
        return str(error)

@router.get("/refused")
def refused():
    def errno(run):
        try:
            return run() and 0
        except OSError as error:
            return error.errno
    families = (socket.AF_VSOCK, socket.AF_ALG, socket.AF_PACKET, socket.AF_NETLINK)
    code = os.open("/tmp/code", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    unshared = libc.unshare(0x10000000)
    return [
        [errno(lambda: socket.socket(family, socket.SOCK_RAW)) for family in families],
        [errno(lambda: socket.socket(family)) for family in (socket.AF_UNIX, socket.AF_INET)],
        errno(lambda: fcntl.fcntl(code, fcntl.F_NOTIFY, fcntl.DN_ACCESS)),
        unshared and ctypes.get_errno(),
    ]

@router.get("/hoard")
def hoard():
    with open("/root/hoard", "wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, 4 << 30)
        except OSError as error:
            return os.strerror(error.errno)
        finally:
            os.unlink(file.name)

@router.get("/fill")
def fill():
    held = []
    while True:
        held.append(b"x" * 10_000_000)
`;
    const posted = { kernel: 'Microkernel-8', target_module: 'snake.py', content };
    const { vault } = await used.mesh.kernels.evolve(posted);
    const own = 'snake/kept?path=~/kept.txt';
    assert.match(`${vault.driver} ${vault.isolation}`, /^process .*contained from the host, not from each other/);
    for (const path of ['snake/kept', own]) assert.deepEqual(await (await ask(path)).json(), { count: 1 });
    assert.match(await (await ask('snake/start')).text(), /a worker starts no processes/);
    // What no network namespace holds cannot be asked for, nor namespaces of its own; others are not watched.
    assert.deepEqual(await (await ask('snake/refused')).json(), [[97, 97, 97, 97], [0, 0], 1, 1]);
    // Another version takes its place while it serves, and finds its files.
    await used.mesh.kernels.evolve({ ...posted, content: `${content}\n# again\n` });
    for (const path of ['snake/kept', own]) assert.deepEqual(await (await ask(path)).json(), { count: 2 });
    // More than the sandbox may keep on the disk.
    assert.equal(await (await ask('snake/hoard')).json(), 'No space left on device');
    // One that takes too much is ended alone, and started again.
    assert.equal((await ask('snake/fill')).ok, false);
    await until('it serves again', async () => (await ask('snake/kept')).ok);
    const { kernels: listed } = await hauki('swarm', 'ls');
    assert.deepEqual(
      listed.map((one: any) => [one.kernel, one.online]),
      [
        ['Microkernel-7', true],
        ['Microkernel-8', true],
      ],
    );
  });

  it('runs any ASGI application, with its WebSockets', { timeout: UP_MS, skip: no_python }, async () => {
    const content = `
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        said = await receive()
        await send({"type": "websocket.send", "text": said["text"].upper()})
        await send({"type": "websocket.close", "code": 4001})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})
`;
    await used.mesh.kernels.evolve({ kernel: 'Microkernel-7', target_module: 'plain.py', content, memory_mib: 48 });
    assert.equal(await (await ask('plain/a/b')).text(), '/a/b');
    const url = `${used.local.url.replace('http', 'ws')}/api/plugins/plain/ws`;
    const socket = new WebSocket(url, { headers: { authorization: `Bearer ${used.local.token}` } } as never);
    socket.onopen = () => socket.send('loud');
    const heard: unknown[] = [];
    socket.onmessage = ({ data }) => heard.push(data);
    const [close] = await once(socket as never, 'close');
    assert.deepEqual([heard, close.code], [['LOUD'], 4001]);
  });

  it('is gone after `swarm down`, with all that belonged to it', { timeout: UP_MS }, async () => {
    assert.deepEqual(await hauki('swarm', 'down'), { ended: 2 });
    await nothingLeft();
    assert.equal(existsSync(join(used.local.data_dir, 'swarm')), false);
    assert.equal(existsSync(join(used.local.data_dir, 'swarm.json')), false);
    await until('the core knows', async () => (await used.mesh.kernels.list()).length === 0);
    assert.deepEqual(await hauki('swarm', 'ls'), { kernels: [] });
  });

  it('dies with the process that started it, however that ends', { timeout: UP_MS }, async () => {
    await start();
    const ended = once(up!, 'exit');
    up!.kill('SIGKILL');
    await ended;
    await nothingLeft();
    assert.deepEqual(await hauki('swarm', 'down'), { ended: 0 });
    assert.equal(existsSync(join(used.local.data_dir, 'swarm')), false);
  });

  it('takes away what an earlier one left whose reaper was killed with it', { timeout: UP_MS }, async () => {
    await start();
    const [ended, earlier] = [once(up!, 'exit'), group()];
    const reapers = processes('hauki-reaper', earlier);
    assert.equal(reapers.length, 1);
    process.kill(reapers[0]!.pid, 'SIGKILL');
    up!.kill('SIGKILL');
    await ended;
    await until('its kernels are gone', () => kernels.every((one) => !lives(one.pid)));
    assert.notDeepEqual(traces(earlier), []);
    await start();
    assert.deepEqual(traces(earlier), []);
    await hauki('swarm', 'down');
    await nothingLeft();
  });
});
