/**
 * Whether workers can listen where they are told to. Asked as the agent starts: it would offer vaults else none of which
 * could ever be born, as where the interface of a VPN is not up yet; what starts it again then finds it up.
 */
import { once } from 'node:events';
import { createServer } from 'node:net';
import { BadInput, describe } from '@hauki/protocol';

/** Throws BadInput where nothing can listen there. */
export async function checkListenHost(host: string): Promise<void> {
  const server = createServer();
  try {
    await once(server.listen({ host, port: 0 }), 'listening');
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? describe(error);
    throw new BadInput({
      what: '--mesh-host',
      why: `workers cannot listen on ${host} (${why}): it is no address that this machine has now. ip -brief address lists those`,
    });
  } finally {
    server.close();
  }
}
