/** The kernel's own routes: what runs, and every way of changing it. */
import { type FastifyPluginAsyncTypebox, Type, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox';
import { BadInput, type EvolveRequest, ISOLATION_LEVELS } from '@hauki/protocol';
import { readably } from '@hauki/protocol/schema-refusal';
import type { Kernel } from './kernel.ts';
import { KERNEL_LIMITS } from './limits.ts';

const strict = { additionalProperties: false };
const Name = Type.Object({ module: Type.String({ pattern: '^[a-z][a-z0-9_]{0,47}$' }) });
const Version = Type.Object({ ...Name.properties, version: Type.Integer({ minimum: 1 }) });

const Headers = Type.Optional(Type.Record(Type.String(), Type.String()));
const Trial = Type.Object(
  {
    path: Type.String({ pattern: '^/', description: 'as the module sees it' }),
    method: Type.Optional(Type.String({ pattern: '^[A-Za-z]{1,16}$' })),
    headers: Headers,
    body: Type.Optional(Type.Unknown({ description: 'a text, or what becomes JSON' })),
    expect: Type.Object(
      {
        status: Type.Optional(Type.Integer({ minimum: 200, maximum: 599, description: '200 where it is left out' })),
        json: Type.Optional(Type.Unknown({ description: 'the whole body' })),
        text: Type.Optional(Type.String({ description: 'must be in the body' })),
        headers: Headers,
      },
      strict,
    ),
  },
  strict,
);

const Evolve = Type.Object(
  {
    // What no module is called is refused as a stage of its own.
    target_module: Type.String({ maxLength: 1024, description: 'as in data_scraper.ts' }),
    content: Type.Optional(Type.String({ description: 'the source' })),
    pointer: Type.Optional(Type.String({ maxLength: 1024, description: 'of the source, in this kernel’s MeshFS' })),
    edits: Type.Optional(
      Type.Array(Type.Object({ find: Type.String(), replace: Type.String() }, strict), {
        minItems: 1,
        maxItems: KERNEL_LIMITS.edits,
        description: 'x-surgeon: each find must stand in the running source once',
      }),
    ),
    base_digest: Type.Optional(Type.String({ description: 'of the source that the edits are made for' })),
    language: Type.Optional(
      Type.Union([Type.Literal('javascript'), Type.Literal('typescript'), Type.Literal('python')], {
        description: 'left out: by the ending of target_module',
      }),
    ),
    driver: Type.Optional(
      Type.String({
        maxLength: 32,
        description: 'lxc, quickjs or process; left out: as before, at first the strongest',
      }),
    ),
    min_isolation: Type.Optional(
      Type.Union(
        ISOLATION_LEVELS.map((level) => Type.Literal(level)),
        { description: 'no vault that holds less strongly, weakest first' },
      ),
    ),
    memory_mib: Type.Optional(Type.Integer({ minimum: 4, maximum: 65_536, description: 'of its vault' })),
    // Checked, and made whole, where workers' grants are too.
    grants: Type.Optional(
      Type.Object(
        {},
        {
          description:
            'what it may do: {fetch: ["host:port"], connect: ["host:port"], meshfs: {read: [prefix], write: [prefix]}, volume: name, time: true, random: true}; left out: as before',
        },
      ),
    ),
    tests: Type.Optional(
      Type.Array(Trial, {
        maxItems: KERNEL_LIMITS.tests,
        description: 'requests with what is expected, made before it serves',
      }),
    ),
    dry_run: Type.Optional(Type.Boolean({ description: 'everything but the change' })),
    weight: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 100,
        description: 'its share of requests; the version before keeps the rest',
      }),
    ),
    bounds: Type.Optional(
      Type.Union(
        [
          Type.Null(),
          Type.Object(
            {
              max_error_rate: Type.Optional(Type.Number({ minimum: 0, maximum: 1 })),
              max_p99_ms: Type.Optional(Type.Number({ minimum: 0 })),
            },
            strict,
          ),
        ],
        { description: 'it is taken back by itself when it leaves them; null: never' },
      ),
    ),
    alias: Type.Optional(
      Type.Union([Type.Null(), Type.String({ maxLength: 512 })], {
        description: 'an absolute path that it serves too, as in /api/v2/meshfs/; null: none',
      }),
    ),
    keep_tests: Type.Optional(Type.Boolean({ description: 'false: tests of earlier versions count no more' })),
  },
  strict,
);

const isEvolve = readably(TypeBoxValidatorCompiler)({ schema: Evolve, method: 'POST', url: '', httpPart: 'body' });

/** Checks a request that came over another door as this one's are. Throws BadInput. */
export function checkEvolve(body: unknown): EvolveRequest {
  const { error } = isEvolve(body);
  if (error) throw error;
  return body as EvolveRequest;
}

