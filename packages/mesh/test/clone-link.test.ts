/** When a caller asks for its link: what goes over it is in test/clone-link.test.ts. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CloneLink } from '../src/clone-link.ts';
import type { CoreClient } from '../src/http.ts';

it('a link that is refused is asked for again after a while, not at each clone', async (t) => {
  let asked = 0;
  const core = createServer();
  core.on('upgrade', (_request, socket) => {
    asked++;
    socket.end('HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n');
  });
  await once(core.listen(0, '127.0.0.1'), 'listening');
  t.after(() => core.close());
  let now = performance.now();
  t.mock.method(performance, 'now', () => now);
  const base = `http://127.0.0.1:${(core.address() as AddressInfo).port}`;
  const link = new CloneLink({ base, token: 'secret', request: async () => ({}) } as unknown as CoreClient);
  const clone = async (wanted: number) => {
    await link.ask({}, 1_000);
    for (let looks = 0; asked < wanted && looks < 500; looks++) await sleep(10);
    // Also for one that should not be asked for.
    await sleep(200);
  };
  await clone(1);
  await clone(1);
  assert.equal(asked, 1);
  now += 61_000;
  await clone(2);
  assert.equal(asked, 2);
});
