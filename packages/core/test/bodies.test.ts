/**
 * How long a request's body may take: raw content as long as it moves, any other until its deadline; and how much of
 * large ones may be coming in.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { LIMITS } from '@hauki/protocol';
import { pino } from 'pino';
import { type CoreServer, createCore } from '../src/core.ts';
import { HTTP_LIMITS } from '../src/limits.ts';

/** A core for the tests of a block. */
function useCore(options: { body_ms?: number; connections?: number } = {}) {
  let core: CoreServer;
  let url: string;
  let folder: string;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'hauki-bodies-'));
    core = await createCore({ data_dir: folder, logger: pino({ level: 'silent' }), ...options });
    url = await core.listen('127.0.0.1', 0);
  });
  after(async () => {
    await core.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const admin = () => readFileSync(join(folder, 'admin.token'), 'utf8').trim();
  /** Sends the first bytes. */
  const begin = (method: string, path: string, type: string, length = 10, token = admin()): ClientRequest => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': type, 'content-length': length };
    const sending = httpRequest(new URL(path, url), { method, headers });
    sending.on('error', () => {});
    sending.write('{"a":');
    return sending;
  };
  return Object.assign(begin, {
    async makeToken(by = admin()): Promise<string> {
      const headers = { authorization: `Bearer ${by}`, 'content-type': 'application/json' };
      const body = JSON.stringify({ name: 'test', scopes: ['meshfs.write', 'call', 'tokens'] });
      const answer = await fetch(new URL('/api/v2/tokens', url), { method: 'POST', headers, body });
      return ((await answer.json()) as { token: string }).token;
    },
  });
}

const answerOf = async (sending: ClientRequest): Promise<[number, any]> => {
  const [answer] = (await once(sending, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of answer) text += chunk;
  return [answer.statusCode!, JSON.parse(text)];
};

describe('the body of a request', () => {
  // Longer than what is raw takes to be begun, on a busy machine.
  const begin = useCore({ body_ms: 1_000 });

  it('is cut off at its deadline with a typed error, but goes on where it is raw content that moves', async () => {
    const raw = begin('PUT', '/api/v2/meshfs/raw?pointer=gem-pointer://data/slow', 'application/octet-stream');
    const piece = begin('PUT', '/api/v2/meshfs/raw?pointer=gem-pointer://data/part&upload=upload-1', 'text/plain');
    piece.destroy();
    const refused = [
      ['POST', '/api/v2/meshfs/write'],
      ['POST', '/api/v2/tokens'],
      ['DELETE', '/api/v2/meshfs/raw?pointer=gem-pointer://data/none'],
      ['POST', '/api/plugins/none/x'],
    ].map(async ([method = '', path = '']) => {
      const endless = begin(method, path, 'application/json');
      const closed = once(endless, 'close');
      const [status, { error }] = await answerOf(endless);
      if (method === 'POST') assert.deepEqual([status, error.data.name], [400, 'BadInput'], path);
      await closed;
    });
    await Promise.all(refused);
    raw.end('12345');
    const [status, written] = await answerOf(raw);
    assert.deepEqual([status, written.bytes], [201, 10]);
  });
});

describe('large bodies of requests', () => {
  const begin = useCore();

  it('are bounded together while they come in, but for raw content, which is not held', async () => {
    const path = '/api/v2/meshfs/write';
    const json = 'application/json';
    const large = HTTP_LIMITS.small_body_bytes + 1;
    const raw = begin('PUT', '/api/v2/meshfs/raw?pointer=gem-pointer://data/raw', 'application/octet-stream', large);
    const most = HTTP_LIMITS.bodies_bytes / LIMITS.body_bytes;
    const coming = Array.from({ length: most }, () => begin('POST', path, json, LIMITS.body_bytes));
    /** The name of the error that such a body is answered with, once it has come. */
    const refusal = async (length: number) => {
      const sending = begin('POST', path, json, length);
      sending.end(' '.repeat(length - 5));
      return (await answerOf(sending))[1].error.data.name;
    };
    while ((await refusal(large)) !== 'Overloaded');
    assert.equal(await refusal(10), 'BadInput');
    raw.end('x'.repeat(large - 5));
    assert.equal((await answerOf(raw))[0], 201);
    for (const sending of coming) sending.destroy();
    while ((await refusal(large)) !== 'BadInput');
    // Many that are not so large are a burst of clones.
    const burst = Array.from({ length: 2 * most }, () => begin('POST', path, json, large));
    assert.equal(await refusal(large), 'BadInput');
    for (const sending of burst) sending.destroy();
  });
});

describe('small bodies that do not come', () => {
  const most = 64;
  const begin = useCore({ connections: most });

  it('leave connections to others, and no token all that they may take', async () => {
    const json = 'application/json';
    const [one, another] = [await begin.makeToken(), await begin.makeToken()];
    const below = await begin.makeToken(one);
    /** Begins so many bodies and two more, with these tokens in turn; resolves when two are refused. */
    const fill = async (count: number, path: string, ...tokens: string[]) => {
      const refused = Array.from({ length: count + 2 }, (_, i) => {
        const sending = begin('POST', path, json, 10, tokens[i % tokens.length]!);
        return answerOf(sending).then(([status, { error }]) => {
          assert.deepEqual([status, error.data.name], [429, 'Overloaded']);
          sending.destroy();
        });
      });
      const { promise: two, resolve } = Promise.withResolvers<void>();
      let seen = 0;
      for (const one of refused)
        one.then(
          () => ++seen === 2 && resolve(),
          () => {},
        );
      await two;
      assert.equal(await ask(), 400, 'an admin is served');
      assert.equal(seen, 2);
    };
    const ask = async (token?: string) => {
      const sending = begin('POST', '/api/v2/meshfs/write', json, 7, token);
      sending.end('1}');
      return (await answerOf(sending))[0];
    };
    await fill(most / 4, '/api/v2/meshfs/write', one, below);
    await fill(most / 8, '/api/plugins/none/x', another);
    assert.equal(await ask(await begin.makeToken()), 400, 'a third token is served');
  });
});
