/** Events of a real mesh: what happens is told, in order, once, also over cuts and over a restart of the core. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect as connectTcp, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startMesh, startNode } from '@hauki/cli';
import { connect, EVENTS_LOST, Forbidden, isError, type Mesh, type MeshEvent } from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { CALCULATOR, restartCore, until, useMesh } from './support/mesh.ts';
import { keptPort } from './support/ports.ts';

const BIN = fileURLToPath(new URL('../apps/cli/bin/hauki.js', import.meta.url));

/** Collects what a mesh tells until it is stopped. */
function follow(mesh: Mesh, options: { names?: string[]; worker?: string; after?: string } = {}) {
  const leaving = new AbortController();
  const events: MeshEvent[] = [];
  const done = (async () => {
    for await (const event of mesh.events({ after: '0', ...options, follow: true, signal: leaving.signal }))
      events.push(event);
  })();
  done.catch(() => {});
  const stop = async () => {
    leaving.abort();
    await done;
  };
  return { events, stop, done };
}

const gather = async (events: AsyncIterable<MeshEvent>) => {
  const found: MeshEvent[] = [];
  for await (const event of events) found.push(event);
  return found;
};

describe('the events of a mesh', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });

  it('tell a worker’s life, from its placement to its end', async () => {
    const ghost = used.mesh.clone({ source: CALCULATOR });
    const { worker, node } = await used.mesh.details(ghost);
    await used.mesh.details(used.mesh.visit(worker));
    await used.mesh.destruct(worker);
    const told = async () => gather(used.mesh.events({ worker }));
    await until('its death is told', async () => (await told()).some(({ name }) => name === 'WORKER_DIED'));
    const events = await told();
    assert.deepEqual(
      events.map(({ name }) => name),
      ['SPAWN_DISTRIBUTED', 'WORKER_BORN', 'VISITOR_TICKET', 'WORKER_DIED'],
    );
    const [spawned, born, , died] = events.map(({ fields }) => fields);
    assert.deepEqual(spawned, { worker, node, driver: 'quickjs', owner: 'admin' });
    assert.deepEqual(born, { worker, node, driver: 'quickjs', owner: 'admin', epoch: 1 });
    assert.deepEqual(died, { worker, node, owner: 'admin', cause: 'destructed', reason: 'destructed by admin' });
  });

  it('are numbered without a gap, and tell of core, node, pointers and tokens', async () => {
    const written = await used.mesh.meshfs.write('gem-pointer://wiki/told/page', 'never told');
    const token = await used.mesh.tokens.create({ name: 'told', scopes: ['events'] });
    await used.mesh.tokens.revoke(token.id);
    await assert.rejects(Promise.resolve(used.mesh.clone({ source: 'not a module (' })));
    const events = await gather(used.mesh.events());
    assert.deepEqual(
      events.map(({ seq }) => seq),
      events.map((_, i) => i + 1),
    );
    const by = (name: string) => events.filter((event) => event.name === name).map(({ fields }) => fields);
    assert.equal(events[0]!.name, 'CORE_STARTED');
    assert.deepEqual(by('NODE_REGISTERED'), [{ node: used.local.nodes[0]!.node, workers: 0, drivers: ['quickjs'] }]);
    const { pointer, digest } = written;
    assert.deepEqual(by('MESHFS_WRITTEN'), [{ pointer, digest, version: 1, bytes: 10, media_type: 'text/markdown' }]);
    assert.deepEqual(by('TOKEN_REVOKED'), [{ token: token.id, owner: token.id, by: 'admin' }]);
    assert.equal(by('SPAWN_FAILED').length, 1);
    const all = JSON.stringify(events);
    for (const secret of ['never told', token.token.slice(6), used.local.token.slice(6)])
      assert.ok(!all.includes(secret));
  });

  it('are told to a token as far as they concern it', async () => {
    const made = await used.mesh.tokens.create({ name: 'some', scopes: ['spawn', 'events'] });
    const mesh = await connect({ core: used.local.url, token: made.token });
    const told = follow(mesh);
    const mine = await mesh.details(mesh.clone({ source: CALCULATOR }));
    const other = await used.mesh.details(used.mesh.clone({ source: CALCULATOR }));
    await used.mesh.meshfs.write('gem-pointer://wiki/told/other', 'x');
    await used.mesh.destruct(other.worker);
    await mesh.destruct(mine.worker);
    await until('its own end is told', () => told.events.some(({ name }) => name === 'WORKER_DIED'));
    await told.stop();
    assert.deepEqual(
      told.events.map(({ name, fields }) => [name, fields.worker ?? fields.token]),
      [
        ['TOKEN_CREATED', made.id],
        ['SPAWN_DISTRIBUTED', mine.worker],
        ['WORKER_BORN', mine.worker],
        ['WORKER_DIED', mine.worker],
      ],
    );
    const caller = await used.mesh.tokens.create({ name: 'deaf', scopes: ['call'] });
    const deaf = await connect({ core: used.local.url, token: caller.token });
    for (const options of [{}, { follow: true }])
      await assert.rejects(
        gather(deaf.events(options)),
        (e) => isError(e, Forbidden) && /scope events or read/.test(e.message),
      );
    await Promise.all([mesh.close(), deaf.close()]);
  });

  it('tell a job’s life: taken, begun on a node, done', async () => {
    const job = await used.mesh.spool<number>({ source: CALCULATOR }, { method: 'add', params: [20, 22] });
    assert.equal(await job.result(), 42);
    const told = (await gather(used.mesh.events({ names: ['SPOOL_'] }))).filter((e) => e.fields.job === job.job);
    const { node } = used.local.nodes[0]!;
    const owner = 'admin';
    assert.deepEqual(
      told.map(({ name, fields: { job: _, worker: __, ...rest } }) => [name, rest]),
      [
        ['SPOOL_ACCEPTED', { owner, method: 'add' }],
        ['SPOOL_STARTED', { owner, attempt: 1, node }],
        ['SPOOL_DONE', { owner, attempts: 1 }],
      ],
    );
    const { worker } = told[1]!.fields as { worker: string };
    const [spawned] = await gather(used.mesh.events({ worker }));
    assert.equal(spawned!.name, 'SPOOL_STARTED', 'before a node hears of it, under the name of its worker');
  });

  it('can be chosen by name and by worker', async () => {
    const { worker } = await used.mesh.details(used.mesh.clone({ source: CALCULATOR }));
    const chosen = await gather(used.mesh.events({ names: ['WORKER_', 'SPAWN_D'], worker }));
    assert.deepEqual(
      chosen.map(({ name }) => name),
      ['SPAWN_DISTRIBUTED', 'WORKER_BORN'],
    );
    const last = await gather(used.mesh.events({ limit: 1 }));
    assert.deepEqual(await gather(used.mesh.events({ after: last[0]!.id })), []);
    await used.mesh.destruct(worker);
    const headers = { authorization: `Bearer ${used.local.token}` };
    const answer = await fetch(`${used.local.url}/api/v2/events/recent`, { headers });
    assert.deepEqual([answer.status, ((await answer.json()) as { status: string }).status], [200, 'success']);
  });

  it('come as Server-Sent Events that any client reads', async () => {
    const leaving = new AbortController();
    const answer = await fetch(`${used.local.url}/api/v2/events?name=MESHFS_WRITTEN`, {
      headers: { authorization: `Bearer ${used.local.token}` },
      signal: leaving.signal,
    });
    assert.match(answer.headers.get('content-type')!, /^text\/event-stream/);
    assert.equal(answer.headers.get('cache-control'), 'no-store');
    await used.mesh.meshfs.write('gem-pointer://wiki/told/sse', 'x');
    let text = '';
    for await (const chunk of answer.body!.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      if (text.includes('"MESHFS_WRITTEN"')) break;
    }
    leaving.abort();
    const [, id, data] = /\nid: (\S+)\ndata: (\{.*\})\n\n/.exec(text)!;
    const event = JSON.parse(data!) as MeshEvent;
    assert.equal(event.id, id);
    assert.equal(event.fields.pointer, 'gem-pointer://wiki/told/sse.md');
    assert.match(text, /^retry: \d+\n\n/);
  });

  describe('through a line that is cut again and again', () => {
    let proxy: Server;
    const sockets = new Set<Socket>();
    let budget = () => Number.POSITIVE_INFINITY;
    before(async () => {
      proxy = createServer((near) => {
        const far = connectTcp(Number(new URL(used.local.url).port), '127.0.0.1');
        let left = budget();
        for (const [from, to] of [
          [near, far],
          [far, near],
        ] as const) {
          sockets.add(from);
          from.on('error', () => {});
          from.on('close', () => {
            sockets.delete(from);
            to.destroy();
          });
        }
        near.on('data', (data) => far.write(data));
        far.on('data', (data) => {
          // Cuts in the midst of an event too.
          if (data.length < left) near.write(data);
          else near.end((data as Buffer).subarray(0, left));
          left -= data.length;
        });
      });
      proxy.listen(0, '127.0.0.1');
      await once(proxy, 'listening');
    });
    after(() => {
      for (const socket of sockets) socket.destroy();
      proxy.close();
    });

    it('come without a gap, and none twice', async () => {
      const port = (proxy.address() as { port: number }).port;
      const mesh = await connect({ core: `http://127.0.0.1:${port}`, token: used.local.token });
      let cuts = 0;
      budget = () => {
        cuts += 1;
        return 700 + ((cuts * 397) % 1_500);
      };
      const [start] = await gather(used.mesh.events({ limit: 1 }));
      const told = follow(mesh, { after: start!.id, names: ['MESHFS_WRITTEN'] });
      for (let i = 0; i < 60; i++) {
        await used.mesh.meshfs.write('gem-pointer://wiki/told/cut', `${i}`);
        if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 30));
      }
      await until('all have come', () => told.events.length >= 60, 40_000);
      await told.stop();
      assert.deepEqual(
        told.events.map(({ fields }) => fields.version),
        Array.from({ length: 60 }, (_, i) => i + 1),
      );
      assert.ok(cuts > 5, `${cuts} cuts`);
      budget = () => Number.POSITIVE_INFINITY;
      await mesh.close();
    });
  });

  it('are shown by hauki events, as a table, as JSON, and as they happen', async () => {
    const env = { ...process.env, HAUKI_URL: used.local.url, HAUKI_TOKEN: used.local.token, NO_COLOR: '1' };
    const run = async (...args: string[]) => {
      const child = spawn(process.execPath, [BIN, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
      let out = '';
      for (const stream of [child.stdout, child.stderr])
        stream.on('data', (data) => {
          out += data;
        });
      const [code] = await once(child, 'close');
      return { code, out };
    };
    const table = await run('events', '--name', 'CORE_', '--name', 'NODE_');
    assert.match(table.out, /^TIME +EVENT +FIELDS\n[\d:.]+ +CORE_STARTED +core=\S+\n[\d:.]+ +NODE_REGISTERED +node=/);
    assert.equal(
      (await run('events', '--name', 'NOTHING')).out,
      'No such events are remembered. hauki events -f waits for them\n',
    );
    const lines = (await run('events', '--json', '--limit', '2')).out.trim().split('\n');
    assert.deepEqual(Object.keys(JSON.parse(lines[1]!)), ['id', 'seq', 'at', 'name', 'fields']);
    assert.equal((await run('events', '--limit', 'x')).code, 2);
    assert.equal((await run('events', '--after', 'x')).code, 2);

    const following = spawn(process.execPath, [BIN, 'events', '-f', '--json', '--name', 'MESHFS_', '--limit', '1'], {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const shown: string[] = [];
    createInterface(following.stdout).on('line', (line) => shown.push(JSON.parse(line).fields.pointer));
    await until('the past is shown', () => shown.length === 1);
    await used.mesh.meshfs.write('gem-pointer://wiki/told/now', 'x');
    await until('the new is shown', () => shown.at(-1) === 'gem-pointer://wiki/told/now.md');
    following.kill('SIGINT');
    const [code] = await once(following, 'exit');
    assert.equal(code, 0);

    const token = await run(
      'token',
      'create',
      '--name',
      'ci',
      '--scope',
      'events',
      '--expires',
      '1h',
      '--pointer',
      'gem-pointer://wiki/x/',
      '--json',
    );
    const made = JSON.parse(token.out);
    assert.deepEqual(made.targets.pointers, ['gem-pointer://wiki/x/']);
    assert.match(
      (await run('token', 'ls')).out,
      new RegExp(`${made.id} +events +60 min +admin +- +pointers gem-pointer://wiki/x/`),
    );
    assert.ok(!(await run('token', 'ls', '--json')).out.includes(made.token));
    assert.equal((await run('token', 'revoke', made.id)).out, `${made.id}\n`);
    assert.equal((await run('token', 'revoke', made.id)).code, 3);
    assert.equal((await run('token', 'create', '--name', 'ci')).code, 2);
    assert.match(
      (await run('token', 'create', '--name', 'x', '--scope', 'all')).out,
      /scopes\[0\]: "all" was given; expected is one of "read", "events"/,
    );
    const secret = (await run('token', 'create', '--name', 'plain', '--scope', 'read')).out;
    assert.match(secret, /^hauki_[\w-]{43}\n/);
    assert.equal(JSON.parse((await run('token', '--json')).out).token, used.local.token, 'as it always was');
    for (const word of ['spawn.pointer', 'Examples', 'revoke'])
      assert.ok((await run('token', '--help')).out.includes(word), word);
  });
});

describe('each change of a lasting worker’s state is told', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });
  const tell = (worker: string) => {
    const told = follow(used.mesh, { names: ['WORKER_STATE_CHANGED'], worker });
    return { ...told, states: () => told.events.map(({ fields }) => fields.state).join(' ') };
  };

  it('it fails, crashes in a loop, and runs again', { timeout: 240_000 }, async () => {
    const pointer = 'gem-pointer://wiki/told/switch.md';
    await used.mesh.meshfs.write(pointer, 'on');
    const source = `
      const { content } = await hauki.meshfs.resolve('${pointer}');
      if (content !== 'on') throw new Error('switched ' + content);
      export const mood = () => content;`;
    const worker = `told-${crypto.randomUUID().slice(0, 8)}`;
    await used.mesh.provision({ source }, { name: worker, grants: { meshfs: { read: [pointer] } } });
    const { events, states, stop } = tell(worker);
    await used.mesh.meshfs.write(pointer, 'off');
    process.kill((await used.mesh.registry()).workers.find((one) => one.worker === worker)!.pid, 'SIGKILL');
    await until('it crashes in a loop', () => /crash_loop/.test(states()), 110_000);
    const { owner, before, why } = events.find(({ fields }) => fields.state === 'crash_loop')!.fields;
    assert.deepEqual([owner, before], ['admin', 'starting']);
    assert.match(String(why), /switched off/);
    await used.mesh.meshfs.write(pointer, 'on');
    await until('it runs', () => /running$/.test(states()), 110_000);
    await stop();
    assert.match(states(), /^(restarting starting ){4}(crash_loop starting )+running$/);
    await used.mesh.lasting.delete(worker);
  });

  it('its node goes away, no other fits, and it runs when that is back', async () => {
    const { local, mesh } = used;
    await restartCore(local, { node_grace_ms: 1_000 });
    await until('its node is back', async () => (await mesh.registry()).nodes.length === 1);
    const worker = `told-${crypto.randomUUID().slice(0, 8)}`;
    await mesh.provision({ source: CALCULATOR }, { name: worker });
    const { events, states, stop } = tell(worker);
    const { node } = local.nodes[0]!;
    await local.nodes[0]!.kill();
    await until('it waits for a node', () => /waiting$/.test(states()));
    local.nodes[0] = await startNode({
      core_url: local.url,
      data_dir: join(local.data_dir, 'node'),
      token_file: nodeTokenFile(local.data_dir),
      drivers: ['quickjs'],
    });
    await until('it runs again', () => /running$/.test(states()));
    await stop();
    assert.deepEqual(
      events.map(({ fields }) => [fields.before, fields.state, fields.node]),
      [
        ['running', 'node_away', node],
        ['node_away', 'waiting', node],
        ['waiting', 'running', node],
      ],
    );
    await mesh.lasting.delete(worker);
  });
});

