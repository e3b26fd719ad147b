/** The staged root holds the guest's compiled code, and V8 takes it under the options that vaults run with. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, suite, test } from 'node:test';
import { killedAt } from '../../../test/support/last-moment.ts';
import { STAGE_DIR } from '../src/drivers/lxc/limits.ts';
import { stageRuntime } from '../src/drivers/lxc/staging.ts';
import { writeNodeGuest } from '../src/guest/bundle.ts';
import { GUEST_FILE, skip } from './lxc/harness.ts';

const TRY = `
  const { readFileSync } = require('node:fs');
  const { constants, Script } = require('node:vm');
  const [folder, head = ''] = process.argv.slice(1);
  const script = new Script(head + '(function () {' + readFileSync(folder + '/guest.mjs', 'latin1') + '\\n})', {
    filename: 'guest.mjs',
    cachedData: readFileSync(folder + '/guest.code'),
    importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  });
  console.log(script.cachedDataRejected ? 'refused' : 'taken');`;

/** What of Node the guest has loaded until its agent is gone, which it is from the beginning. */
const LOADED = `
  process.on('exit', () => console.log(JSON.stringify(process.moduleLoadList)));
  require(process.argv[1] + '/main.cjs');`;

/** Compiles with six descriptors left: enough to listen, too few to start a process. */
const CRAMPED = `
  import { closeSync, openSync } from 'node:fs';
  import { compiledCode } from ${JSON.stringify(import.meta.resolve('../src/drivers/lxc/code-cache.ts'))};
  import { NODE_GUEST_HEAD } from ${JSON.stringify(import.meta.resolve('../src/guest/bundle.ts'))};
  const taken = [];
  try {
    for (;;) taken.push(openSync('/'));
  } catch {}
  for (const fd of taken.splice(0, 6)) closeSync(fd);
  const [folder] = process.argv.slice(1);
  await compiledCode(process.execPath, folder, NODE_GUEST_HEAD, folder + '/scratch').catch(({ message }) => {
    for (const fd of taken) closeSync(fd);
    console.log(message);
  });`;

suite('a staged root', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-staging-'));
  after(() => rmSync(folder, { recursive: true, force: true }));

  test('has the compiled code of our guest, which V8 takes whatever the size of the heap', async () => {
    const file = join(folder, 'guest.mjs');
    await writeNodeGuest(file);
    const { rootfs } = await stageRuntime(STAGE_DIR, file);
    const inside = join(rootfs, 'hauki');
    const run = (...args: string[]) =>
      execFileSync(process.execPath, ['--disable-warning=ExperimentalWarning', ...args], { encoding: 'utf8' }).trim();
    for (const heap_mib of [33, 89, 716])
      assert.equal(run(`--max-old-space-size=${heap_mib}`, '-e', TRY, inside), 'taken');
    assert.equal(run('-e', TRY, inside, 'void 0;'), 'refused', 'code of another text is noticed');
  });

  test('is refused, and nobody ends, where the process that compiles the guest cannot be started', () => {
    const limited = ['--nofile=256:256', process.execPath, '--input-type=module', '-e', CRAMPED, folder];
    assert.match(execFileSync('prlimit', limited, { encoding: 'utf8' }), /cannot be executed/);
  });

  test('is refused below a folder that vaults’ users may not enter, saying what to do', async () => {
    const closed = join(folder, 'closed');
    mkdirSync(closed, { mode: 0o700 });
    await assert.rejects(stageRuntime(closed, GUEST_FILE), {
      message: /\(mode 700\), as vaults' users must: chmod o\+x \//,
    });
  });

  test('starts a guest for which Node loads neither its HTTP client nor WebCrypto', async () => {
    const file = join(folder, 'guest.mjs');
    await writeNodeGuest(file);
    const { rootfs } = await stageRuntime(STAGE_DIR, file);
    const guest = spawn(process.execPath, ['-e', LOADED, join(rootfs, 'hauki')], {
      stdio: ['ignore', 'pipe', 'ignore', 'ignore', 'pipe'],
      timeout: 30_000,
      killSignal: 'SIGKILL',
    });
    guest.stdio[4]!.destroy();
    const loaded = JSON.parse(await text(guest.stdout!)) as string[];
    assert.ok(loaded.includes('NativeModule net'), 'the guest ran');
    const heavy = loaded.filter((name) => /undici|webcrypto|node:crypto|NativeModule crypto|http/.test(name));
    assert.deepEqual(heavy, [], 'what touches them costs each start 10 to 50 ms');
  });

  test('is made of a guest that stands alone, also where an agent was killed while it wrote that', async () => {
    const dir = join(folder, 'alone');
    mkdirSync(dir);
    const file = join(dir, 'guest.mjs');
    for (const _ of ['once', 'again'])
      await killedAt(
        folder,
        { '{ writeNodeGuest }': import.meta.resolve('../src/guest/bundle.ts') },
        `dieAt('rename', () => true); await writeNodeGuest(${JSON.stringify(file)});`,
      );
    assert.equal(readdirSync(dir).length, 1);
    await writeNodeGuest(file);
    assert.deepEqual(readdirSync(dir), ['guest.mjs']);
  });

  test('has none of a guest that is a module, which is started as one', async () => {
    const { rootfs } = await stageRuntime(STAGE_DIR, GUEST_FILE);
    assert.equal(existsSync(join(rootfs, 'hauki/guest.code')), false);
  });
});
