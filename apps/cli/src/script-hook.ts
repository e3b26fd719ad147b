/**
 * What a script that `hauki run` starts is given before it begins: `@hauki/mesh` wherever it lies (where it has none it gets
 * the command's), and an end with whoever runs it.
 */
import { registerHooks } from 'node:module';
import { Socket } from 'node:net';

registerHooks({
  resolve(specifier, context, next) {
    try {
      return next(specifier, context);
    } catch (error) {
      if (!specifier.startsWith('@hauki/')) throw error;
      return next(specifier, { ...context, parentURL: import.meta.url });
    }
  },
});

/** Whoever runs the script holds the other end of this descriptor, and lets go of it however it ends. */
const RUNNER_FD = 3;
const is_run = process.env.HAUKI_RUN !== undefined;
// What the script starts, threads and processes, inherits this hook, but not the descriptor.
delete process.env.HAUKI_RUN;
if (is_run)
  new Socket({ fd: RUNNER_FD, writable: false })
    .on('error', () => {})
    .on('close', () => process.exit(1))
    .resume()
    .unref();
