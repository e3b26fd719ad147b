/** The evolve request by which a kernel gets its voice on IRC: the one place that says what that is granted. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundle } from '@hauki/mesh/bundle';
import type { EvolveRequest } from '@hauki/protocol';

const PLUGIN = join(fileURLToPath(new URL('../../../', import.meta.url)), 'plugins/irc.ts');

/** `server`: its `host:port`. `driver`: of the vault that it is bundled for. */
export async function ircPlugin(
  server: string,
  driver = 'quickjs',
): Promise<Pick<EvolveRequest, 'target_module' | 'language' | 'grants'> & { content: string }> {
  const { source: content, language } = await bundle(PLUGIN, { driver });
  const meshfs = { read: ['gem-pointer://kernel/', 'gem-pointer://irc/'], write: ['gem-pointer://irc/'] };
  const grants = { connect: [server], meshfs, time: true, random: true };
  return { target_module: 'irc', content, language, grants };
}
