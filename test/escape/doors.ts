/**
 * Attempts at the doors that are open: effects, tickets, frames, names in the API, the heartbeat. Over 400 lines, because
 * it is a list: each attempt stands beside its control.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, connect as dial, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from '@hauki/mesh';
import { makeCallerKey, redeemTicket, Session } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import type { DriverName } from '../support/mesh.ts';
import { METADATA, WEB_HOST } from './host.ts';
import { PATIENCE, patiently } from './patience.ts';
import { type Attempt, blocked, judged, type Outcome, opened } from './table.ts';
import { MEMORY_MIB, type World } from './world.ts';

type By = Partial<Record<DriverName, string>>;

const same = (words: string): By => ({ quickjs: words, lxc: words, process: words });

/** A worker that fetches an address. */
const fetching = (url: string) => `export const attempt = () => fetch(${JSON.stringify(url)}).then((r) => r.text());`;

function effects(world: World): Attempt[] {
  const { facts, ask } = world;
  const one = (name: string, by: By, url: string, granted: string[], control: string[]): Attempt => ({
    name,
    by,
    run: (driver) => judged(facts.proof, () => ask(driver, fetching(url), facts, { grants: { fetch: granted } })),
    control: {
      what: 'with the grant',
      run: () => judged(facts.proof, () => ask('quickjs', fetching(url), facts, { grants: { fetch: control } })),
    },
  });
  const web = `${WEB_HOST}:80`;
  const redirecting = `${WEB_HOST}:8080`;
  const metadata = `${METADATA}:80`;
  return [
    one('ungranted fetch', same('grants, checked by the agent'), `http://${WEB_HOST}/`, [], [web]),
    one(
      'fetch of another port of a granted host',
      same('grants name host and port'),
      `http://${WEB_HOST}/`,
      [redirecting],
      [web],
    ),
    one(
      'metadata address by a granted host’s redirect',
      same('redirects are checked like requests'),
      `http://${WEB_HOST}:8080/`,
      [redirecting],
      [redirecting, metadata],
    ),
    one(
      'loopback in other spellings',
      same('addresses in one spelling'),
      `http://0x7f.1:${facts.loopback_http}/`,
      [`${WEB_HOST}:${facts.loopback_http}`],
      [`127.0.0.1:${facts.loopback_http}`],
    ),
    {
      name: 'ungranted document of MeshFS',
      by: same('grants, checked by the agent'),
      run: (driver) => judged(facts.proof, () => readDocument(world, driver, [])),
      control: {
        what: 'with the grant',
        run: () => judged(facts.proof, () => readDocument(world, 'quickjs', ['gem-pointer://wiki/escape/'])),
      },
    },
  ];
}

async function readDocument({ mesh, facts, ask }: World, driver: DriverName, read: string[]): Promise<unknown> {
  const pointer = 'gem-pointer://wiki/escape/secret';
  await mesh.meshfs.write(pointer, facts.proof);
  const source = `export const attempt = () => hauki.meshfs.resolve('${pointer}').then((d) => d.content);`;
  return ask(driver, source, facts, { grants: { meshfs: { read } } });
}

