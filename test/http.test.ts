/** The core over plain HTTP: JSON-RPC over the relay, MeshFS with the notes' answers, OpenAPI, the ticket's schema. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { Readable } from 'node:stream';
import { before, describe, it } from 'node:test';
import { TICKET_BODY_SCHEMA, TICKET_SCHEMA } from '@hauki/mesh';
import { makeCallerKey, readTicketBody } from '@hauki/rpc';
import { Compile } from 'typebox/compile';
import { assertAnswer, EXAMPLE_WORKER, EXAMPLES } from '../packages/rpc/test/jsonrpc-examples.ts';
import { useMesh } from './support/mesh.ts';

describe('a worker called by plain JSON-RPC over HTTP', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });
  let url: string;
  before(async () => {
    const ghost = used.mesh.clone({ source: EXAMPLE_WORKER });
    url = `${used.local.url}/api/v2/ephemeral/${(await used.mesh.details(ghost)).worker}`;
  });
  const post = async (body: string): Promise<unknown> => {
    const response = await fetch(url, {
      method: 'POST',
      headers: { authorization: `Bearer ${used.local.token}`, 'content-type': 'application/json' },
      body,
    });
    return response.status === 204 ? undefined : response.json();
  };
  for (const { name, request, expect } of EXAMPLES)
    it(`answers ${name} as the specification says`, async () => {
      const answer = await post(request);
      if (expect === undefined) assert.equal(answer, undefined);
      else assertAnswer(answer, expect);
    });
});

describe('the core over HTTP', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });
  const ask = (path: string, init: RequestInit = {}) =>
    fetch(new URL(path, used.local.url), {
      ...init,
      headers: {
        authorization: `Bearer ${used.local.token}`,
        ...(init.body ? { 'content-type': 'application/json' } : {}),
      },
    });
  const json = async (path: string, init?: RequestInit): Promise<any> => (await ask(path, init)).json();

  it('keeps documents under pointers, with the notes’ answers', async () => {
    const pointer = 'gem-pointer://wiki/atlas/notes';
    const written = await json('/api/v2/meshfs/write', {
      method: 'POST',
      body: JSON.stringify({ pointer, content: '# Notes' }),
    });
    assert.equal(written.status, 'success');
    const found = await json(`/api/v2/meshfs/resolve?pointer=${encodeURIComponent(pointer)}`);
    assert.equal(found.status, 'success');
    assert.equal(found.content, '# Notes');
    assert.equal(found.pointer, 'gem-pointer://wiki/atlas/notes.md');
    assert.equal(readFileSync(`${used.local.data_dir}/core/wiki/atlas/notes.md`, 'utf8'), '# Notes');
  });

  it('tells a missing pointer, an unknown and an impossible one apart', async () => {
    const statuses: [number, string][] = [];
    for (const path of [
      '',
      '?pointer=gem-pointer://wiki/atlas/nothing',
      '?pointer=gem-pointer://wiki/../../etc/passwd',
    ]) {
      const response = await ask(`/api/v2/meshfs/resolve${path}`);
      statuses.push([response.status, ((await response.json()) as any).error.data.name]);
    }
    assert.deepEqual(statuses, [
      [400, 'PointerMissing'],
      [404, 'PointerUnknown'],
      [400, 'PointerInvalid'],
    ]);
  });

  it('describes itself in OpenAPI, to anyone', async () => {
    const response = await fetch(new URL('/docs/json', used.local.url));
    assert.equal(response.status, 200);
    const { openapi, paths } = (await response.json()) as any;
    assert.match(openapi, /^3\./);
    for (const path of [
      '/api/v2/swarm_spawn_ephemeral',
      '/api/v2/ephemeral/{worker}',
      '/api/v2/service_registry',
      '/api/v2/meshfs/write',
      '/health',
    ])
      assert.ok(paths[path], path);
    assert.equal((await fetch(new URL('/docs', used.local.url))).status, 200);
  });

  it('answers /health and its keys without a token', async () => {
    assert.equal(((await (await fetch(new URL('/health', used.local.url))).json()) as any).status, 'ok');
    const { keys } = (await (await fetch(new URL('/.well-known/jwks.json', used.local.url))).json()) as any;
    assert.equal(keys[0].crv, 'Ed25519');
    assert.equal(keys[0].d, undefined, 'the private half stays at home');
  });

  it('gives tickets that meet the published schema to the letter', async () => {
    const published = await json('/api/v2/schemas/ticket.json');
    assert.deepEqual(
      published,
      JSON.parse(JSON.stringify({ delivered: TICKET_SCHEMA, signed_body: TICKET_BODY_SCHEMA })),
    );
    assert.deepEqual(
      JSON.parse(readFileSync(new URL('../docs/ticket.schema.json', import.meta.url), 'utf8')),
      published,
    );
    const { thumbprint } = await makeCallerKey();
    const body = JSON.stringify({
      source: 'export const a = () => 1',
      audience: thumbprint,
      grants: { fetch: ['a.example:443'] },
    });
    const { ticket, worker } = await json('/api/v2/swarm_spawn_ephemeral', { method: 'POST', body });
    const delivered = Compile(published.delivered);
    const signed = Compile(published.signed_body);
    assert.equal(delivered.Check(ticket), true);
    const claims = readTicketBody<Record<string, unknown>>(ticket.signed);
    assert.equal(signed.Check(claims), true, JSON.stringify(signed.Errors(claims)));
    assert.equal(signed.Check({ ...claims, more: 1 }), false);
    assert.equal(signed.Check({ ...claims, worker: undefined }), false);
    assert.equal((await ask(`/api/v2/ephemeral/${worker}`, { method: 'DELETE' })).status, 200);
  });

  it('refuses two hosts, a target of another host and pages that are none of the web’s, and says why', async () => {
    const { hostname, port, host } = new URL(used.local.url);
    const answer = async (target: string, ...headers: string[]) => {
      const socket = connect(Number(port), hostname);
      const lines = [`GET ${target} HTTP/1.1`, ...headers, `Authorization: Bearer ${used.local.token}`];
      socket.end(`${[...lines, 'Connection: close'].join('\r\n')}\r\n\r\n`);
      const text = await new Response(Readable.toWeb(socket) as ReadableStream).text();
      return { status: Number(text.slice(9, 12)), text };
    };
    const own = `Host: ${host}`;
    for (const path of ['/health', '/api/plugins/none/']) {
      const two = await answer(path, own, 'Host: evil.example');
      assert.equal(two.status, 400, two.text);
      assert.match(two.text, /Host header: there is more than one/);
      const elsewhere = await answer(`http://evil.example${path}`, own);
      assert.equal(elsewhere.status, 403, elsewhere.text);
      assert.match(elsewhere.text, /does not answer for the host ..evil\.example/);
      for (const origin of ['chrome-extension://localhost', 'file://localhost']) {
        const page = await answer(path, own, `Origin: ${origin}`);
        assert.equal(page.status, 403, page.text);
        assert.doesNotMatch(page.text, /access-control/i);
      }
    }
    assert.equal((await answer(`http://${host}/health`, own)).status, 200);
    const page = await answer('/health', own, 'Origin: http://localhost:9999');
    assert.match(page.text, /access-control-allow-origin: http:\/\/localhost:9999/);
    assert.match((await answer('/api/plugins/none/%00', own)).text, /the path has a null character \(%00\)/);
    assert.match((await answer('/api/plugins/none/%0', own)).text, /a percent sign that encodes nothing/);
  });

  it('says clearly when its port is taken', async () => {
    const { startCore } = await import('@hauki/cli');
    const { mkdtempSync, rmSync } = await import('node:fs');
    const folder = mkdtempSync('/tmp/hauki-port-');
    const port = Number(new URL(used.local.url).port);
    await assert.rejects(startCore(folder, { port }), /something else listens on 127\.0\.0\.1:\d+/);
    rmSync(folder, { recursive: true });
  });
});
