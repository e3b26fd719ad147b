/** The SDK in a real browser, against a real mesh: a page clones a worker, calls it and ends it. And what it weighs. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { servePage } from '../examples/browser/serve.ts';
import { bundleClient, CLIENT_ALL_LIMIT_BYTES, CLIENT_LIMIT_BYTES, type ClientBundle } from '../scripts/client-size.ts';
import { type Browser, missingBrowser, type Page, startBrowser } from './support/browser.ts';
import { CALCULATOR, processes, until, useMesh } from './support/mesh.ts';

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

  it(`is under ${CLIENT_LIMIT_BYTES} bytes for the main job, compressed`, () => {
    assert.ok(bundle.gzip_bytes < CLIENT_LIMIT_BYTES, `${bundle.gzip_bytes} bytes: npm run client-size says of what`);
    const main = bundle.chunks.filter((chunk) => chunk.main).flatMap(({ parts }) => parts);
    for (const file of ['mesh/src/connect.ts', 'rpc/src/codec-encode.ts', 'protocol/src/caller-errors.ts'])
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

const RICH = `${CALCULATOR}
export const echo = (value) => value;
export const told = (value) => value.get('itself') === value && value.get('set').has(1n);
export const nothing = () => {};
export const throwIt = (error) => { throw error; };`;

const CALLING = `${CALCULATOR}
export async function tell(heard, text) { await heard(text); return 'told'; }
export async function sum(numbers) { let sum = 0; for await (const n of numbers) sum += n; return sum; }
export function* count(to) { for (let i = 0; i < to; i++) yield i; }
class Counter { #n = 0; next() { return ++this.#n; } }
export const counter = () => new Counter();`;

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
  const inPage = (body: string, given: object = {}, where = page): Promise<any> =>
    where.evaluate(`(async () => {
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

  describe('fetches of it', () => {
    let main: string[];
    let rest: string[];
    before(async () => {
      const { chunks } = await bundleClient();
      const named = (wanted: boolean) => chunks.filter((chunk) => chunk.main === wanted).map(({ file }) => file);
      main = named(true).sort();
      rest = named(false);
      const module = `export const greet = (name) => 'Hello, ' + name;`;
      await used.mesh.meshfs.write('gem-pointer://wiki/workers/greeter', module, { language: 'javascript' });
    });

    const fetchedBy = (page: Page) =>
      [...new Set(page.requested.map((url) => new URL(url).pathname.slice(1)))].filter((path) => path.endsWith('.js'));
    const chunkOf = (word: string) => rest.find((file) => file.startsWith(word))!;

    it('no more than its main job needs: clone, calls with all values, errors, heartbeats, destruct', async () => {
      const page = await browser.open(served.url);
      const seen = await inPage(
        `const echo = await mesh.clone({ source: given.source }, { heartbeat_ms: 1000, lease_ms: 4000 });
         const rich = new Map([['date', new Date(5)], ['bytes', new Uint8Array([1, 2])], ['set', new Set([1n, -0])]]);
         rich.set('itself', rich);
         const told = await echo.told(rich);
         const nothing = String(await echo.nothing());
         const error = await echo.fail('on purpose').catch((error) => error);
         const pipelined = await echo.echo({ deep: [7] }).deep[0];
         await new Promise((go) => setTimeout(go, 5000));
         const alive = await echo.add(2, 2);
         const greeter = mesh.clone('gem-pointer://wiki/workers/greeter');
         const greeting = await greeter.greet('page');
         await destruct(greeter);
         await destruct(echo);
         const after = await echo.add(1, 1).catch((error) => error.name);
         await mesh.close();
         return { told, nothing, error: error.name, pipelined, alive, greeting, after };`,
        { source: RICH },
        page,
      );
      assert.deepEqual(seen, {
        told: true,
        nothing: 'undefined',
        error: 'RemoteError',
        pipelined: 7,
        alive: 4,
        greeting: 'Hello, page',
        after: 'WorkerDied',
      });
      assert.deepEqual(fetchedBy(page).sort(), main);
      assert.deepEqual(page.said, []);
    });

    it('what reads values that JSON has no word for, when one comes back', async () => {
      const page = await browser.open(served.url);
      const seen = await inPage(
        `const worker = await mesh.clone({ source: given.source });
         const rich = new Map([['date', new Date(5)], ['bytes', new Uint8Array([1, 2])], ['set', new Set([1n, -0])]]);
         rich.set('itself', rich);
         const [back, odd, sum] = await Promise.all([
           worker.echo(rich),
           worker.throwIt(Object.assign(new RangeError('odd'), { extra: rich })).catch((error) => error),
           worker.add(1, 2),
         ]);
         await mesh.close();
         return {
           same: back.get('itself') === back && back.get('date').getTime() === 5 && back.get('set').has(1n),
           bytes: [...back.get('bytes')], odd: odd.cause?.extra instanceof Map, sum,
         };`,
        { source: RICH },
        page,
      );
      assert.deepEqual(seen, { same: true, bytes: [1, 2], odd: true, sum: 3 });
      assert.deepEqual(fetchedBy(page).sort(), [...main, chunkOf('session-rest')].sort());
    });

    it('MeshFS, events, the spool and tokens when they are used', async () => {
      const page = await browser.open(served.url);
      const seen = await inPage(
        `await mesh.meshfs.write('gem-pointer://wiki/notes/a', 'one');
         const { content } = await mesh.meshfs.resolve('gem-pointer://wiki/notes/a');
         const { body } = await mesh.meshfs.get('gem-pointer://wiki/notes/a');
         let bytes = 0;
         for await (const chunk of body) bytes += chunk.length;
         const changes = mesh.meshfs.watch('gem-pointer://wiki/notes/', { after: 0 });
         const change = (await changes.next()).value;
         await changes.return();
         const names = [];
         for await (const { name } of mesh.events({ limit: 5 })) names.push(name);
         const { jobs } = await mesh.jobs.list();
         const unknown = await mesh.jobs.get('none').state().catch((error) => error.name);
         const lasting = await mesh.lasting.list();
         const { scopes } = await mesh.tokens.self();
         const { nodes } = await mesh.registry();
         await mesh.close();
         return { content, bytes, change: change.pointer, names: names.length, jobs, unknown, lasting, scopes, nodes: nodes.length };`,
        {},
        page,
      );
      assert.deepEqual(seen, {
        content: 'one',
        bytes: 3,
        change: 'gem-pointer://wiki/notes/a.md',
        names: 5,
        jobs: [],
        unknown: 'BadInput',
        lasting: [],
        scopes: ['admin'],
        nodes: 1,
      });
      assert.deepEqual(fetchedBy(page).sort(), [...main, chunkOf('services')].sort());
    });

    it('serving and references when a worker calls back, in the order in which all was said', async () => {
      const page = await browser.open(served.url);
      const seen = await inPage(
        `const worker = await mesh.clone({ source: given.source });
         const heard = [];
         const one = worker.tell((text) => heard.push('first ' + text), 'a');
         const two = worker.tell((text) => heard.push('second ' + text), 'b');
         const streamed = worker.sum((async function* () { yield 1; yield 2; yield 39; })());
         const plain = worker.add(1, 2);
         const results = await Promise.all([one, two, streamed, plain]);
         const counter = await worker.counter();
         const counts = [await counter.next(), await counter.next()];
         const items = [];
         for await (const item of await worker.count(3)) items.push(item);
         await mesh.close();
         return { heard, results, counts, items };`,
        { source: CALLING },
        page,
      );
      assert.deepEqual(seen, {
        heard: ['first a', 'second b'],
        results: ['told', 'told', 42, 3],
        counts: [1, 2],
        items: [0, 1, 2],
      });
      assert.deepEqual(fetchedBy(page).sort(), [...main, chunkOf('session-rest')].sort());
    });

    it('what brings a session back after a cut, also when the page’s own server is away at first', async () => {
      let away = false;
      const through = createServer(async (request, response) => {
        if (away) return void request.socket.destroy();
        const answer = await fetch(new URL(request.url!, served.url));
        response.writeHead(200, { 'content-type': answer.headers.get('content-type')! }).end(await answer.text());
      });
      through.listen(0, '127.0.0.1');
      await once(through, 'listening');
      try {
        const { port } = through.address() as AddressInfo;
        const page = await browser.open(`http://127.0.0.1:${port}/`);
        await inPage(
          `const sockets = [];
           globalThis.WebSocket = class extends WebSocket {
             constructor(...given) {
               super(...given);
               sockets.push(this);
             }
           };
           globalThis.cut = () => sockets.splice(0).forEach((socket) => socket.close());
           globalThis.worker = await mesh.clone({ source: given.source });
           globalThis.close = () => mesh.close();
           await worker.add(1, 2);`,
          {},
          page,
        );
        assert.deepEqual(fetchedBy(page).sort(), main);
        away = true;
        await page.evaluate(`cut(); globalThis.waiting = worker.add(20, 22); 0`);
        // The browser keeps the failure of a module: so it is asked for by another URL, which fails too at first.
        const again = `${chunkOf('comeback')}?`;
        await until('it is asked for again', () => page.requested.some((url) => url.includes(again)));
        away = false;
        assert.equal(await page.evaluate('waiting'), 42);
        await page.evaluate('close()');
        assert.deepEqual(fetchedBy(page).sort(), [...main, chunkOf('comeback')].sort());
      } finally {
        through.close();
        through.closeAllConnections();
      }
    });
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
