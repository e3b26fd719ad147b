/**
 * What kernels tell of themselves and of their modules, checked: a module in a swarm's sandbox may speak in its kernel's
 * place, and what is said is listed beside what others say.
 *
 * What always holds: what passes is of its kind and bounded; what does not is refused as a whole, with a BadInput that
 * says where. No value is made a text of: one with shared parts may be short on the wire and endless when written out.
 */
import { Type } from '@fastify/type-provider-typebox';
import { describe, type Evolved, type KernelInfo, type ModuleSummary, PluginFailed } from '@hauki/protocol';
import { checker } from '../node-told.ts';
import { KERNELS_LIMITS } from './limits.ts';

const { modules, module_chars, digest_chars, url_chars } = KERNELS_LIMITS;

/** Of a newer kernel there may be more than is known here. */
const Info = Type.Object({
  kernel: Type.String({ pattern: '^Microkernel-[a-z0-9-]{1,16}$' }),
  url: Type.String({ maxLength: url_chars }),
  together: Type.Optional(Type.Boolean()),
});
const Modules = Type.Array(
  Type.Object({
    module: Type.String({ maxLength: module_chars }),
    version: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    digest: Type.String({ maxLength: digest_chars }),
    serving: Type.Boolean(),
  }),
  { maxItems: modules },
);

/** What of an evolve's answer is read here. */
const Answer = Type.Object({
  version: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
  digest: Type.String({ maxLength: digest_chars }),
  vault: Type.Object({
    driver: Type.String({ maxLength: module_chars }),
    level: Type.String({ maxLength: module_chars }),
  }),
});

/** What one of its own routes answers. */
const Own = Type.Tuple([Type.Integer({ minimum: 200, maximum: 599 }), Type.Unknown()]);

const own = checker<[status: number, answer: unknown]>(Own);
const info = checker<KernelInfo>(Info);
const summaries = checker<ModuleSummary[]>(Modules);

/** What a kernel says that it is, and no more. */
export function infoOf(told: unknown): Required<KernelInfo> {
  const { kernel, url, together = false } = info(told);
  return { kernel, url, together };
}

/** What a kernel says that it holds, and no more. */
export const summariesOf = (told: unknown): ModuleSummary[] =>
  summaries(told).map(({ module, version, digest, serving }) => ({ module, version, digest, serving }));

/** What a kernel's own routes answer. Throws PluginFailed where that is no answer. */
export function ownAnswerOf(told: unknown, kernel: string): [status: number, answer: unknown] {
  try {
    return own(told);
  } catch (error) {
    throw new PluginFailed({ module: kernel, why: `what the kernel answered is no answer (${describe(error)})` });
  }
}

/** What a kernel answers to an evolve. Throws an Error that says what to do where that is not as this core reads it. */
export const evolvedOf = checker<Evolved>(
  Answer,
  (error) =>
    new Error(
      `its answer is not as this core reads it (${describe(error)}). Start the kernel with the core’s version of Hauki`,
    ),
);
