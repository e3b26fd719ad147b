/** Tokens, Host and Origin: who may ask the core for anything. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { BadInput, type ErrorClass, Forbidden, isError, Unauthorised } from '@hauki/protocol';
import { Auth } from '../src/auth.ts';
import { ADMIN, NODE } from '../src/rights.ts';

const folders: string[] = [];
const folder = () => {
  const made = mkdtempSync(join(tmpdir(), 'hauki-auth-'));
  folders.push(made);
  return made;
};
after(() => {
  for (const made of folders) rmSync(made, { recursive: true, force: true });
});

const open = (hosts: string[] = []) => {
  const dir = folder();
  const auth = new Auth(dir, hosts);
  const token = (scope: string) => readFileSync(join(dir, `${scope}.token`), 'utf8').trim();
  return { dir, auth, admin: token('admin'), node: token('node') };
};

const asks = (headers: Record<string, string | undefined>, more: object = {}) =>
  ({
    headers,
    rawHeaders: Object.entries(headers).flat(),
    url: '/',
    socket: {},
    ...more,
  }) as unknown as IncomingMessage;
const bearer = (token: string) => asks({ authorization: `Bearer ${token}` });

const refuses = (run: () => unknown, kind: ErrorClass<any>, pattern: RegExp) =>
  assert.throws(run, (thrown) => {
    assert.ok(isError(thrown, kind), `expected ${kind.row.name}, got ${thrown}`);
    assert.match((thrown as Error).message, pattern);
    return true;
  });

describe('the token files', () => {
  it('are made at the first start, for the owner alone, with nothing left beside them', () => {
    const { dir, admin, node } = open();
    assert.deepEqual(readdirSync(dir).sort(), ['admin.token', 'node.token']);
    for (const name of ['admin.token', 'node.token'])
      assert.equal((statSync(join(dir, name)).mode & 0o777).toString(8), '600');
    assert.match(admin, /^hauki_[A-Za-z0-9_-]{43}$/);
    assert.notEqual(admin, node);
    assert.notEqual(admin, open().admin);
  });

  it('are for the owner alone whatever the umask', () => {
    const before = process.umask(0);
    try {
      const { dir } = open();
      assert.equal(statSync(join(dir, 'admin.token')).mode & 0o777, 0o600);
    } finally {
      process.umask(before);
    }
  });

  it('survive a restart, and are not written again', () => {
    const { dir, admin } = open();
    chmodSync(join(dir, 'admin.token'), 0o400);
    const again = new Auth(dir, []);
    assert.equal(again.principal(bearer(admin)).id, 'admin');
    assert.equal(readFileSync(join(dir, 'admin.token'), 'utf8').trim(), admin);
  });

  it('are made although a crashed start left its temporary file', () => {
    const dir = folder();
    writeFileSync(join(dir, 'admin.token.tmp'), 'half a tok', { mode: 0o600 });
    const auth = new Auth(dir, []);
    const token = readFileSync(join(dir, 'admin.token'), 'utf8').trim();
    assert.match(token, /^hauki_/);
    assert.equal(auth.principal(bearer(token)).id, 'admin');
  });

  it('that are empty or damaged are refused at the start, named, with what to do, and left as they are', () => {
    for (const [name, text, why] of [
      ['admin', '', /is empty.*remove the file and start again/],
      ['admin', ' \n', /is empty/],
      ['node', '', /is empty/],
      ['admin', '\0'.repeat(50), /is damaged/],
      ['node', 'two words', /is damaged/],
    ] as const) {
      const dir = folder();
      const file = join(dir, `${name}.token`);
      writeFileSync(file, text);
      refuses(() => new Auth(dir, []), BadInput, why);
      refuses(() => new Auth(dir, []), BadInput, new RegExp(`^${RegExp.escape(file)}: `));
      assert.equal(readFileSync(file, 'utf8'), text);
    }
  });

  it('let nobody in who sends an empty token', () => {
    const { auth } = open();
    for (const authorization of ['Bearer ', 'Bearer', 'Bearer  '])
      refuses(() => auth.principal(asks({ authorization })), Unauthorised, /Bearer/);
    refuses(() => auth.bearer(''), Unauthorised, /not known here/);
  });
});

describe('a request', () => {
  it('with the right token is its principal’s, however the scheme is written', () => {
    const { auth, admin, node } = open();
    assert.equal(auth.principal(bearer(admin)), ADMIN);
    assert.equal(auth.principal(asks({ authorization: `bearer ${admin}` })), ADMIN);
    assert.equal(auth.principal(bearer(node), 'node'), NODE);
    assert.equal(auth.bearer(admin), ADMIN, 'also where the token came in a first frame');
  });

  it('without a token, with a malformed or with a wrong one is refused, each in its own words', () => {
    const { auth, admin } = open();
    refuses(() => auth.principal(asks({})), Unauthorised, /A token is needed.*hauki token/);
    for (const authorization of [
      '',
      admin,
      `Basic ${admin}`,
      `Bearer${admin}`,
      `Bearer  ${admin}`,
      `Bearer ${admin} x`,
      `Bearer ${admin}, Bearer ${admin}`,
      `Bearer ${'x'.repeat(257)}`,
      'Bearer tökén',
    ])
      refuses(() => auth.principal(asks({ authorization })), Unauthorised, /is not "Bearer <token>"/);
    for (const token of ['x', `${admin}x`, admin.slice(0, -1), admin.toUpperCase(), 'hauki_', 'undefined'])
      refuses(() => auth.principal(bearer(token)), Unauthorised, /not known here/);
  });

  it('is never answered with a token', () => {
    const { auth, admin, node } = open();
    const messages: string[] = [];
    for (const request of [asks({}), bearer(`${admin}x`), bearer(node), asks({ authorization: admin })])
      try {
        auth.principal(request);
      } catch (thrown) {
        messages.push((thrown as Error).message);
      }
    assert.equal(messages.length, 4);
    for (const message of messages) assert.ok(!message.includes(admin.slice(6)) && !message.includes(node.slice(6)));
  });

  it('with a node’s token does nothing but what nodes do, and an admin is no node', () => {
    const { auth, admin, node } = open();
    refuses(() => auth.principal(bearer(node)), Forbidden, /needs a token with the scope admin; this one has node/);
    refuses(
      () => auth.principal(bearer(node), 'admin'),
      Forbidden,
      /needs a token with the scope admin; this one has node/,
    );
    refuses(() => auth.principal(bearer(admin), 'node'), Forbidden, /may not be a node/);
  });

  it('passes no door that declares no scope, whoever asks', () => {
    const { auth, admin, node } = open();
    refuses(() => auth.admit(bearer(admin), {}, 'GET /x'), Forbidden, /GET \/x declares no scope/);
    refuses(() => auth.admit(asks({}), { scope: 'any' }, 'GET /x'), Unauthorised, /A token is needed/);
    assert.equal(auth.admit(bearer(node), { scope: 'any' }, 'GET /x'), NODE);
    assert.equal(auth.admit(asks({}), { open: true }, 'GET /x'), undefined);
  });
});

describe('Host and Origin', () => {
  const { auth } = open(['Mesh.Example.org']);

  it('of loopback and of the names given are taken, with any port', () => {
    for (const host of ['localhost', 'localhost:8000', '127.0.0.1:1', '[::1]', '[::1]:8000', 'MESH.example.ORG:443'])
      auth.checkOrigin(asks({ host }));
    for (const origin of ['http://localhost:3000', 'http://127.0.0.1', 'http://[::1]:5', 'https://mesh.example.org'])
      auth.checkOrigin(asks({ host: 'localhost', origin }));
  });

  it('of others are refused, naming them', () => {
    for (const host of [
      undefined,
      '',
      'evil.example',
      'localhost.evil.example',
      'evil.example:8000',
      '127.0.0.1.evil.example',
      '127.0.0.2',
      '0.0.0.0',
      'localhost:8000:8000',
      'localhost@evil.example',
      '::1',
    ])
      refuses(() => auth.checkOrigin(asks({ host })), Forbidden, /does not answer for the host/);
    for (const origin of [
      'null',
      '',
      'https://evil.example',
      'http://localhost.evil.example',
      'http://localhost@evil.example',
      'file://',
      'not a url',
      'data:text/html,x',
      'chrome-extension://localhost',
      'file://localhost',
      'ws://localhost',
      'localhost',
    ])
      refuses(() => auth.checkOrigin(asks({ host: 'localhost', origin })), Forbidden, /Requests from pages of/);
  });

  it('that are two, or another in the target, are refused', () => {
    const host = 'localhost';
    for (const rawHeaders of [
      ['Host', host, 'host', 'evil.example'],
      ['host', host, 'HOST', host],
    ])
      refuses(() => auth.checkOrigin(asks({ host }, { rawHeaders })), BadInput, /Host header: there is more than one/);
    auth.checkOrigin(asks({ host }, { rawHeaders: ['Host', host, 'X-A', 'host'] }));
    for (const url of ['http://localhost:8000/health', 'HTTPS://mesh.example.org/', '*', '/http://evil.example/'])
      auth.checkOrigin(asks({ host }, { url }));
    for (const url of [
      'http://evil.example/health',
      'https://localhost@evil.example/',
      'http:///x',
      'http://',
      'http:x',
    ])
      refuses(() => auth.checkOrigin(asks({ host }, { url })), Forbidden, /does not answer for the host/);
  });
});
