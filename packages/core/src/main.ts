/** The core's process. Options come as JSON in HAUKI_CORE_OPTIONS. It ends with its parent when it has a channel to one. */
import { describe, MeshError, toWire } from '@hauki/protocol';
import { LOG_OUTPUT, whenToEnd } from '@hauki/rpc/node';
import { pino } from 'pino';
import { createCore } from './core.ts';

export interface CoreProcessOptions {
  data_dir: string;
  host?: string;
  /** 0: a free one. */
  port?: number;
  host_names?: string[];
  node_grace_ms?: number;
}

const options = JSON.parse(process.env.HAUKI_CORE_OPTIONS ?? '{}') as CoreProcessOptions;
const output = pino.destination(LOG_OUTPUT).on('error', () => {});
const logger = pino({ name: 'hauki-core', base: {} }, output);

try {
  const core = await createCore({ ...options, logger });
  whenToEnd(async (reason) => {
    logger.info(`ending: ${reason}`);
    await core.close();
    process.exit(0);
  });
  const url = await core.listen(options.host ?? '127.0.0.1', options.port ?? 8000);
  logger.info(`the core answers at ${url}; its API is described at ${url}/docs`);
  process.send?.({ ready: true, url });
} catch (error) {
  logger.fatal(describe(error));
  if (process.send)
    process.send({ failed: describe(error), ...(error instanceof MeshError && { typed: toWire(error) }) }, () =>
      process.exit(1),
    );
  else process.exit(1);
}
