/** The SDK in a real browser, against a real mesh: a page clones a worker, calls it and ends it. And what it weighs. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { servePage } from '../examples/browser/serve.ts';
import {
  bundleClient,
  CLIENT_ALL_LIMIT_BYTES,
  CLIENT_GOAL_BYTES,
  CLIENT_LIMIT_BYTES,
  type ClientBundle,
} from '../scripts/client-size.ts';
import { type Browser, missingBrowser, type Page, startBrowser } from './support/browser.ts';
import { CALCULATOR, processes, useMesh } from './support/mesh.ts';

describe('what a page loads of the SDK', () => {
  let bundle: ClientBundle;
  before(async () => {
    bundle = await bundleClient();
  });

  it('imports nothing, of Node or of others', () => {
    assert.deepEqual(bundle.imports, []);
    const own = new Set(bundle.chunks.map(({ file }) => `./${file}`));
    for (const { code, parts } of bundle.chunks) {
      for (const [, from] of code.matchAll(/\b(?:from|import|require)\s*\(?\s*["'`](.*?)["'`]/g))
        assert.ok(own.has(from!), `it imports ${from}`);
      assert.deepEqual(
        parts.filter(({ file }) => file.includes('node_modules') || /-node\.ts$/.test(file)),
        [],
      );
    }
  });

  it('would show an import of Node, were there one (positive control)', async () => {
    const { imports } = await bundleClient("import { readFileSync } from 'node:fs'; export { readFileSync };");
    assert.deepEqual(imports, ['node:fs']);
  });

  it(`is under ${CLIENT_LIMIT_BYTES} bytes for the main job, compressed (the goal is ${CLIENT_GOAL_BYTES})`, () => {
    assert.ok(bundle.gzip_bytes < CLIENT_LIMIT_BYTES, `${bundle.gzip_bytes} bytes: npm run client-size says of what`);
    const main = bundle.chunks.filter((chunk) => chunk.main).flatMap(({ parts }) => parts);
    for (const file of ['mesh/src/connect.ts', 'rpc/src/codec-encode.ts', 'protocol/src/errors.ts'])
      assert.ok(
        main.some((part) => part.file.endsWith(file)),
        file,
      );
  });

  it(`is under ${CLIENT_ALL_LIMIT_BYTES} bytes with all that it loads later`, () => {
    assert.ok(bundle.all_gzip_bytes < CLIENT_ALL_LIMIT_BYTES, `${bundle.all_gzip_bytes} bytes`);
    assert.ok(bundle.all_gzip_bytes > bundle.gzip_bytes);
  });
});

describe('the SDK in a browser', { skip: missingBrowser() }, () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });
  let browser: Browser;
  let served: Awaited<ReturnType<typeof servePage>>;
  let page: Page;

  before(async () => {
    // Another port than the core's: another origin.
    served = await servePage();
    browser = await startBrowser();
    page = await browser.open(served.url);
  });
  after(async () => {
    await browser?.close();
    served?.close();
    assert.deepEqual(processes('hauki-browser-'), [], 'a process of the browser is left');
  });

  /** Runs a body in the page with the SDK, a mesh, and what stands in `given`. */
  const inPage = (body: string, given: object = {}): Promise<any> =>
    page.evaluate(`(async () => {
      const { connect, destruct } = await import('/sdk.js');
      const given = ${JSON.stringify({ core: used.local.url, token: used.local.token, source: CALCULATOR, ...given })};
      const mesh = await connect({ core: given.core, token: given.token });
      ${body}
    })()`);

  it('clones a worker over the relay, calls it, gets its errors, and destructs it', async () => {
    const seen = await inPage(`
      const worker = await mesh.clone({ source: given.source });
      const sum = await worker.add(20, 22);
      const many = await Promise.all(Array.from({ length: 200 }, (_, i) => worker.add(i, 1)));
      const failed = await worker.fail('on purpose').catch((error) => error.message);
      const { route, worker: name } = await mesh.details(worker);
      await destruct(worker);
      const after = await worker.add(1, 1).catch((error) => error.name);
      return { sum, many, failed, route, name, after };
    `);
    assert.equal(seen.sum, 42);
    assert.deepEqual(
      seen.many,
      Array.from({ length: 200 }, (_, i) => i + 1),
    );
    assert.match(seen.failed, /on purpose/);
    assert.equal(seen.route, 'relay');
    assert.ok(seen.after.length > 0);
    const { workers } = await used.mesh.registry();
    assert.equal(
      workers.find((w) => w.worker === seen.name),
      undefined,
    );
  });

  it('carries long texts both ways', async () => {
    const length = await inPage(`
      const echo = await mesh.clone({ source: 'export const echo = (text) => text;' });
      const text = 'ä😀'.repeat(700_000);
      const back = await echo.echo(text);
      await mesh.close();
      return back === text ? text.length : 'changed';
    `);
    assert.equal(length, 2_100_000);
  });

  it('answers in the example’s page, as its reader sees it', async () => {
    const shown = await page.evaluate(`(async () => {
      const form = document.querySelector('form');
      form.elements.core.value = ${JSON.stringify(used.local.url)};
      form.elements.token.value = ${JSON.stringify(used.local.token)};
      form.querySelector('button').click();
      const output = document.querySelector('output');
      for (let i = 0; i < 200 && output.textContent === ''; i++) await new Promise((go) => setTimeout(go, 50));
      return output.textContent;
    })()`);
    assert.equal(shown, 'Hello, browser!');
    assert.deepEqual(page.said, []);
  });

  it('says what a browser cannot do, and what is wrong with a token', async () => {
    const said = await inPage(`
      const tell = (promise) => promise.then(() => 'nothing', (error) => error.name + ': ' + error.message);
      const direct = await tell(mesh.clone({ source: given.source }, { routing: 'p2p_only' }).add(1, 2));
      const file = await tell(mesh.clone({ file: 'worker.ts' }).add(1, 2));
      const stranger = await connect({ core: given.core, token: 'wrong' });
      const token = await tell(stranger.clone({ source: given.source }).add(1, 2));
      await mesh.close();
      return { direct, file, token };
    `);
    assert.match(said.direct, /^ConnectionLost: .*no direct route/);
    assert.match(said.file, /^BadInput: .*cannot bundle/);
    assert.match(said.token, /^Unauthorised: .*token is not known/);
  });

  it('asks nobody outside this machine, and never puts the token into a URL', () => {
    assert.ok(page.requested.some((url) => url.startsWith('ws://')));
    assert.ok(page.requested.some((url) => url.startsWith(used.local.url)));
    for (const url of page.requested) {
      assert.equal(new URL(url).hostname, '127.0.0.1', url);
      assert.ok(!url.includes(used.local.token));
    }
    assert.ok(!used.log().includes(used.local.token));
  });

  it('is kept out, with every answer, where a page of another host runs it', async () => {
    // The name leads here too, and is none of the core's.
    const foreign = await browser.open(served.url.replace('127.0.0.1', 'elsewhere.localhost'));
    const fetched = await foreign.evaluate(
      `fetch('${used.local.url}/health').then((r) => 'read ' + r.status, (error) => error.name)`,
    );
    assert.equal(fetched, 'TypeError');
    const dialled = await foreign.evaluate(`new Promise((resolve) => {
      const socket = new WebSocket('${used.local.url.replace('http', 'ws')}/api/v2/ephemeral/w-x', 'hauki.v1');
      socket.onopen = () => resolve('opened');
      socket.onerror = () => resolve('refused');
    })`);
    assert.equal(dialled, 'refused');
  });
});
