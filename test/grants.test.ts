/** What a worker may do in the world, from a script through a real mesh to real servers on loopback, for each driver. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, createServer as createTcp, type Socket, type Server as TcpServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { DeadlineExceeded, GrantMissing, isError, Overloaded, withOptions } from '@hauki/mesh';
import { readTicketBody } from '@hauki/rpc';
import { DRIVERS, missing, until, useMesh } from './support/mesh.ts';

const SOURCE = `
  export const get = async (url, init) => { const r = await fetch(url, init); return [r.status, await r.text()]; };
  export const head = async (url) => (await fetch(url)).status;
  export async function* pass(url) { for await (const piece of (await fetch(url)).body) yield piece; }
  export const put = async (url, pieces) => (await fetch(url, { method: 'PUT', body: pieces })).text();
  export const count = async (url) => {
    let bytes = 0;
    for await (const piece of (await fetch(url)).body) bytes += piece.length;
    return bytes;
  };
  export const giveUp = async (url, ms) => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Error('enough')), ms);
    return (await fetch(url, { signal: controller.signal })).text();
  };
  const open = new Map();
  export const dial = async (name, target) => { open.set(name, await hauki.connect(target)); };
  export const write = (name, text) => open.get(name).write(text);
  export const finish = (name) => open.get(name).end();
  export const hear = async (name) => {
    let text = '';
    for await (const piece of open.get(name).readable) text += String.fromCharCode(...piece);
    return text;
  };
  export const pump = async (name, pieces, size) => {
    const connection = open.get(name);
    let back = 0;
    const reading = (async () => { for await (const piece of connection.readable) back += piece.length; })();
    for (let i = 0; i < pieces; i++) await connection.write(new Uint8Array(size).fill(i));
    connection.end();
    await reading;
    return back;
  };
  const seen = (value, depth = 0, met = new Set()) => {
    if (typeof value === 'string') return value;
    if (typeof value !== 'object' && typeof value !== 'function' || value === null || depth > 4 || met.has(value)) return '';
    met.add(value);
    return Reflect.ownKeys(value).map((key) => { try { return seen(value[key], depth + 1, met); } catch { return ''; } }).join(' ');
  };
  export const clock = () => [Date.now(), new Date().getTime(), performance.now()].every((n) => n > 0);
  export const dates = () => [new Date(0).toISOString(), Date.UTC(2026, 0), new Date(5) instanceof Date, new Date('2026-01-01').getTime()];
  export const dice = () => [Math.random(), crypto.randomUUID().length, crypto.getRandomValues(new Uint8Array(4)).length];
  export const one = (code) => new Function('return ' + code)();
  export const rest = (ms) => new Promise((resolve) => setTimeout(resolve, ms, 'rested'));
  export const look = () => seen(globalThis) + seen(hauki);
`;
interface Reacher {
  get(url: string, init?: object): [number, string];
  head(url: string): number;
  pass(url: string): AsyncIterable<Uint8Array>;
  put(url: string, pieces: AsyncIterable<Uint8Array>): string;
  count(url: string): number;
  giveUp(url: string, ms: number): string;
  dial(name: string, target: string): void;
  write(name: string, text: string): void;
  finish(name: string): void;
  hear(name: string): string;
  pump(name: string, pieces: number, size: number): number;
  look(): string;
  clock(): boolean;
  dates(): unknown[];
  dice(): number[];
  one(code: string): unknown;
  rest(ms: number): string;
}
interface Asker {
  fetched(url: string): string;
  read(): string;
}
const origin = { source: SOURCE };
const VALUE = 'tok3n-that-nobody-sees';
/** Where nobody listens. */
const GONE = '127.0.0.1:1';

const servers: (Server | TcpServer)[] = [];
const sockets = new Set<Socket>();
const keep = async (server: Server | TcpServer) => {
  servers.push(server);
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
};
const heard: { url: string; authorization: string | undefined; body: string }[] = [];
const gone: string[] = [];
const SIZE = 12 * 1024 * 1024;

