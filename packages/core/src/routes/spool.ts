/** The notes' `omega_spool`: hand in code, fetch the result later. */
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { JOB_STATES, LIMITS } from '@hauki/protocol';
import { KEY, type Spool, type SpoolRequest } from '../spool/spool.ts';
import { MODULE } from './swarm.ts';

const strict = { additionalProperties: false };
const JOB_ID = '^j-[a-z0-9]{1,40}$';
const Job = Type.Object({ job: Type.String({ pattern: JOB_ID }) });
const access = { config: { scope: 'spool' } } as const;

export const spoolRoutes: FastifyPluginAsyncTypebox<{ spool: Spool }> = async (app, { spool }) => {
  app.post(
    '/api/v2/omega_spool',
    {
      ...access,
      schema: {
        tags: ['spool'],
        summary: 'Spool a job: code, one method, its parameters; accepted when it is durable',
        body: Type.Object(
          {
            ...MODULE,
            method: Type.String({
              minLength: 1,
              maxLength: 256,
              description: 'which of the module’s functions or methods is called, once',
            }),
            params: Type.Optional(
              Type.Union([Type.Array(Type.Unknown()), Type.Record(Type.String(), Type.Unknown())], {
                description: 'its arguments, in a list; an object is the only one',
              }),
            ),
            timeout_ms: Type.Optional(
              Type.Integer({
                minimum: 1,
                maximum: LIMITS.spool_timeout_ms,
                description: 'what the call may take; left out: 60000',
              }),
            ),
            attempts: Type.Optional(
              Type.Integer({
                minimum: 1,
                maximum: LIMITS.spool_attempts,
                description: 'how often it may be begun when it is interrupted, by default 3; 1: at most once',
              }),
            ),
            retry_on_error: Type.Optional(
              Type.Boolean({ description: 'what its own code throws is tried again, not final' }),
            ),
            key: Type.Optional(
              Type.String({
                maxLength: LIMITS.spool_key_chars,
                pattern: KEY.source,
                description: 'the same key is the same job',
              }),
            ),
          },
          strict,
        ),
      },
    },
    async (request, reply) => {
      const view = await spool.accept(request.body as SpoolRequest, request.principal);
      return reply.status(202).send({ status: 'success', job: view.job, state: view.state });
    },
  );

  app.get(
    '/api/v2/omega_spool',
    {
      ...access,
      schema: {
        tags: ['spool'],
        summary: 'Jobs, newest first, a page at a time',
        querystring: Type.Object(
          {
            state: Type.Optional(Type.Union(JOB_STATES.map((state) => Type.Literal(state)))),
            after: Type.Optional(Type.String({ pattern: JOB_ID })),
            limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
          },
          strict,
        ),
      },
    },
    async (request) => ({ status: 'success', ...(await spool.list(request.principal, request.query)) }),
  );

  app.get(
    '/api/v2/omega_spool/:job',
    {
      ...access,
      schema: {
        tags: ['spool'],
        summary: 'A job and, once it is done, its result; with wait_ms the answer waits for its end',
        params: Job,
        querystring: Type.Object(
          { wait_ms: Type.Optional(Type.Integer({ minimum: 0, maximum: LIMITS.spool_wait_ms })) },
          strict,
        ),
      },
    },
    async (request, reply) => {
      const { job } = request.params;
      const principal = request.principal;
      const gone = new AbortController();
      reply.raw.once('close', () => gone.abort());
      await spool.wait(job, principal, request.query.wait_ms ?? 0, gone.signal);
      const { view, result } = await spool.get(job, principal);
      // The result is JSON already, and may be large.
      const text = JSON.stringify({ status: 'success', ...view });
      reply.type('application/json');
      return reply.send(result === undefined ? text : `${text.slice(0, -1)},"result":${result}}`);
    },
  );

  app.delete(
    '/api/v2/omega_spool/:job',
    {
      ...access,
      schema: {
        tags: ['spool'],
        summary: 'Cancel: a waiting job never runs, a running one’s worker is destructed; too late is 409',
        params: Job,
      },
    },
    async (request) => ({
      status: 'success',
      ...(await spool.cancel(request.params.job, request.principal)),
    }),
  );
};
