/** Lets a script that `hauki run` starts import `@hauki/mesh` wherever it lies: where it has none, it gets the command's. */
import { registerHooks } from 'node:module';

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