const serve: RequestListener = async (request, response) => {
  const { url = '', headers } = request;
  response.on('close', () => gone.push(url));
  if (url === '/large') return void response.end(Buffer.alloc(SIZE, 1));
  if (url === '/slow') return void response.write('begins');
  if (url === '/utf8') return void response.end('äöü € 🐟');
  let body = '';
  for await (const chunk of request) body += chunk;
  heard.push({ url, authorization: headers.authorization, body });
  if (url === '/echo') return void response.end(headers.authorization);
  if (url.startsWith('/to?'))
    return void response.writeHead(302, { location: url.slice(4).replace('SECRET', VALUE) }).end();
  response.end(`${request.method} ${body.length}`);
};

describe('grants', () => {
  let host: string;
  let other: string;
  let echo: string;
  before(async () => {
    host = await keep(createServer(serve));
    other = await keep(createServer(serve));
    echo = await keep(createTcp((socket) => socket.pipe(socket)));
  });
  after(() => {
    for (const socket of sockets) socket.destroy();
    for (const server of servers) server.close();
  });

  for (const driver of DRIVERS)
    describe(`in ${driver} vaults`, { skip: missing(driver) }, () => {
      const used = useMesh({ nodes: [{ drivers: [driver] }] });
      const clone = (grants: object, more: object = {}) =>
        used.mesh.clone<Reacher>(origin, { driver, grants, ...more });

      it('let a worker fetch what they name, by method and rate, in whole and piece by piece', async () => {
        const worker = clone({ fetch: [{ to: host, methods: ['GET', 'PUT'], per_minute: 7 }] });
        assert.deepEqual(await worker.get(`http://${host}/utf8`), [200, 'äöü € 🐟']);
        await assert.rejects(worker.get(`http://${host}/x`, { method: 'POST' }), (e) => {
          return isError(e, GrantMissing) && e.fields.wanted === `POST ${host}`;
        });
        await assert.rejects(worker.get(`http://${other}/x`), (e) => isError(e, GrantMissing));
        assert.equal(await worker.count(`http://${host}/large`), SIZE);
        let bytes = 0;
        for await (const piece of await worker.pass(`http://${host}/large`)) bytes += piece.length;
        assert.equal(bytes, SIZE);
        const pieces = (async function* () {
          for (let i = 0; i < 40; i++) yield new Uint8Array(50_000);
        })();
        assert.equal(await worker.put(`http://${host}/put`, pieces), 'PUT 2000000');
        await assert.rejects(worker.giveUp(`http://${host}/slow`, 200), /enough/);
        await until('the server sees it go', () => gone.includes('/slow'));
        await worker.head(`http://${host}/utf8`);
        await worker.head(`http://${host}/utf8`);
        await assert.rejects(worker.head(`http://${host}/utf8`), (e) => isError(e, Overloaded));
        gone.length = 0;
      });

      it('are refused with the line of the worker that asked', async () => {
        const source = `
          export const tried = async (ask) => ask().then(() => 'it was allowed', (error) => error.stack);
          export const fetched = async (url) =>
            tried(async () => fetch(url));
          export const read = async () =>
            tried(async () => hauki.volume.read('file'));`;
        const worker = used.mesh.clone<Asker>({ source }, { driver, grants: { fetch: [GONE] } });
        for (const [stack, why, line] of [
          [await worker.fetched(`http://${other}/`), 'GrantMissing: .*', 4],
          [await worker.fetched(`http://${GONE}/`), 'RemoteError: fetch failed: .*', 4],
          [await worker.read(), 'GrantMissing: .*', 6],
        ] as const)
          assert.match(stack, new RegExp(`^${why}\\n +at [^\\n]*worker\\.mjs:${line}:`));
      });

      it('count what a worker has fetched', async () => {
        const worker = clone({ fetch: [host] });
        assert.equal(await worker.count(`http://${host}/large`), SIZE);
        await worker.get(`http://${host}/utf8`);
        const { worker: name } = await used.mesh.details(worker);
        const { usage } = (await used.mesh.registry()).workers.find((one) => one.worker === name)!;
        assert.equal(usage!.fetched_bytes, SIZE + Buffer.byteLength('äöü € 🐟'));
      });

      it('let a worker talk over a byte stream', async () => {
        const worker = clone({ connect: [echo] });
        await worker.dial('a', echo);
        await worker.write('a', 'NICK pike\r\n');
        await worker.write('a', 'äö');
        await worker.finish('a');
        assert.equal(Buffer.from(await worker.hear('a'), 'latin1').toString(), 'NICK pike\r\näö');
        await worker.dial('b', echo);
        assert.equal(await worker.pump('b', 40, 100_000), 4_000_000);
        await assert.rejects(worker.dial('c', host), (e) => isError(e, GrantMissing) && e.fields.grant === 'connect');
        const earlier = new Set(sockets);
        const later = () => [...sockets].filter((socket) => !earlier.has(socket));
        await worker.dial('d', echo);
        await until('the other end has it', () => later().length > 0);
        await used.mesh.destruct(worker);
        await until('its connections end with it', () => later().every((socket) => socket.destroyed));
      });

      it('let a worker send a secret that it never sees', async () => {
        const secrets = { TOKEN: { value: VALUE, to: [host] } };
        const worker = clone({ fetch: [host, other] }, { secrets, ttl_ms: 60_000 });
        const headers = { authorization: 'Bearer {{secret:TOKEN}}' };
        heard.length = 0;
        await worker.get(`http://${host}/a`, { method: 'POST', headers, body: '<{{secret:TOKEN}}>' });
        assert.deepEqual(heard, [{ url: '/a', authorization: `Bearer ${VALUE}`, body: `<${VALUE}>` }]);
        const said: string[] = [await worker.look()];
        const refused = async (call: Promise<unknown>) => {
          const error: Error = await call.then(
            () => assert.fail('it was not refused'),
            (thrown) => thrown,
          );
          said.push(error.message, String(error.stack), JSON.stringify(error), JSON.stringify(error.cause ?? null));
        };
        await refused(worker.get(`http://${other}/b`, { headers }));
        await refused(worker.get(`http://${host}/to?http://SECRET.example/`, { headers }));
        await refused(worker.get(`http://${host}/to?x:SECRET`, { headers }));
        // A URL takes none: it would go as it stands.
        for (const url of [`http://${host}/?key={{secret:TOKEN}}`, `http://${host}/{{secret:TOKEN}}/`])
          await assert.rejects(worker.get(url), /a secret goes into a header or the body/);
        // To another granted host it does not go along.
        await worker.get(`http://${host}/to?http://${other}/c`, { headers });
        assert.equal(heard.at(-1)!.authorization, undefined);

        // It stands in nothing that anybody is told, and in no file.
        const { worker: name } = await used.mesh.details(worker);
        const answer = async (path: string, init: RequestInit = {}) => {
          const authorization = { authorization: `Bearer ${used.local.token}`, 'content-type': 'application/json' };
          return (await fetch(`${used.local.url}${path}`, { ...init, headers: authorization })).text();
        };
        const audience = JSON.stringify({ audience: 'A'.repeat(43) });
        const ticket = await answer(`/api/v2/ephemeral/${name}/ticket`, { method: 'POST', body: audience });
        const claims = readTicketBody<{ grants: object }>(JSON.parse(ticket).ticket.signed);
        assert.deepEqual((claims.grants as any).secrets, [{ name: 'TOKEN', to: [host] }]);
        said.push(ticket, JSON.stringify(claims), await answer('/api/v2/service_registry'));
        said.push(await answer(`/api/v2/ephemeral/${name}`), await answer('/api/v2/events/recent?limit=1000'));
        const bad = { source: 'x', audience: 'A'.repeat(43), secrets: { TOKEN: { value: VALUE, to: ['nowhere'] } } };
        said.push(await answer('/api/v2/swarm_spawn_ephemeral', { method: 'POST', body: JSON.stringify(bad) }));
        const odd = { ...bad, secrets: { TOKEN: { value: [VALUE], to: VALUE } } };
        said.push(await answer('/api/v2/swarm_spawn_ephemeral', { method: 'POST', body: JSON.stringify(odd) }));
        await used.mesh.destruct(worker);
        said.push(await answer(`/api/v2/ephemeral/${name}`), used.log());
        for (const file of readdirSync(used.local.data_dir, { recursive: true, withFileTypes: true }))
          if (file.isFile()) said.push(readFileSync(join(file.parentPath, file.name), 'latin1'));
        assert.ok(said.length > 20);
        for (const text of said) assert.ok(!text.includes(VALUE), text.slice(0, 300));
        // What a server tells is the server's: nothing is promised there.
        const echoing = clone({ fetch: [host] }, { secrets });
        assert.deepEqual(await echoing.get(`http://${host}/echo`, { headers }), [200, `Bearer ${VALUE}`]);
      });

      it('tell the time and give entropy only where they say so', async () => {
        const bare = clone({});
        for (const [code, grant] of [
          ['Date.now()', 'time'],
          ['new Date()', 'time'],
          ['Date()', 'time'],
          ['performance.now()', 'time'],
          ['Math.random()', 'random'],
          ['crypto.randomUUID()', 'random'],
          ['crypto.getRandomValues(new Uint8Array(4))', 'random'],
        ])
          await assert.rejects(bare.one(code!), (e) => {
            return (
              isError(e, GrantMissing) && e.fields.grant === grant && e.fields.wanted.startsWith(code!.slice(0, 8))
            );
          });
        const given = ['1970-01-01T00:00:00.000Z', Date.UTC(2026, 0), true, Date.UTC(2026, 0)];
        assert.deepEqual(await bare.dates(), given);
        // Its sessions, deadlines and timers go on by a clock of their own.
        assert.equal(await withOptions(bare, { timeout_ms: 10_000 }).rest(20), 'rested');
        assert.deepEqual(await bare.one('new Date(7)'), new Date(7));
        await assert.rejects(withOptions(bare, { timeout_ms: 100 }).rest(60_000), (e) => isError(e, DeadlineExceeded));
        // With a key that is given nothing is drawn, but to make one is. Quickjs has nothing but hashes and HMAC.
        const bytes = (length: number) => `new Uint8Array(${length})`;
        const imported = (name: string, use: string) =>
          `crypto.subtle.importKey('raw', ${bytes(16)}, '${name}', false, ['${use}'])`;
        const sealed = `crypto.subtle.encrypt({ name: 'AES-GCM', iv: ${bytes(12)} }, key, ${bytes(1)})`;
        const derived = `crypto.subtle.deriveBits({ name: 'PBKDF2', hash: 'SHA-1', salt: ${bytes(1)}, iterations: 1 }, key, 64)`;
        if (driver !== 'quickjs')
          for (const [key, what, length] of [
            [imported('AES-GCM', 'encrypt'), sealed, 17],
            [imported('PBKDF2', 'deriveBits'), derived, 8],
          ])
            assert.equal(await bare.one(`${key}.then((key) => ${what}).then((made) => made.byteLength)`), length);
        const drawn = "(async () => crypto.subtle.generateKey({ name: 'HMAC', hash: 'SHA-1' }, true, ['sign']))()";
        await assert.rejects(bare.one(drawn), (e) => isError(e, GrantMissing) && e.fields.grant === 'random');
        const told = clone({ time: true, random: true });
        assert.equal(await told.clock(), true);
        assert.deepEqual(await told.dates(), given);
        const [random, uuid, filled] = await told.dice();
        assert.ok(random! >= 0 && random! < 1 && uuid === 36 && filled === 4);
      });

      it('keep what a lasting worker’s secret is out of every view of it', async () => {
        const secrets = { TOKEN: { value: VALUE, to: [host] } };
        const name = `keeper-${driver}`;
        await used.mesh.provision(origin, { driver, grants: { fetch: [host] }, secrets, name });
        const worker = used.mesh.visit<Reacher>(name);
        const headers = { authorization: '{{secret:TOKEN}}' };
        heard.length = 0;
        await worker.get(`http://${host}/lasting`, { headers });
        assert.equal(heard[0]!.authorization, VALUE);
        const shown = JSON.stringify([await used.mesh.lasting.list(), await used.mesh.lasting.get(name)]);
        assert.ok(shown.includes('TOKEN') && !shown.includes(VALUE), shown);
        const job = await used.mesh.spool(origin, {
          ...{ driver, grants: { fetch: [host] }, secrets, method: 'get' },
          params: [`http://${host}/spooled`, { headers }],
        });
        assert.deepEqual(await job.result({ timeout_ms: 30_000 }), [200, 'GET 0']);
        assert.equal(heard.at(-1)!.authorization, VALUE);
        assert.ok(!JSON.stringify([await job.state(), await used.mesh.jobs.list()]).includes(VALUE));
        await used.mesh.lasting.delete(name);
        assert.ok(!used.log().includes(VALUE));
      });
    });
});
