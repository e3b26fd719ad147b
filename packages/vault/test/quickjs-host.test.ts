/** What the vault host does where a guest's work cannot be stopped, and what its functions take of a guest. */
import assert from 'node:assert/strict';
import { execFileSync, fork } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, existsSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { NO_GRANTS } from '@hauki/protocol';
import { QuickJS } from 'quickjs-wasi';
import { checkPlain, found } from '../src/drivers/quickjs/decoded.ts';
import { END_MS, FIND, IDLE_THREADS, SHELVES } from '../src/drivers/quickjs/limits.ts';
import type { HostData } from '../src/drivers/quickjs/messages.ts';
import { Threads } from '../src/drivers/quickjs/threads.ts';
import { TurnOver } from '../src/drivers/quickjs/turn.ts';
import { buildVmScripts } from '../src/guest/bundle.ts';
import { openLab } from './quickjs-support.ts';

describe('a driver that is closed', () => {
  it('starts no other host, also where it is being tried again', async () => {
    const lab = await openLab('closed');
    const { pid } = await lab.start();
    await lab[Symbol.asyncDispose]();
    assert.ok(pid > 0 && !existsSync(`/proc/${pid}`));
    const refused = /the node is shutting down/;
    const offer = await lab.driver.probe();
    assert.match(offer.available ? '' : offer.reason, refused);
    await assert.rejects(lab.start(), refused);
  });
});

describe('a host that was stopped in the middle of a turn', () => {
  it('goes on with it, and takes nothing from its neighbours', async () => {
    await using lab = await openLab('stopped');
    const source = 'export const count = (to) => { let n = 0; while (n < to) n++; return n; }';
    const [busy, calm] = await Promise.all([lab.worker(source, { turn_ms: 500 }), lab.worker(source)]);
    const { pid } = busy.vault;
    const turn = busy.call('count', 1_000_000);
    // It may be over already: then there is nothing to see.
    await sleep(60);
    process.kill(pid, 'SIGSTOP');
    // Longer than any turn of that length may last, and than the watchdog has patience.
    await sleep(6_500);
    process.kill(pid, 'SIGCONT');
    assert.equal(await turn, 1_000_000);
    assert.equal(await calm.call('count', 5), 5);
    assert.equal(await busy.call('count', 5), 5);
  });
});

describe('a vault that is killed while the others of its thread have long turns', () => {
  it('goes alone', async () => {
    await using lab = await openLab('crowd');
    const source = 'export const spin = (ms) => { const end = Date.now() + ms; while (Date.now() < end); return ms; }';
    const idle = await lab.worker(source);
    // Together they take longer than a thread has that does not come back.
    const grants = { ...NO_GRANTS, time: true };
    const busy = await Promise.all(Array.from({ length: 7 }, () => lab.worker(source, {}, { grants })));
    let over = 0;
    const turns = busy.map((worker) => worker.call('spin', END_MS / 5).then((ms) => ++over && ms));
    await idle.vault.kill('nobody needs it');
    // It waited for the one that was under way, not for all of them.
    assert.ok(over < turns.length, 'it was gone after all others’ turns');
    assert.deepEqual(await Promise.all(turns), Array(7).fill(END_MS / 5));
    assert.equal((await idle.vault.exited).cause, 'killed');
    assert.equal(await busy[0]!.call('spin', 1), 1);
  });
});

describe('owners that ask once, one after another', () => {
  it('leave few threads behind in the host, however many they are', async () => {
    await using lab = await openLab('owners');
    const first = await lab.start({ owner: 'first' });
    const threads = () => readdirSync(`/proc/${first.pid}/task`).length;
    const before = threads();
    const owners = 2 * (SHELVES + IDLE_THREADS);
    for (let i = 0; i < owners; i += 4)
      await Promise.all(
        [0, 1, 2, 3].map(async (k) => (await lab.start({ owner: `owner ${i + k}` })).kill('it was only asked for')),
      );
    const most = before + SHELVES + IDLE_THREADS;
    // Sooner than any is let go of for its age.
    for (const until = performance.now() + 15_000; threads() > most; await sleep(100))
      assert.ok(performance.now() < until, `${threads()} threads of ${owners} owners, ${before} of one`);
    assert.ok((await lab.worker('export const one = () => 1', { owner: 'owner 1' })).methods.includes('one'));
  });
});

