/** The description of what modules serve is OpenAPI, however their routers write their routes. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { withModules } from '../src/description.ts';

describe('the description of modules', () => {
  it('has every name of a path once and declared, and no other braces', () => {
    const routes = {
      '/a/:id{[0-9]{2}}/x': '/a/{id}/x',
      '/b/:name?': '/b/{name}',
      '/c/*/d/*': '/c/{path}/d/{path2}',
      '/d/:x/:x': '/d/{x}/{x2}',
      '/e/{y}/:y': '/e/{y}/{y2}',
      '/f/{p:path}': '/f/{p}',
      '/g/:a-:b': '/g/{a}-{b}',
      '/h/:id.json': '/h/{id}.json',
      '/i/{path}/*': '/i/{path}/{path2}',
      '/j/{{/}': '/j/%7B%7B/%7D',
    };
    const live = [{ version: 1, routes: Object.keys(routes).map((path) => `GET ${path}`) }];
    const one = { module: 'm', version: 1, digest: '', live, alias: null };
    const { paths } = withModules({}, { modules: () => [one] as never });
    assert.deepEqual(
      Object.keys(paths!),
      Object.values(routes).map((path) => `/api/plugins/m${path}`),
    );
    for (const [path, { get }] of Object.entries(paths as Record<string, any>))
      assert.deepEqual(
        get.parameters.map(({ name }: { name: string }) => `{${name}}`),
        path.match(/\{\w+\}/g) ?? [],
      );
  });
});
