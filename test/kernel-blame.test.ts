/** What a caller can say that no module could answer: it is refused, and no fault of the module's. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { before, describe, it } from 'node:test';
import { connectKernel } from '@hauki/mesh';
import { useJoinedKernels } from './support/kernel.ts';
import { useMesh } from './support/mesh.ts';

describe('a request that no module could answer', () => {
  const used = useMesh({ nodes: [] });
  const { all: kernels, start } = useJoinedKernels(used, 'f');
  const source = (version: number) =>
    `export default { fetch: (request) => new Response('version ${version} at ' + new URL(request.url).pathname) };`;
  before(async () => {
    await start(0);
    const { evolve } = used.mesh.kernels;
    await evolve({ target_module: 'good', content: source(1) });
    await evolve({ target_module: 'good', content: source(2), bounds: { max_error_rate: 0.2 } });
  });
  const ways = () => [used.local, kernels[0]!];
  const ask = ({ url, token }: { url: string; token: string }, method: string, host: string): Promise<string> => {
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    const authorization = `Authorization: Bearer ${token}`;
    socket.write(
      `${method} /api/plugins/good/ HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${authorization}\r\n\r\n`,
    );
    return text(socket);
  };

  it('is refused by the kernel and by the gateway', async () => {
    for (const way of ways()) {
      for (const host of ['localhost:99999', '127.0.0.1:65536', '[::1]:123456789012'])
        assert.match(await ask(way, 'GET', host), /^HTTP\/1\.1 400 [\s\S]*the Host header[\s\S]*65535/, host);
      assert.match(await ask(way, 'TRACE', 'localhost'), /^HTTP\/1\.1 501 [\s\S]*no module serves TRACE/);
      for (const host of ['localhost', 'localhost:65535', '[::1]:00080'])
        assert.match(await ask(way, 'GET', host), /^HTTP\/1\.1 200 [\s\S]*version 2 at \/$/, host);
    }
  });

  it('does not count against the module, however often it is sent', async () => {
    for (let i = 0; i < 30; i++)
      for (const way of ways()) {
        await ask(way, 'GET', 'localhost:99999');
        await ask(way, 'TRACE', 'localhost');
      }
    const { url, token } = kernels[0]!;
    const [module] = (await connectKernel({ url, token }).status()).modules;
    assert.deepEqual([module!.version, module!.errors], [2, 0]);
  });
});