export const kernelRoutes: FastifyPluginAsyncTypebox<{ kernel: Kernel }> = async (app, { kernel }) => {
  const tags = ['kernel'];
  const find = (module: string) => {
    const found = kernel.modules().find((one) => one.module === module);
    return found ?? kernel.module(module);
  };

  app.get('/health', { config: { open: true }, schema: { tags, summary: 'Whether it answers' } }, async () => ({
    status: 'ok',
    kernel: kernel.name,
  }));

  app.get('/api/status', { schema: { tags, summary: 'The modules, and how each of them does' } }, async () => ({
    status: 'ok',
    kernel: kernel.name,
    started_at: kernel.started_at,
    drivers: kernel.drivers(),
    modules: await kernel.measured(),
  }));

  for (const url of ['/api/evolve_plugin', '/api/evolve'])
    app.post(
      url,
      { schema: { tags, summary: 'Post a module, or edits of one: it is tested, then it serves', body: Evolve } },
      async (request) => ({ status: 'success', ...(await kernel.evolve(request.body as EvolveRequest, request.by)) }),
    );

  app.get('/api/modules/:module', { schema: { tags, summary: 'One module', params: Name } }, async (request) => {
    await kernel.versions(request.params.module);
    return { status: 'success', ...find(request.params.module) };
  });

  app.get(
    '/api/modules/:module/versions',
    { schema: { tags, summary: 'All versions of a module, with their reports', params: Name } },
    async (request) => ({ status: 'success', versions: await kernel.versions(request.params.module) }),
  );

  app.get(
    '/api/modules/:module/versions/:version',
    { schema: { tags, summary: 'One version, with its source', params: Version } },
    async (request) => ({
      status: 'success',
      ...(await kernel.version(request.params.module, request.params.version)),
    }),
  );

  app.get(
    '/api/modules/:module/log',
    {
      schema: {
        tags,
        summary: 'What the versions of a module say that live, and what the one that ended last said',
        params: Name,
        querystring: Type.Object({ version: Type.Optional(Type.Integer({ minimum: 1 })) }, strict),
      },
    },
    async (request) => ({
      status: 'success',
      logs: await kernel.logs(request.params.module, request.query.version),
    }),
  );

  app.get(
    '/api/modules/:module/diff',
    {
      schema: {
        tags,
        summary: 'What differs between two versions',
        params: Name,
        querystring: Type.Object({ from: Type.Integer({ minimum: 1 }), to: Type.Integer({ minimum: 1 }) }, strict),
      },
    },
    async (request) => {
      const { from, to } = request.query;
      return { status: 'success', diff: await kernel.diff(request.params.module, from, to) };
    },
  );

  app.post(
    '/api/modules/:module/rollback',
    {
      // Where no version is named there is nothing to say.
      preValidation: async (request) => {
        if (request.body === undefined) request.body = {};
      },
      schema: {
        tags,
        summary: 'Let an earlier version serve again; the last good one when none is named',
        params: Name,
        body: Type.Object({ version: Type.Optional(Type.Integer({ minimum: 1 })) }, strict),
      },
    },
    async (request) => ({
      status: 'success',
      ...(await kernel.rollback(request.params.module, request.body.version, request.by)),
    }),
  );

  app.post(
    '/api/modules/:module/weights',
    {
      schema: {
        tags,
        summary: 'Which versions serve how much, of 100',
        params: Name,
        body: Type.Object(
          {
            versions: Type.Record(
              Type.String({ pattern: '^[1-9][0-9]{0,7}$' }),
              Type.Integer({ minimum: 0, maximum: 100 }),
              strict,
            ),
          },
          strict,
        ),
      },
    },
    async (request) => ({
      status: 'success',
      ...(await kernel.weigh(request.params.module, request.body.versions, request.by)),
    }),
  );

  app.post(
    '/api/modules/:module/pin',
    {
      schema: {
        tags,
        summary: 'Refuse changes of this module, or take them again',
        params: Name,
        body: Type.Object({ pinned: Type.Boolean() }, strict),
      },
    },
    async (request) => {
      await kernel.pin(request.params.module, request.body.pinned, request.by);
      return { status: 'success' };
    },
  );

  app.delete(
    '/api/modules/:module',
    { schema: { tags, summary: 'Take a module’s routes away', params: Name } },
    async (request) => {
      await kernel.remove(request.params.module, request.by);
      return { status: 'success' };
    },
  );

  app.get(
    '/api/history',
    {
      schema: {
        tags,
        summary: 'The journal: who changed what into what, chained by digests',
        querystring: Type.Object({ module: Type.Optional(Type.String({ maxLength: 48 })) }, strict),
      },
    },
    async (request) => {
      const { module } = request.query;
      if (module !== undefined && !/^[a-z][a-z0-9_]*$/.test(module))
        throw new BadInput({ what: 'module', why: 'that is no module’s name' });
      return { status: 'success', entries: await kernel.journal.entries(module) };
    },
  );
};
