/** Uploads whose client breaks off: no module takes the part that came for the whole, by whichever way it came. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { before, describe, it } from 'node:test';
import { useJoinedKernels } from './support/kernel.ts';
import { until, useMesh } from './support/mesh.ts';

const CONTENT = `
let whole = 0, broken = 0, begun = 0;
export default { async fetch(request) {
  if (request.method === 'GET') return Response.json({ begun, whole, broken });
  begun++;
  try { await request.arrayBuffer(); whole++; } catch { broken++; }
  return new Response('stored');
} };`;

describe('an upload that its client breaks off', () => {
  const used = useMesh({ nodes: [] });
  const { all: kernels, start } = useJoinedKernels(used, 'u');
  before(async () => {
    await start(0);
    await used.mesh.kernels.evolve({ target_module: 'store', content: CONTENT });
  });

  for (const way of ['the gateway', 'its kernel'] as const)
    it(`is no whole body for its module, through ${way}`, async () => {
      const { url, token } = way === 'its kernel' ? kernels[0]! : used.local;
      const authorization = `Bearer ${token}`;
      const seen = async () =>
        (await (await fetch(`${url}/api/plugins/store/`, { headers: { authorization } })).json()) as {
          begun: number;
          whole: number;
          broken: number;
        };
      const { begun: before } = await seen();
      const { hostname, port, host } = new URL(url);
      for (let i = 1; i <= 40; i++) {
        const socket = connect(Number(port), hostname);
        socket.write(
          `PUT /api/plugins/store/ HTTP/1.1\r\nHost: ${host}\r\nAuthorization: ${authorization}\r\nContent-Length: 2000000\r\n\r\n`,
        );
        socket.write(Buffer.alloc(500_000));
        await until('the module reads it', async () => (await seen()).begun === before + i);
        socket.destroy();
        await once(socket, 'close');
      }
      await until('all are over', async () => {
        const { begun, whole, broken } = await seen();
        return begun === whole + broken;
      });
      assert.deepEqual((await seen()).whole, 0);
    });
});