describe('a restart of the core', () => {
  let data_dir: string;
  before(() => {
    data_dir = mkdtempSync(join(tmpdir(), 'hauki-events-'));
  });
  after(() => rmSync(data_dir, { recursive: true, force: true }));

  it('is told to who follows, who then hears all that is new, workers that lived on included', async () => {
    const local = await startMesh({ data_dir, port: await keptPort(), nodes: [{ drivers: ['quickjs'] }] });
    try {
      const mesh = await connect({ core: local.url, token: local.token });
      const { worker } = await mesh.details(mesh.clone({ source: CALCULATOR }, { ttl_ms: 60_000 }));
      const told = follow(mesh);
      await until('its birth is told', () => told.events.some(({ name }) => name === 'WORKER_BORN'));
      const before_kill = told.events.length;
      await restartCore(local);
      await until('its return is told', () => told.events.some(({ name }) => name === 'WORKER_RETURNED'));
      await told.stop();
      const fresh = told.events.slice(before_kill);
      assert.deepEqual(
        fresh.map(({ name }) => name),
        [EVENTS_LOST, 'CORE_STARTED', 'NODE_REGISTERED', 'WORKER_RETURNED'],
      );
      assert.equal(fresh[0]!.fields.lost, null);
      assert.equal(fresh[3]!.fields.worker, worker);
      assert.deepEqual(
        fresh.slice(1).map(({ seq }) => seq),
        [1, 2, 3],
      );
      const core = ({ id }: MeshEvent) => id.replace(/-\d+$/, '');
      assert.notEqual(core(fresh[1]!), core(told.events[0]!));
      await mesh.destruct(worker);
      await mesh.close();
    } finally {
      await local.stop();
    }
  });
});
