/** Parts of the SDK as pages have them: fetched when they are used first. `parts.ts` has the same at hand. */
import { late } from '@hauki/rpc/client';
import type { Comeback } from './comeback.ts';
import type { fateOf as knownFate } from './fate.ts';
import type { CoreClient } from './http.ts';
import type { ModuleOf } from './lasting.ts';
import type { WorkerRoute } from './route.ts';
import type { Services, WorkerOf } from './services.ts';

const comeback = late(() => import('./comeback.ts'));
const allServices = late(() => import('./services.ts'));

export const comebackOf = async (way: WorkerRoute): Promise<Comeback> => new (await comeback()).Comeback(way);

export const fateOf: typeof knownFate = async (...args) => (await comeback()).fateOf(...args);

export const stay = <T>(until: T): T => until;

type Methods<T> = { [K in keyof T]: T[K] extends (...args: any[]) => Promise<unknown> ? K : never }[keyof T];

export function services(core: CoreClient, moduleOf: ModuleOf, workerOf: WorkerOf): Services {
  let made: Services | undefined;
  const load = async () => {
    const module = await allServices();
    made ??= module.services(core, moduleOf, workerOf);
    return made;
  };
  /** Methods of a part of the services, which wait until that is there. */
  const later = <T, K extends Methods<T>>(part: (made: Services) => T, ...names: K[]) =>
    Object.fromEntries(
      names.map((name) => [name, async (...args: unknown[]) => (part(await load())[name] as any)(...args)]),
    ) as Pick<T, K>;
  return {
    ...later(
      (all: Services) => all,
      'provision',
      'spool',
      'registry',
      'sessions',
      'pause',
      'resume',
      'inspect',
      'revoke',
      'why',
      'details',
    ),
    async *logs(...args) {
      return yield* (await load()).logs(...args);
    },
    lasting: later((all: Services) => all.lasting, 'list', 'get', 'delete'),
    jobs: {
      get: (job) => ({ job, ...later((all: Services) => all.jobs.get<any>(job), 'result', 'cancel', 'state') }),
      ...later((all: Services) => all.jobs, 'list'),
    },
    meshfs: {
      ...later(
        (all: Services) => all.meshfs,
        'write',
        'resolve',
        'put',
        'get',
        'list',
        'snapshot',
        'history',
        'delete',
        'collect',
      ),
      async *watch(...args) {
        yield* (await load()).meshfs.watch(...args);
      },
    },
    async *events(options) {
      yield* (await load()).events(options);
    },
    volumes: later((all: Services) => all.volumes, 'list', 'delete'),
    kernels: {
      ...later((all: Services) => all.kernels, 'list', 'evolve', 'remove'),
      door: (kernel) =>
        later(
          (all: Services) => all.kernels.door(kernel),
          'status',
          'evolve',
          'rollback',
          'weigh',
          'pin',
          'remove',
          'versions',
          'version',
          'diff',
          'logs',
          'history',
        ),
    },
    tokens: later((all: Services) => all.tokens, 'create', 'list', 'revoke', 'self'),
  };
}
