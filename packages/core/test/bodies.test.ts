/** How long a request's body may take: raw content as long as it moves, any other until its deadline. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { pino } from 'pino';
import { type CoreServer, createCore } from '../src/core.ts';

describe('the body of a request', () => {
  let core: CoreServer;
  let url: string;
  let folder: string;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'hauki-bodies-'));
    core = await createCore({ data_dir: folder, logger: pino({ level: 'silent' }), body_ms: 200 });
    url = await core.listen('127.0.0.1', 0);
  });
  after(async () => {
    await core.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const begin = (method: string, path: string, type: string): ClientRequest => {
    const token = readFileSync(join(folder, 'admin.token'), 'utf8').trim();
    const headers = { authorization: `Bearer ${token}`, 'content-type': type, 'content-length': 10 };
    const sending = httpRequest(new URL(path, url), { method, headers });
    sending.on('error', () => {});
    sending.write('{"a":');
    return sending;
  };
  const answerOf = async (sending: ClientRequest): Promise<[number, any]> => {
    const [answer] = (await once(sending, 'response')) as [IncomingMessage];
    let text = '';
    for await (const chunk of answer) text += chunk;
    return [answer.statusCode!, JSON.parse(text)];
  };

  it('is cut off at its deadline with a typed error, but goes on where it is raw content that moves', async () => {
    const raw = begin('PUT', '/api/v2/meshfs/raw?pointer=gem-pointer://data/slow', 'application/octet-stream');
    const piece = begin('PUT', '/api/v2/meshfs/raw?pointer=gem-pointer://data/part&upload=upload-1', 'text/plain');
    piece.destroy();
    for (const [method, path] of [
      ['POST', '/api/v2/meshfs/write'],
      ['POST', '/api/v2/tokens'],
      ['DELETE', '/api/v2/meshfs/raw?pointer=gem-pointer://data/none'],
      ['POST', '/api/plugins/none/x'],
    ] as const) {
      const endless = begin(method, path, 'application/json');
      const closed = once(endless, 'close');
      const [status, { error }] = await answerOf(endless);
      if (method === 'POST') assert.deepEqual([status, error.data.name], [400, 'BadInput'], path);
      await closed;
    }
    raw.end('12345');
    const [status, written] = await answerOf(raw);
    assert.deepEqual([status, written.bytes], [201, 10]);
  });
});
