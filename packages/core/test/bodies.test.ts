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
function useCore(options: { body_ms?: number } = {}) {
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
  /** Sends the first bytes. */
  return (method: string, path: string, type: string, length = 10): ClientRequest => {
    const token = readFileSync(join(folder, 'admin.token'), 'utf8').trim();
    const headers = { authorization: `Bearer ${token}`, 'content-type': type, 'content-length': length };
    const sending = httpRequest(new URL(path, url), { method, headers });
    sending.on('error', () => {});
    sending.write('{"a":');
    return sending;
  };
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
