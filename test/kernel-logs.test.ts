/** What modules say while they serve and when they end: whoever may read their sources can read it. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { BadInput, isError, ModuleUnknown } from '@hauki/mesh';
import { useKernel } from './support/kernel.ts';
import { DRIVERS, missing, until } from './support/mesh.ts';
import { openSocket, reply } from './support/sockets.ts';

const HAUKI = join(fileURLToPath(new URL('..', import.meta.url)), 'apps/cli/bin/hauki.js');

for (const driver of DRIVERS)
  describe(`what modules say, in ${driver} vaults`, { skip: missing(driver) }, () => {
    const kernel = useKernel({ drivers: [driver] });
    const texts = async (module: string, version?: number) =>
      (await kernel.door.logs(module, version)).map(({ lines }) => lines.map(({ text }) => text).join('\n'));
    const says = (module: string, ...wanted: RegExp[]) =>
      until(`${module} says ${wanted.join(', ')}`, async () => {
        const all = (await texts(module)).join('\n');
        return wanted.every((one) => one.test(all));
      });

    it('is told of those that serve and of the one that ended last, all together or by version', async () => {
      const content = (word: string) =>
        `export default { fetch() { console.error('${word} was asked'); return new Response('${word}'); } };`;
      await kernel.door.evolve({ target_module: 'talks', content: content('one') });
      await kernel.get('talks/');
      await says('talks', /^one was asked$/);
      await kernel.door.evolve({ target_module: 'talks', content: content('two') });
      await kernel.get('talks/');
      await says('talks', /^one was asked\ntwo was asked$/);
      await until('the first has ended', async () => (await kernel.door.logs('talks'))[0]!.ended !== undefined);
      assert.deepEqual(await texts('talks'), ['one was asked', 'two was asked']);
      assert.deepEqual(await texts('talks', 2), ['two was asked']);
      await assert.rejects(
        kernel.door.logs('talks', 7),
        (error) => isError(error, BadInput) && /: 1, 2/.test(error.message),
      );
      await assert.rejects(kernel.door.logs('nothing'), (error) => isError(error, ModuleUnknown));
      assert.equal(
        (await kernel.get('/api/modules/talks/log', { headers: { authorization: 'Bearer no' } })).status,
        401,
      );
      const env = { ...process.env, HAUKI_KERNEL: kernel.process.url, HAUKI_KERNEL_TOKEN: kernel.process.token };
      const { stdout } = await promisify(execFile)(process.execPath, [HAUKI, 'modules', 'log', 'talks', '2'], { env });
      assert.match(stdout, /^version 2 {2}p-talks-2-\w+\n\S+Z error two was asked\n$/);
    });

    it('is told of what a listener of a WebSocket throws, and the socket lives on', async () => {
      const content = `export default { fetch() {
        const [client, server] = Object.values(new WebSocketPair());
        server.accept();
        server.addEventListener('message', () => { throw new RangeError('in a listener'); });
        server.addEventListener('message', ({ data }) => server.send('heard ' + data));
        server.addEventListener('close', ({ code }) => console.log('closed with', code));
        return new Response(null, { status: 101, webSocket: client });
      } };`;
      await kernel.door.evolve({ target_module: 'throws', content });
      const socket = await openSocket(kernel.process, 'throws/');
      assert.equal(await reply(socket, 'a'), 'heard a');
      assert.equal(await reply(socket, 'b'), 'heard b');
      socket.close(4000);
      await says('throws', /(?:uncaught exception: RangeError: in a listener[\s\S]*){2}closed with 4000/);
    });

    it('is told of what their handlers throw, with the line, and of what they leave to be done', async () => {
      const content = `let n = -0;
        const fails = () => { throw new RangeError('oops'); };
        export default { async fetch(request, env, ctx) {
          const { pathname } = new URL(request.url);
          if (pathname === '/late') ctx.waitUntil((async () => fails())());
          else if (pathname === '/none') return undefined;
          else if (pathname === '/object') throw { status: 404, message: 'Not found' };
          else if (pathname === '/stream') return new Response(new ReadableStream({ pull() { throw new Error('dried up'); } }));
          else if (pathname === '/error') return Response.error();
          else if (pathname === '/main') { if (import.meta.main) fails(); console.log(n); }
          else fails();
          return new Response('x');
        } };`;
      await kernel.door.evolve({ target_module: 'fails', content });
      const got = async (path: string) => {
        const answer = await kernel.get(`fails/${path}`);
        return [answer.status, await answer.text().catch(() => 'broken')];
      };
      assert.deepEqual(await got('late'), [200, 'x']);
      assert.deepEqual(await got('main'), [200, 'x']);
      for (const [path, said] of [
        ['sync', /RangeError: oops/],
        ['none', /must return a Response/],
        ['object', /: Error: Not found/],
        ['error', /Response\.error\(\), which cannot be sent/],
      ] as const) {
        const [status, text] = await got(path);
        assert.deepEqual([status, said.test(String(text))], [500, true], `${text}`);
      }
      await got('stream');
      await says(
        'fails',
        /waitUntil\(\): RangeError: oops\n.*worker\.mjs:2/,
        /^-0$/m,
        /GET \S+\/sync: RangeError: oops\n.*worker\.mjs:2/,
        /\/none: TypeError: fetch\(\) must return a Response/,
        /\/object: \{ status: 404, message: "Not found" \}/,
        /\/stream: Error: dried up\n.*worker\.mjs:\d/,
      );
    });

    it('is what they write to the standard streams too, where there are such', async () => {
      if (driver === 'quickjs')
        return void (await assert.rejects(
          kernel.door.evolve({ target_module: 'writes', content: 'process.stdout; export default { fetch() {} };' }),
        ));
      const content = `export default { fetch() {
        process.stdout.write('one\\ntw'); process.stdout.write('o\\n'); process.stderr.write('no end');
        return new Response('x');
      } };`;
      await kernel.door.evolve({ target_module: 'writes', content });
      await kernel.get('writes/');
      await says('writes', /^one\ntwo\n(?:.*\n)?no end$/);
    });

    it('is told of their end hook, which runs when they are left or removed and holds nothing up', async () => {
      const content = (work: string) =>
        `export default { fetch: () => new Response('x') }; export async function onEnd(reason) { console.log('ending:', reason); ${work} }`;
      await kernel.door.evolve({ target_module: 'ends', content: content("throw new Error('not now');") });
      await kernel.door.evolve({ target_module: 'ends', content: content('await new Promise(() => {});') });
      await says('ends', /ending: it serves no longer\nonEnd: Error: not now/);
      await kernel.door.remove('ends');
      await until('both have ended', async () => (await kernel.door.logs('ends')).every(({ ended }) => ended));
      assert.match((await texts('ends')).join(), /^ending: it serves no longer/);
    });
  });
