/** Ports for what a test starts again at the same one. */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

/** Below those that systems give out by themselves, to listeners and to outgoing connections: nobody takes one meanwhile. */
const OWN = { least: 12_000, most: 30_000 };

/** A port of loopback that nobody listens at, and that stays free while what listens there is started again. */
export async function keptPort(): Promise<number> {
  for (;;) {
    const port = randomInt(OWN.least, OWN.most);
    const server = createServer().listen(port, '127.0.0.1');
    const free = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    await new Promise((resolve) => server.close(resolve));
    if (free) return port;
  }
}
