/** A data folder that an earlier version wrote is opened whole: an upgrade loses nothing that was acknowledged. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, describe, it } from 'node:test';
import { pino } from 'pino';
import { type CoreServer, createCore } from '../src/core.ts';

/** The secrets whose hashes stand in the fixture. */
const TEAM = 'the-token-of-the-team';
const BELOW = 'the-token-below-it';

/** The last time in the fixture; what has ended is kept for a day, so the test has it end now. */
const ENDED_AT = 1795426265907;
const presently = (sql: string) =>
  sql.replaceAll(/\b17954262\d{5}\b/g, (at) => String(Date.now() - ENDED_AT + Number(at)));

describe('a core’s data folder that an earlier version wrote', () => {
  let core: CoreServer;
  let url: string;
  let folder: string;
  let admin: string;
  const logged: string[] = [];
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'hauki-earlier-'));
    mkdirSync(join(folder, 'store'));
    using db = new DatabaseSync(join(folder, 'store', 'kv.sqlite'));
    db.exec(presently(readFileSync(new URL('./earlier.sql', import.meta.url), 'utf8')));
    core = await createCore({
      data_dir: folder,
      logger: pino({ level: 'warn' }, { write: (line) => logged.push(line) }),
    });
    url = await core.listen('127.0.0.1', 0);
    admin = readFileSync(join(folder, 'admin.token'), 'utf8').trim();
  });
  after(async () => {
    await core.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const ask = async (path: string, { token = admin, body }: { token?: string; body?: unknown } = {}): Promise<any> => {
    const answer = await fetch(new URL(path, url), {
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
    });
    return answer.json();
  };
  const resolve = (pointer: string, more = '', token = admin) =>
    ask(`/api/v2/meshfs/resolve?pointer=gem-pointer://${pointer}${more}`, { token });

  it('has nothing in it that this version finds damaged', () => assert.deepEqual(logged, []));

  it('has its tokens, each with the rights that it had', async () => {
    const team = await ask('/api/v2/tokens/self', { token: TEAM });
    const { name, scopes, targets, quota, expires_at } = team;
    assert.deepEqual([name, expires_at], ['team', null]);
    assert.deepEqual(scopes, ['spawn', 'provision', 'spool', 'meshfs', 'tokens']);
    assert.deepEqual(targets.pointers, ['gem-pointer://wiki/team/', 'gem-pointer://data/one']);
    assert.deepEqual(quota, { vaults: 10, memory_mib: null, clones_per_minute: null });
    const below = await ask('/api/v2/tokens/self', { token: BELOW });
    assert.equal(below.owner, `${team.owner}/${below.id}`);
    assert.equal((await resolve('wiki/team/Notes', '', BELOW)).content, 'three ✓');
    assert.equal((await resolve('data/gone', '', BELOW)).error.data.name, 'Forbidden');
  });

  it('has its pointers with all their versions, their readable files and what was deleted, and goes on with them', async () => {
    for (const [i, text] of ['one', 'two', 'three ✓'].entries())
      assert.equal((await resolve('wiki/team/Notes', `&version=${i + 1}`)).content, text);
    assert.equal(readFileSync(join(folder, 'wiki/team/Notes.md'), 'utf8'), 'three ✓');
    const raw = await fetch(new URL('/api/v2/meshfs/raw?pointer=gem-pointer://data/one', url), {
      headers: { authorization: `Bearer ${admin}` },
    });
    assert.deepEqual([...new Uint8Array(await raw.arrayBuffer())], [0, 1, 2, 255]);
    assert.equal((await resolve('data/gone')).error.data.name, 'PointerDeleted');
    assert.equal((await resolve('data/gone', '&version=1')).content, 'was here');
    const write = { pointer: 'gem-pointer://wiki/team/Notes', content: 'four' };
    assert.equal((await ask('/api/v2/meshfs/write', { body: write })).version, 4);
    assert.equal((await resolve('wiki/team/Notes', '&version=3')).content, 'three ✓');
  });

  it('has its lasting workers, which wait for their node, and their names', async () => {
    const { workers } = await ask('/api/v2/lxc_provision');
    const known = workers.map(({ worker, state, epoch, driver }: any) => [worker, state, epoch, driver]);
    assert.deepEqual(known.sort(), [
      ['counter', 'node_away', 3, 'quickjs'],
      ['keeper', 'node_away', 2, 'quickjs'],
    ]);
    const { grants } = workers.find(({ worker }: any) => worker === 'keeper');
    assert.deepEqual([grants.volume, grants.time], [{ name: 'notes', quota_mib: 64 }, true]);
    const again = { name: 'keeper', source: 'export const next = () => 1;' };
    assert.equal((await ask('/api/v2/lxc_provision', { body: again })).error.data.name, 'NameTaken');
  });

  it('has its jobs: their results, their errors, their keys, and those that wait', async () => {
    const { jobs } = await ask('/api/v2/omega_spool');
    const states = Object.fromEntries(jobs.map(({ key, state }: any) => [key, state]));
    assert.deepEqual(states, { done: 'done', failed: 'failed', waiting: 'accepted', theirs: 'accepted' });
    const job = (key: string) => jobs.find((one: any) => one.key === key).job;
    assert.equal((await ask(`/api/v2/omega_spool/${job('done')}`)).result, 1);
    assert.match((await ask(`/api/v2/omega_spool/${job('failed')}`)).error.message, /own fault/);
  });

  it('has what became of its workers', async () => {
    const { state, fate } = await ask('/api/v2/ephemeral/w-earlier');
    assert.deepEqual([state, fate.cause], ['dead', 'destructed']);
  });
});
