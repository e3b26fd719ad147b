/** Every route of the core says who may use it, and holds to it: 401 without a token, 403 without the scope. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { SCOPES, type Scope } from '@hauki/protocol';
import { pino } from 'pino';
import { type CoreServer, createCore } from '../src/core.ts';

const OPEN = ['/health', '/.well-known/jwks.json', '/api/v2/schemas/ticket.json'];

describe('the routes of the core', () => {
  let core: CoreServer;
  let url: string;
  let folder: string;
  let admin: string;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'hauki-routes-'));
    core = await createCore({ data_dir: folder, logger: pino({ level: 'silent' }) });
    url = await core.listen('127.0.0.1', 0);
    admin = readFileSync(join(folder, 'admin.token'), 'utf8').trim();
  });
  after(async () => {
    await core.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const ask = async (method: string, path: string, token?: string, body?: unknown) => {
    const answer = await fetch(new URL(path, url), {
      method,
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    return { status: answer.status, text, error: (text.startsWith('{') ? JSON.parse(text).error : undefined) as any };
  };
  const tokenFor = async (...scopes: Scope[]): Promise<string> => {
    const { text } = await ask('POST', '/api/v2/tokens', admin, { name: 'test', scopes });
    return JSON.parse(text).token;
  };
  /** All that are for somebody, with a path that can be asked for. */
  const guarded = () =>
    core.routes
      .filter(({ access }) => access !== 'open')
      .map((route) => ({ ...route, path: route.url.replaceAll(/:\w+/g, 'w-1').replaceAll('*', 'x') }));

  it('are many, and each declares its scope, or that it is open', () => {
    assert.ok(guarded().length >= 12, `${guarded().length}`);
    for (const { method, url: path, access } of core.routes) {
      assert.notEqual(access, undefined, `${method} ${path} declares no scope: add config: { scope } to it`);
      if (access === 'open') assert.ok(OPEN.includes(path) || path.startsWith('/docs'), `${path} is open`);
      else if (access !== 'any') for (const scope of [access!].flat()) assert.ok(scope in SCOPES, `${path}: ${scope}`);
    }
  });

  it('are all described, each with what it answers where all goes well, and with errors', async () => {
    const { paths } = JSON.parse((await ask('GET', '/docs/json')).text) as {
      paths: Record<string, Record<string, { responses: Record<string, { description: string }>; security?: [] }>>;
    };
    const described = Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, told]) => ({ route: `${method.toUpperCase()} ${path}`, ...told })),
    );
    // What HEAD answers is said of GET; but where it takes what GET does not.
    const served = core.routes
      .filter(({ method, url: path }) => !path.startsWith('/docs') && (method !== 'HEAD' || path.endsWith('/raw')))
      .map(({ method, url: path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`);
    assert.deepEqual(described.map(({ route }) => route).sort(), served.sort());
    for (const { route, responses, security } of described) {
      assert.ok(
        Object.keys(responses).some((status) => status.startsWith('2')),
        route,
      );
      assert.ok(responses.default, route);
      assert.equal(security !== undefined, OPEN.includes(route.split(' ')[1]!), `whether ${route} is open`);
    }
  });

  it('answer nobody without a token, or with one that is not known', async () => {
    for (const { method, path } of guarded())
      for (const token of [undefined, `hauki_${'x'.repeat(43)}`]) {
        const { status, text } = await ask(method, path, token);
        assert.equal(status, 401, `${method} ${path}`);
        if (method !== 'HEAD') assert.match(text, /"Unauthorised"/);
      }
  });

  it('refuse a token with every scope but the one they need, naming it', async () => {
    const all = (Object.keys(SCOPES) as Scope[]).filter((scope) => scope !== 'admin' && scope !== 'node');
    const tried = new Map<string, string>();
    for (const { method, path, access } of guarded()) {
      if (access === 'any' || access === 'open') continue;
      const needed = [access!].flat();
      const others = all.filter((scope) => !needed.some((n) => n === scope || n.startsWith(`${scope}.`)));
      const key = others.join();
      if (!tried.has(key)) tried.set(key, await tokenFor(...others));
      const { status, error } = await ask(method, path, tried.get(key));
      assert.equal(status, 403, `${method} ${path} with ${key}`);
      if (method !== 'HEAD') assert.equal(error.data.fields.scope, needed.join(' or '));
      // Positive control: with the scope alone it is past the door, whatever it finds there.
      const holder = await tokenFor(needed[0]!);
      // These answer for as long as they are listened to.
      if (!/\/(events|watch)$/.test(path)) {
        const passed = await ask(method, path, holder);
        assert.ok(passed.error?.data?.fields?.scope === undefined || passed.status !== 403, `${method} ${path}`);
      }
    }
    assert.ok(tried.size > 3);
  });

  it('refuse the node’s token everything', async () => {
    const node = readFileSync(join(folder, 'node.token'), 'utf8').trim();
    for (const { method, path, access } of guarded())
      if (access !== 'any') assert.equal((await ask(method, path, node)).status, 403, `${method} ${path}`);
  });

  it('upgrade nobody without the scope', async () => {
    const caller = await tokenFor('call');
    const reader = await tokenFor('read');
    const upgrade = (path: string, token?: string) =>
      new Promise<number>((resolve, reject) => {
        const headers = {
          connection: 'Upgrade',
          upgrade: 'hauki',
          ...(token ? { authorization: `Bearer ${token}` } : {}),
        };
        const asked = httpRequest(new URL(path, url), { headers });
        asked.on('response', (answer) => {
          answer.resume();
          resolve(answer.statusCode!);
        });
        asked.on('upgrade', (_answer, socket) => {
          socket.destroy();
          resolve(101);
        });
        asked.on('error', reject);
        asked.end();
      });
    const forNodes = ['/api/v2/node/link', '/api/v2/node/splice/x', '/api/v2/kernel/link'];
    for (const path of [...forNodes, '/api/v2/swarm_link', '/api/v2/ephemeral/w-1'])
      assert.equal(await upgrade(path), 401, path);
    for (const token of [caller, reader]) assert.equal(await upgrade('/api/v2/swarm_link', token), 403);
    for (const path of forNodes)
      for (const token of [admin, caller, reader]) assert.equal(await upgrade(path, token), 403, path);
    assert.equal(await upgrade('/api/v2/ephemeral/w-1', caller), 404, 'there is no such worker');
    const node = readFileSync(join(folder, 'node.token'), 'utf8').trim();
    assert.equal(await upgrade('/api/v2/node/link', node), 101, 'positive control');
  });
});
