/** The mounts of prepared roots go with the agent that made them, however it ends, and never with another. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { killedAt } from '../../../test/support/last-moment.ts';
import { traces } from '../../../test/support/mesh.ts';
import { STAGE_DIR } from '../src/drivers/lxc/limits.ts';
import { sweepViews, VIEWS_DIR, viewOf } from '../src/drivers/lxc/root-view.ts';
import { sandboxObstacle } from '../src/drivers/lxc/sandbox.ts';
import { making, stageRuntime, sweepStage } from '../src/drivers/lxc/staging.ts';
import { pythonObstacle } from '../src/drivers/lxc/staging-python.ts';
import { ownerOf } from '../src/drivers/owner.ts';
import { bench, GUEST_FILE, skip, until } from './lxc/harness.ts';

const mounted = (path: string) =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.split(' ')[4]?.startsWith(path)).length;

const REPOSITORY = fileURLToPath(new URL('../../../', import.meta.url));
const script = (name: string) => fileURLToPath(new URL(`./lxc/${name}`, import.meta.url));

/** Resolves when it has written its first line. */
async function run(name: string, options: object): Promise<ChildProcess> {
  const child = spawn(process.execPath, [script(name), JSON.stringify(options)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout!, 'data');
  return child;
}

async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}

suite('views of a prepared root', { skip }, () => {
  const scratch = mkdtempSync(join(tmpdir(), 'hauki-views-'));
  after(() => {
    assert.equal(mounted(scratch), 0);
    rmSync(scratch, { recursive: true });
  });
  const folder = (name: string) => join(scratch, name);
  const dead = async (dir: string, count: number) => {
    const { rootfs } = await stageRuntime(STAGE_DIR, GUEST_FILE);
    const other = await run('viewer.ts', { rootfs, dir, count });
    assert.equal(mounted(dir), count);
    await killed(other);
    return rootfs;
  };

  test('of a dead process are taken away by anybody; that of a living one stays, and goes when it lets go', async () => {
    const dir = folder('one');
    const rootfs = await dead(dir, 2);
    const mine = await viewOf(rootfs, undefined, dir);
    assert.equal(mounted(dir), 3);
    assert.equal(await sweepViews(dir), 2);
    assert.deepEqual(readdirSync(dir), [mine.path.slice(dir.length + 1)]);
    assert.ok(existsSync(join(mine.path, 'bin/node')), 'it shows the root');
    await mine.close();
    await mine.close();
    assert.deepEqual([readdirSync(dir), mounted(dir)], [[], 0]);
    assert.ok(existsSync(join(rootfs, 'bin/node')), 'the root itself stays');
  });

  test('may be taken away by several at once', async () => {
    const dir = folder('several');
    await dead(dir, 4);
    const others = Array.from({ length: 2 }, () => run('viewer.ts', { dir, sweep: true }));
    await Promise.all([sweepViews(dir), sweepViews(dir), ...others]);
    assert.deepEqual([readdirSync(dir), mounted(dir)], [[], 0]);
  });

  test('that were taken away half, or made half, are taken away by the next', async () => {
    const dir = folder('half');
    await dead(dir, 3);
    const [first, second] = readdirSync(dir);
    // Unmounted only; mounted twice, as by a child that the dead one had started; made, and never mounted.
    execFileSync('/bin/umount', [join(dir, first!)]);
    execFileSync('/bin/mount', ['-t', 'tmpfs', 'tmpfs', join(dir, second!)]);
    mkdirSync(join(dir, '1.1.abcd'));
    assert.equal(await sweepViews(dir), 4);
    assert.deepEqual([readdirSync(dir), mounted(dir)], [[], 0]);
  });

  test('are all taken away when whoever took them away was killed on the way', async () => {
    const dir = folder('killed');
    await dead(dir, 8);
    const sweeper = spawn(process.execPath, [script('viewer.ts'), JSON.stringify({ dir, sweep: true })]);
    await until(() => readdirSync(dir).length < 8);
    await killed(sweeper);
    await sweepViews(dir);
    assert.deepEqual([readdirSync(dir), mounted(dir)], [[], 0]);
  });

  test('of an agent that is killed are taken away with nobody starting again', async () => {
    const node_id = `tview${process.pid}`;
    const data_dir = folder('agent');
    const other = bench();
    const before = await other.start(64);
    const agent = await run('agent.ts', { node_id, data_dir, guest_file: GUEST_FILE });
    const owner = ownerOf(agent.pid!);
    const views = () => readdirSync(VIEWS_DIR).filter((name) => name.startsWith(`${owner}.`));
    assert.equal(views().length, 1);
    await killed(agent);
    await until(() => views().length === 0);
    assert.equal(mounted(join(VIEWS_DIR, `${owner}.`)), 0);
    // Of the same root, in use by somebody who lives, nothing was taken away.
    await other.driver.sweep();
    assert.equal(await (await other.start(64)).ask('1 + 1'), 2);
    assert.equal(await before.ask('2 + 2'), 4);
    await other.end();
    assert.deepEqual(
      readdirSync(VIEWS_DIR).filter((name) => name.startsWith(`${ownerOf(process.pid)}.`)),
      [],
    );
  });

  test('of who starts sandboxes are taken away too, where that is killed before there is any', async (t) => {
    const [obstacle] = [sandboxObstacle(), await pythonObstacle()].filter(Boolean);
    if (obstacle !== undefined && process.env.CI !== 'true') return t.skip(obstacle);
    const data_dir = folder('sandboxes');
    mkdirSync(data_dir);
    const kind = 'tview';
    const options = { kind, data_dir, code_dir: REPOSITORY, program: 'none', memory_mib: 96, cpu: 1 };
    const owner = await killedAt(
      data_dir,
      {
        '{ Sandboxes }': import.meta.resolve('../src/drivers/lxc/sandbox.ts'),
        '{ ownerOf }': import.meta.resolve('../src/drivers/owner.ts'),
        '{ VIEWS_DIR }': import.meta.resolve('../src/drivers/lxc/root-view.ts'),
      },
      `const mine = VIEWS_DIR + '/' + ownerOf(process.pid) + '.';
       setInterval(() => fs.readFileSync('/proc/self/mounts', 'utf8').includes(mine) && die(), 1);
       await new Sandboxes({ ...${JSON.stringify(options)}, log() {} }).start({ id: 'a', folders: {}, environment: {} });`,
    );
    const views = () => readdirSync(VIEWS_DIR).filter((name) => name.startsWith(`${owner}.`));
    await until(() => views().length === 0);
    assert.equal(mounted(join(VIEWS_DIR, `${owner}.`)), 0);
    const group = `hauki.${kind}-${Number(owner.split('.')[0]).toString(36)}.`;
    await until(() => traces(group).length === 0);
  });

  test('are not all that the dead leave: what they were staging goes too', async () => {
    const stage_dir = folder('stage');
    const mine = making(stage_dir);
    mkdirSync(join(stage_dir, '.making-1.1.abcd/rootfs'), { recursive: true });
    mkdirSync(join(stage_dir, 'blobs'));
    mkdirSync(mine);
    await sweepStage(stage_dir);
    assert.deepEqual(readdirSync(stage_dir).sort(), [mine.slice(stage_dir.length + 1), 'blobs'].sort());
  });
});