describe('a thread in native code that nothing ends', () => {
  let folder: string;
  /** Has the thread wait in the system, for a process that waits for us. */
  const stick = () =>
    `require('node:child_process').execFileSync('/bin/sh', ['-c', ': > within; read x < pipe'], { cwd: ${JSON.stringify(folder)} });`;
  const stuck = async () => {
    while (!existsSync(join(folder, 'within'))) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  const release = () => {
    const pipe = openSync(join(folder, 'pipe'), constants.O_RDWR | constants.O_NONBLOCK);
    writeSync(pipe, '\n');
    return pipe;
  };
  let pipe: number | undefined;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hauki-stuck-'));
    execFileSync('mkfifo', [join(folder, 'pipe')]);
  });
  afterEach(async () => {
    pipe ??= release();
    closeSync(pipe);
    pipe = undefined;
    await rm(folder, { recursive: true });
  });

  it('has its host given up, and its vaults are lost only when nothing of it runs', async () => {
    const heard: string[] = [];
    const stranded = Promise.withResolvers<void>();
    const lost = Promise.withResolvers<void>();
    const threads = new Threads({
      // One that nobody needs any more ends with the folder.
      script: `const { parentPort } = require('node:worker_threads');
        setInterval(() => require('node:fs').existsSync(${JSON.stringify(folder)}) || process.exit(), 50);
        parentPort.once('message', () => { ${stick()} });`,
      wasm: {} as never,
      images: {} as never,
      address: {} as never,
      left: () => {},
      unfit: () => {},
      terminate_ms: 50,
      stranded() {
        heard.push('stranded');
        stranded.resolve();
      },
      lost(ids, reason) {
        heard.push(`lost ${ids}: ${reason}`);
        lost.resolve();
      },
    });
    const thread = threads.take('an owner', 'v1');
    threads.send(thread, { op: 'kill', id: '' });
    await stuck();
    threads.lose(thread, 'it did not return');
    await stranded.promise;
    assert.deepEqual(heard, ['stranded']);
    pipe = release();
    await lost.promise;
    assert.deepEqual(heard, ['stranded', 'lost v1: it did not return']);
  });

  it('ends with the host when its agent is gone', async () => {
    const data: HostData = { ...(await buildVmScripts()), thread: stick(), address: {} as never };
    const child = fork(fileURLToPath(new URL('../src/drivers/quickjs/host.ts', import.meta.url)), [], { env: {} });
    const ended = once(child, 'exit');
    child.send(data);
    await stuck();
    child.disconnect();
    assert.deepEqual(await ended, [null, 'SIGKILL']);
  });
});

const wasm = readFileSync(fileURLToPath(import.meta.resolve('quickjs-wasi/quickjs.wasm')));

describe('the functions of the host', () => {
  it('search within bounds: what is searched, what for, and how often it is found', async () => {
    const vm = await QuickJS.create({ wasm });
    const bytes = (text: string | Uint8Array) => vm.newArrayBuffer(Buffer.from(text));
    assert.deepEqual(new Uint32Array(found(bytes('a-b-c'), bytes('-'), 9).buffer), Uint32Array.of(1, 3));
    assert.deepEqual(new Uint32Array(found(bytes('a-b-c'), bytes('-'), 1).buffer), Uint32Array.of(1));
    const long = bytes(Buffer.alloc(FIND.what_bytes + 1, 'a'));
    assert.throws(() => found(bytes('a'), long, 1), RangeError);
    for (const most of [FIND.places + 1, Infinity, Number.NaN])
      assert.throws(() => found(bytes('a'), bytes('a'), most), RangeError, `${most}`);
    assert.throws(() => found(vm.newString('a'), bytes('a'), 1), TypeError);
    vm.dispose();
  });

  it('ask nothing of an object of the guest', async () => {
    const vm = await QuickJS.create({ wasm });
    const plain = ['1', "'a'", 'undefined', 'null', 'true', 'new ArrayBuffer(1)'];
    assert.doesNotThrow(() => checkPlain(plain.map((code) => vm.evalCode(code))));
    for (const code of ['({ toString() { for (;;); } })', '[1]', '() => 1', 'new Proxy({}, {})'])
      assert.throws(() => checkPlain([vm.evalCode(code)]), TypeError, code);
    vm.dispose();
  });

  it('end a turn that is over past whatever the guest would catch', async () => {
    const ended = async (error: Error) => {
      const vm = await QuickJS.create({ wasm });
      vm.setProp(
        vm.global,
        'host',
        vm.newFunction('host', () => {
          throw error;
        }),
      );
      return vm.evalCode("try { host(); 'went on' } catch { 'caught' }").toString();
    };
    assert.equal(await ended(new Error('words')), 'caught');
    await assert.rejects(ended(new TurnOver()), /its turn is over/);
  });
});
