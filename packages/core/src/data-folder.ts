/**
 * What the core finds in its data folder. Apart, because of the order: whoever has the store's lock is alone, and only
 * then is a signing key read or made, so that two cores which begin at once cannot have two.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { openEmbedded } from '@hauki/backplane';
import type { MeshFs } from '@hauki/meshfs';
import { LEASE } from '@hauki/protocol';
import type { FastifyBaseLogger } from 'fastify';
import type { Damaged } from './records.ts';
import { openTicketOffice } from './tickets.ts';

/** Opens the store and the ticket office of a data folder, which is made if need be. */
export async function openDataFolder(data_dir: string, logger: FastifyBaseLogger) {
  mkdirSync(data_dir, { recursive: true, mode: 0o700 });
  const backplane = await openEmbedded(join(data_dir, 'store'), { report: (problem) => logger.error(problem) });
  const office = await openTicketOffice(data_dir, LEASE.ticket_ms).catch(async (error) => {
    await backplane.close();
    throw error;
  });
  /** A namespace of the store, and who is told of damaged records in it. */
  const kept = (namespace: string) => {
    const damaged: Damaged = (key, why) =>
      logger.error({ namespace, key, why }, 'a damaged record was left out; it stays where it is');
    return { kv: backplane.kv(namespace), damaged };
  };

  /** Gives back, while the core works already, the space that a crash left occupied. */
  function collect(meshfs: MeshFs): void {
    if (backplane.lost !== undefined) return; // what nothing names any more may be wanted back
    meshfs.collect().then(
      (swept) => swept.removed > 0 && logger.info(swept, 'content that nothing names was removed'),
      (error) => logger.warn({ err: error }, 'content that nothing names could not be looked for'),
    );
  }
  return { backplane, office, kept, collect };
}