/** A body that a server would read as a further request: of a method, and to a place, that nobody has granted. */
function smuggled({ facts, ask }: World): Attempt {
  const body = 'POST /admin HTTP/1.1\r\nHost: inner\r\nContent-Length: 0\r\n\r\n';
  /** A server that reads request after request, as far as each says that it goes. */
  const through = async (send: (port: number) => Promise<unknown>) => {
    let asked = '';
    const server = createServer((socket) => {
      let bytes = '';
      socket
        .on('error', () => {})
        .on('data', (chunk) => {
          bytes += chunk.toString('latin1');
          for (let end = bytes.indexOf('\r\n\r\n'); end !== -1; end = bytes.indexOf('\r\n\r\n')) {
            const head = bytes.slice(0, end);
            asked += `${head.split(' HTTP/')[0]}, `;
            socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
            bytes = bytes.slice(end + 4 + Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0));
          }
        });
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    await send((server.address() as { port: number }).port).catch((error) => {
      asked += String(error);
    });
    server.close();
    return asked.includes('POST /admin') ? facts.proof : asked;
  };
  const worker = (url: string) => `export const attempt = async () => {
    const answer = await fetch('${url}', { method: 'DELETE', body: ${JSON.stringify(body)} });
    return answer.text();
  };`;
  return {
    name: 'a further request in the body of a granted one',
    by: same('every body has its length'),
    run: (driver) =>
      judged(facts.proof, () =>
        through((port) => {
          const grants = { fetch: [{ to: `127.0.0.1:${port}`, methods: ['DELETE'] }] };
          return ask(driver, worker(`http://127.0.0.1:${port}/`), facts, { grants });
        }),
      ),
    control: {
      what: 'a body without its length',
      run: () =>
        judged(facts.proof, () =>
          through(async (port) => {
            const socket = dial(port, '127.0.0.1').end(`DELETE / HTTP/1.1\r\nHost: here\r\n\r\n${body}`);
            await once(socket.resume(), 'close');
          }),
        ),
    },
  };
}

/** Links in a place where the agent reads for the worker: its volume. Swapped while it reads, a thousand times. */
function links({ facts, ask, folder }: World): Attempt {
  const swapping = `export const attempt = async (host) => {
    const fs = process.getBuiltinModule('node:fs');
    fs.writeFileSync('/root/plain', 'plain');
    fs.symlinkSync(host.secret_file, '/root/link');
    let last = 'nothing';
    for (let i = 0; i < 300; i++) {
      const answer = hauki.volume.read('name');
      fs.rmSync('/root/name', { force: true });
      if (i % 2) fs.linkSync('/root/plain', '/root/name'); else fs.symlinkSync(host.secret_file, '/root/name');
      last = await answer.catch((error) => error.message);
      if (last.includes(host.proof)) return last;
    }
    return await hauki.volume.read('link').catch((error) => error.message);
  };`;
  return {
    name: 'links swapped on a path that the agent reads',
    by: { lxc: 'no link is followed', process: 'permission model; no link is followed' },
    run: (driver) =>
      judged(facts.proof, () => ask(driver, swapping, facts, { grants: { volume: `escape-${driver}` } })),
    control: {
      what: 'a reader that follows links',
      run: () =>
        judged(facts.proof, async () => {
          const link = join(folder, 'followed');
          symlinkSync(facts.secret_file, link);
          return readFileSync(link, 'utf8');
        }),
    },
  };
}

/** A grant that is taken away from a living worker: its next call finds it gone. */
function ungranted(world: World): Attempt {
  const { facts, local, mesh } = world;
  const use = async (driver: DriverName, take_away: boolean) => {
    const ghost = world.clone(driver, fetching(`http://${WEB_HOST}/`), { grants: { fetch: [`${WEB_HOST}:80`] } });
    try {
      if (!String(await ghost.attempt()).includes(facts.proof)) return 'it was never granted';
      const { worker } = await mesh.details(ghost);
      if (take_away) {
        const answer = await fetch(`${local.url}/api/v2/ephemeral/${worker}/revoke`, {
          method: 'POST',
          headers: { authorization: `Bearer ${local.token}`, 'content-type': 'application/json' },
          body: JSON.stringify({ fetch: true }),
        });
        if (!answer.ok) return `OPEN: revoking answered ${answer.status}`;
      }
      return await ghost.attempt();
    } finally {
      await mesh.destruct(ghost).catch(() => {});
    }
  };
  return {
    name: 'use after revoke: a grant',
    by: same('grants, looked up at every effect'),
    run: (driver) => judged(facts.proof, () => use(driver, true)),
    control: { what: 'not revoked', run: () => judged(facts.proof, () => use('quickjs', false)) },
  };
}

/** A token that is taken away: whoever holds it still clones nothing more with it. */
function revoked(world: World): Attempt {
  const { local, mesh } = world;
  const use = async (driver: DriverName, take_away: boolean) => {
    const { token, id } = await mesh.tokens.create({ name: 'revoked', scopes: ['spawn', 'call'] });
    const holder = await connect({ core: local.url, token });
    try {
      const options = { driver, memory_mib: MEMORY_MIB[driver], timeout_ms: 8_000 };
      const ghost: any = holder.clone({ source: 'export const here = () => "OPEN";' }, options);
      await ghost.here();
      if (take_away) await mesh.tokens.revoke(id);
      await sleep(500);
      const next: any = holder.clone({ source: 'export const here = () => "OPEN";' }, options);
      return await next.here();
    } finally {
      await holder.close();
    }
  };
  return {
    name: 'use after revoke: a token',
    by: same('the token is looked up at every request'),
    run: (driver) => judged('\0', () => use(driver, true)),
    control: {
      what: 'a token that is not revoked',
      run: () => judged('\0', () => patiently(() => use('quickjs', false))),
    },
  };
}

/** What belongs to another: its worker, its ticket. */
function others(world: World): Attempt[] {
  const { local } = world;
  const spawn = async (driver: DriverName, audience: string) => {
    const answer = await fetch(`${local.url}/api/v2/swarm_spawn_ephemeral`, {
      method: 'POST',
      headers: { authorization: `Bearer ${local.token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ source: 'export const mine = () => "OPEN";', driver, audience }),
    });
    const body = (await answer.json()) as any;
    if (!answer.ok) throw new Error(JSON.stringify(body));
    return body as { worker: string; ticket: any };
  };
  const port = async (worker: string) =>
    (await world.mesh.registry()).workers.find((one) => one.worker === worker)!.direct.port;
  const enter = async (driver: DriverName, own_door: boolean) => {
    const key = await makeCallerKey();
    const [one, other] = [await spawn(driver, key.thumbprint), await spawn(driver, key.thumbprint)];
    const socket = dial(await port(own_door ? one.worker : other.worker), '127.0.0.1');
    const session = new Session({ transport: streamTransport(socket), timeout_ms: 10_000 });
    try {
      await redeemTicket(session, one.ticket, key);
      return await session.call('mine');
    } finally {
      session.close();
      await Promise.all([one, other].map(({ worker }) => world.mesh.destruct(worker)));
    }
  };
  const foreign = async (driver: DriverName, of: 'own' | 'another') => {
    const { token } = await world.mesh.tokens.create({ name: 'stranger', scopes: ['spawn'] });
    const stranger = await connect({ core: local.url, token });
    const ghost: any = world.clone(driver, 'export const mine = () => "OPEN";');
    try {
      const { worker } = await world.mesh.details(ghost);
      const visitor: any = (of === 'own' ? world.mesh : stranger).visit(worker);
      const said = await visitor.mine();
      return said;
    } finally {
      await stranger.close();
      await world.mesh.destruct(ghost).catch(() => {});
    }
  };
  return [
    {
      name: 'another vault’s id: its ticket at this door',
      by: same('a ticket names its worker'),
      run: (driver) => judged('\0', () => enter(driver, false)),
      control: { what: 'at its own door', run: () => judged('\0', () => enter('quickjs', true)) },
    },
    {
      name: 'another vault’s id: calling another owner’s worker',
      by: same('rights of the token'),
      run: (driver) => judged('\0', () => foreign(driver, 'another')),
      control: { what: 'its owner', run: () => judged('\0', () => foreign('quickjs', 'own')) },
    },
  ];
}

/** Sends bytes until the other side has had enough, or all is taken. */
async function pour(socket: Socket, head: Buffer, total: number): Promise<Outcome> {
  const part = Buffer.alloc(64 * 1024, 0x41);
  let closed = false;
  let sent = 0;
  socket
    .on('error', () => {})
    .on('close', () => {
      closed = true;
    });
  socket.resume();
  await once(socket, 'connect').catch(() => {});
  socket.write(head);
  const until = Date.now() + 12_000 * PATIENCE;
  while (!closed && sent < total && Date.now() < until) {
    if (socket.write(part)) await sleep(0);
    else
      await Promise.race([once(socket, 'drain').catch(() => {}), once(socket, 'close').catch(() => {}), sleep(1_000)]);
    sent += part.length;
  }
  await sleep(50);
  const all = sent >= total && !closed;
  socket.destroy();
  return all
    ? opened(`all ${total >> 20} MiB were taken`)
    : blocked(`closed after at most ${Math.ceil(sent / 1024)} KiB`);
}

const POURED = 64 << 20;
/** As long as a frame can be, and longer than the handshake's may. */
const OVERSIZED = Buffer.from([0, 0xff, 0xff, 0xff, 1]);
const MALFORMED = Buffer.from([0, 0, 0, 3, 99, 0xff, 0xfe]);

function frames(world: World): Attempt[] {
  const atDoor = async (driver: DriverName, head: Buffer) => {
    const ghost: any = world.clone(driver, 'export const here = () => 42;');
    try {
      await ghost.here();
      const { worker } = await world.mesh.details(ghost);
      const { direct } = (await world.mesh.registry()).workers.find((one) => one.worker === worker)!;
      const outcome = await pour(dial(direct.port, '127.0.0.1'), head, POURED);
      if ((await ghost.here()) !== 42) return opened('the worker answers no more');
      return outcome;
    } finally {
      await world.mesh.destruct(ghost).catch(() => {});
    }
  };
  const unbounded = async (head: Buffer) => {
    const server = createServer((socket) => socket.on('error', () => {}).resume());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const outcome = await pour(dial((server.address() as { port: number }).port, '127.0.0.1'), head, POURED);
    server.close();
    return outcome;
  };
  /** From inside, on the channel to the agent. */
  const atAgent = async (driver: DriverName, head: Buffer) => {
    const body = `const fs = process.getBuiltinModule('node:fs');
      const part = Buffer.alloc(65536, 65); let sent = 0; const until = Date.now() + 6000;
      const put = (bytes) => { for (let at = 0; at < bytes.length && Date.now() < until; )
        try { at += fs.writeSync(4, bytes, at); } catch (error) { if (error.code !== 'EAGAIN') throw error; } };
      put(Buffer.from(${JSON.stringify([...head])}));
      while (sent < ${POURED} && Date.now() < until) { put(part); sent += part.length; }
      return sent >= ${POURED} ? 'OPEN: all was taken' : 'it was not read on';`;
    const outcome = await judged('\0', () =>
      world.ask(driver, `export const attempt = () => { ${body} };`, world.facts),
    );
    await world.neighbourAnswers(driver);
    return outcome;
  };
  const native = {
    lxc: 'frames are bounded; the vault is given up',
    process: 'frames are bounded; the vault is given up',
  };
  return [['oversized', OVERSIZED] as const, ['malformed', MALFORMED] as const].flatMap(([kind, head]): Attempt[] => [
    {
      name: `${kind} frames at a worker’s door`,
      by: same('bounded before redemption'),
      run: (driver) => atDoor(driver, head),
      control: { what: 'a server without bounds', run: () => unbounded(head) },
    },
    {
      name: `${kind} frames on the channel to the agent`,
      by: native,
      run: (driver) => atAgent(driver, head),
      control: { what: 'a server without bounds', run: () => unbounded(head) },
    },
  ]);
}

const LEASE_MS = 1_500 * PATIENCE;

/** Asks for more life in every way that code inside has, again and again. */
const FORGING = `
  const forge = () => {
    const text = JSON.stringify({ jsonrpc: '2.0', method: 'heartbeat', params: ['challenge', 'AAAA'] });
    try {
      const bytes = Buffer.from(text); const head = Buffer.alloc(5); head.writeUInt32BE(bytes.length + 1); head[4] = 1;
      process.getBuiltinModule('node:fs').writeSync(4, Buffer.concat([head, bytes]));
    } catch {}
    for (const thing of [globalThis, hauki]) for (const key of Object.getOwnPropertyNames(thing))
      if (/beat|post|send|extend|renew/i.test(key)) try { thing[key]('heartbeat', text); } catch {}
    try { hauki['rpc.heartbeat']?.('challenge', 'AAAA'); } catch {}
  };
  if (!globalThis.calm) setInterval(forge, 100);
  export const here = () => 42;`;

function heartbeat(world: World): Attempt {
  const { local } = world;
  const fateOf = async (worker: string) => {
    const answer = await fetch(`${local.url}/api/v2/ephemeral/${worker}`, {
      headers: { authorization: `Bearer ${local.token}` },
    });
    return ((await answer.json()) as any).fate as { cause: string; reason: string } | undefined;
  };
  return {
    name: 'a heartbeat forged to outlive its caller',
    by: same('a key that the vault never has'),
    async run(driver) {
      const env = { ...process.env, HAUKI_URL: local.url, HAUKI_TOKEN: local.token };
      const options = { driver, lease_ms: LEASE_MS, count: 1, source: FORGING };
      const owner = fork(new URL('../support/owner.ts', import.meta.url), [JSON.stringify(options)], { env });
      const [[worker]] = (await once(owner, 'message')) as [[string]];
      owner.kill('SIGKILL');
      for (const until = Date.now() + 12_000 * PATIENCE; Date.now() < until; await sleep(200)) {
        const fate = await fateOf(worker);
        // Whoever breaks the channel's rules may be ended earlier than that.
        if (fate) return blocked(`${fate.cause}: ${fate.reason}`);
      }
      await world.mesh.destruct(worker).catch(() => {});
      return opened('it lives on');
    },
    control: {
      what: 'heartbeats of a living caller',
      async run() {
        const ghost: any = world.clone('quickjs', 'export const here = () => 42;', { lease_ms: LEASE_MS });
        await ghost.here();
        await sleep(LEASE_MS * 3);
        const outcome = (await ghost.here()) === 42 ? opened('it lives on') : blocked('it does not answer');
        await world.mesh.destruct(ghost);
        return outcome;
      },
    },
  };
}

/** `..` and its spellings, in every name that the API takes. */
function names(world: World): Attempt {
  const { local, facts } = world;
  const up = `../../../../../../../..${facts.secret_file}`;
  const spellings = [
    up,
    encodeURIComponent(up),
    up.replaceAll('../', '..%2f'),
    up.replaceAll('.', '%2e'),
    `..\\${up}`,
    `a/../${up}`,
    `${facts.secret_file}\0`,
  ];
  const source = 'export const a = () => 1;';
  const requests = (name: string): [string, string, unknown?][] => {
    const path = name.includes('%') ? name : encodeURIComponent(name);
    return [
      ...['ephemeral', 'lxc_provision', 'omega_spool', 'tokens'].flatMap((door): [string, string][] => [
        ['GET', `/api/v2/${door}/${path}`],
        ['DELETE', `/api/v2/${door}/${path}`],
      ]),
      ['POST', '/api/v2/lxc_provision', { source, name }],
      ['POST', '/api/v2/lxc_provision', { pointer: `gem-pointer://wiki/${name}` }],
      ['POST', '/api/v2/swarm_spawn_ephemeral', { source, driver: name, audience: 'A'.repeat(43) }],
      ['POST', '/api/v2/swarm_spawn_ephemeral', { pointer: `gem-pointer://${name}`, audience: 'A'.repeat(43) }],
      ['POST', '/api/v2/swarm_spawn_ephemeral', { source, grants: { volume: name }, audience: 'A'.repeat(43) }],
      [
        'POST',
        '/api/v2/swarm_spawn_ephemeral',
        { source, grants: { meshfs: { read: [`gem-pointer://wiki/${name}`] } }, audience: 'A'.repeat(43) },
      ],
      ['POST', '/api/v2/meshfs/resolve', { pointer: `gem-pointer://wiki/${name}` }],
      ['POST', '/api/v2/meshfs/write', { pointer: `gem-pointer://wiki/${name}`, content: 'x' }],
      ['GET', `/api/v2/meshfs/raw?pointer=${encodeURIComponent(`gem-pointer://wiki/${name}`)}`],
      ['GET', `/api/v2/meshfs/list?prefix=${encodeURIComponent(`gem-pointer://wiki/${name}`)}`],
      ['GET', `/dashboard/${path}`],
      ['GET', `/docs/static/${path}`],
    ];
  };
  return {
    name: '.. in every name that the API takes',
    by: { quickjs: 'names have an alphabet; nothing here depends on the driver' },
    async run() {
      let tried = 0;
      for (const spelling of spellings)
        for (const [method, path, body] of requests(spelling)) {
          const answer = await fetch(local.url + path, {
            method,
            headers: {
              authorization: `Bearer ${local.token}`,
              ...(body ? { 'content-type': 'application/json' } : {}),
            },
            ...(body ? { body: JSON.stringify(body) } : {}),
          });
          const text = await answer.text();
          tried++;
          if (text.includes(facts.proof)) return opened(`${method} ${path} told the secret`);
          if (answer.status >= 500 && answer.status !== 503)
            return opened(`${method} ${path} answered ${answer.status}`);
        }
      if (readFileSync(facts.secret_file, 'utf8') !== facts.proof) return opened('the file was written to');
      return blocked(`${tried} requests, none reached the file`);
    },
    control: {
      what: 'a name joined to a folder',
      run: () =>
        judged(facts.proof, async () => {
          const folder = join(facts.folder, 'data');
          writeFileSync(`${folder}.txt`, '');
          return readFileSync(join(folder, up), 'utf8');
        }),
    },
  };
}

export function doorAttempts(world: World): Attempt[] {
  return [
    ...effects(world),
    smuggled(world),
    links(world),
    ungranted(world),
    revoked(world),
    ...others(world),
    ...frames(world),
    heartbeat(world),
    names(world),
  ];
}
