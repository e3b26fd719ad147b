/** The kernel's own routes as the core asks for them: which, and in whose name. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isError, NoSuchMethod } from '@hauki/protocol';
import { OwnRoutes } from '../src/own-routes.ts';

describe('the kernel’s own routes over the link', () => {
  const injected: any[] = [];
  const routes = new OwnRoutes();
  const own = routes.asked({
    inject: (async (asked: any) => {
      injected.push(asked);
      return { statusCode: 200, payload: '{"a":1}' };
    }) as never,
  });
  const ask = (method: string, path: string, body?: unknown) => own(method as 'GET', path, body, 'ada');

  it('are asked for with any query and a slash at the end, and HEAD as GET', async () => {
    for (const [method, path, as] of [
      ['GET', '/api/status', 'GET /api/status'],
      ['HEAD', '/api/status', 'GET /api/status'],
      ['GET', '/api/history/?module=a', 'GET /api/history?module=a'],
      ['GET', '/api/modules/a/diff?to=2&from=1', 'GET /api/modules/a/diff?to=2&from=1'],
      ['GET', '/api/modules/a%2Fb/versions/3?x=y', 'GET /api/modules/a%2Fb/versions/3?x=y'],
      ['POST', '/api/modules/a/rollback/', 'POST /api/modules/a/rollback'],
    ] as const) {
      assert.deepEqual(await ask(method, path), [200, { a: 1 }]);
      const { method: asked, url, headers } = injected.pop();
      assert.equal(`${asked} ${url}`, as);
      assert.equal(routes.by(headers), 'ada');
      // Nobody else knows the word, and another kernel has another.
      assert.equal(new OwnRoutes().by(headers), undefined);
    }
  });

  it('are no others, however they are spelled', async () => {
    for (const path of [
      '/api/evolve',
      '/api/modules/a/../../evolve',
      '/api/modules/a/versions/../../../evolve_plugin',
      '/docs/json',
      '/api/plugins/a/',
      'http://',
    ])
      await assert.rejects(ask('GET', path), (error) => isError(error, NoSuchMethod), path);
    assert.deepEqual(injected, []);
  });
});
