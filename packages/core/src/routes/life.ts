/** A living worker in its owner's hands: pause and resume, a look inside, its log. */
import type { ServerResponse } from 'node:http';
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { type EventName, Forbidden, LIMITS, toWire } from '@hauki/protocol';
import { followLog, type LogNews } from '../log-follow.ts';
import { inspectedOf } from '../node-told.ts';
import type { Registry } from '../registry.ts';
import { covers, demand, demandEnd, may, owns, type Principal } from '../rights.ts';
import { Shares } from '../shares.ts';
import type { TokenStore } from '../tokens.ts';

export interface LifeRoutesPowers {
  registry: Registry;
  tokens: TokenStore;
  emit(name: EventName, fields: object): void;
}

const strict = { additionalProperties: false };
const Worker = Type.Object({ worker: Type.String({ pattern: '^[a-z0-9-]{1,64}$' }) });
/** The door to one's own workers: whoever may make them. */
const DOOR = ['destruct', 'spawn.pointer', 'provision'] as const;
/** Longer than the agent gives the expression itself. */
const SLACK_MS = 2_000;
const LINES = 200;

export const lifeRoutes: FastifyPluginAsyncTypebox<LifeRoutesPowers> = async (app, { registry, tokens, emit }) => {
  const streams = new Shares('readers of logs', LIMITS.log_streams);

  const demandHold = (principal: Principal, worker: string) => {
    const known = registry.known(worker);
    demandEnd(principal, known);
    return known;
  };

  for (const pausing of [true, false]) {
    const verb = pausing ? 'pause' : 'resume';
    app.post(
      `/api/v2/ephemeral/:worker/${verb}`,
      {
        config: { scope: DOOR },
        schema: {
          tags: ['swarm'],
          summary: pausing
            ? 'Stop a worker where it stands: its lease stands still, calls wait for their deadlines'
            : 'Let a paused worker go on, with a whole lease',
          params: Worker,
          body: Type.Optional(Type.Object({}, strict)),
        },
      },
      async (request) => {
        const { worker } = request.params;
        const { owner } = demandHold(request.principal, worker);
        await registry.ask(worker, ({ rpc }) => rpc[verb](worker));
        registry.paused(worker, pausing ? Date.now() : undefined);
        emit(pausing ? 'WORKER_PAUSED' : 'WORKER_RESUMED', { worker, owner, by: request.principal.name });
        return { status: 'success', worker };
      },
    );
  }

  app.post(
    '/api/v2/ephemeral/:worker/inspect',
    {
      config: { scope: ['spawn', 'provision'] },
      schema: {
        tags: ['swarm'],
        summary: 'Evaluate an expression beside a worker of one’s own; `worker` is it, `hauki` what it may do',
        params: Worker,
        body: Type.Object(
          {
            expression: Type.String({ minLength: 1, maxLength: LIMITS.inspect_chars }),
            timeout_ms: Type.Optional(Type.Integer({ minimum: 1, maximum: LIMITS.inspect_ms })),
          },
          strict,
        ),
      },
    },
    async (request) => {
      const { principal, body } = request;
      const { worker } = request.params;
      const { owner } = registry.known(worker);
      demand(principal, { scope: ['spawn', 'provision'], worker: { worker, owner } });
      // It is code of one's own, run with the worker's grants: a target, which lets others call it, is not enough.
      if (!owns(principal, owner) && !covers(principal.scopes, 'admin'))
        throw new Forbidden({ why: `Only its owner and an admin look into ${worker}`, target: worker });
      const timeout_ms = body.timeout_ms ?? SLACK_MS * 5;
      registry.home(worker);
      emit('WORKER_INSPECTED', { worker, owner, by: principal.name });
      const options = { timeout_ms: timeout_ms + SLACK_MS };
      const told = await registry.ask(worker, ({ session }) =>
        session.call('inspect', [worker, body.expression, timeout_ms], options),
      );
      return { status: 'success', worker, result: inspectedOf(told) };
    },
  );

  app.get(
    '/api/v2/ephemeral/:worker/logs',
    {
      config: { scope: ['read', ...DOOR] },
      exposeHeadRoute: false,
      schema: {
        tags: ['swarm'],
        summary: 'The last lines of a worker’s log; with `follow`, as Server-Sent Events, as they come, to its end',
        params: Worker,
        querystring: Type.Object(
          {
            lines: Type.Optional(Type.Integer({ minimum: 0, maximum: LIMITS.log_lines })),
            follow: Type.Optional(Type.Boolean()),
          },
          strict,
        ),
      },
    },
    async (request, reply) => {
      const { principal } = request;
      const { worker } = request.params;
      const { follow = false, lines = LINES } = request.query;
      // Whoever may read sees all logs, of workers that there are or were.
      if (may(principal, { scope: 'read' })) registry.known(worker);
      else demandHold(principal, worker);
      if (!follow) {
        const entry = registry.workers.get(worker);
        const home = entry && registry.nodes.get(entry.node);
        const page = home && lines > 0 ? await home.rpc.logs(worker, -lines, 0).catch(() => undefined) : undefined;
        const fate = entry ? undefined : registry.fate(worker);
        const said = page?.lines ?? (lines > 0 ? fate?.lines.slice(-lines) : []) ?? [];
        const end = fate && { ...fate, lines: [] };
        return { status: 'success', worker, epoch: page?.epoch ?? fate?.epoch ?? null, lines: said, fate: end ?? null };
      }
      const { raw } = reply;
      let gone = false;
      raw.once(
        'close',
        tokens.hold(principal, () => raw.destroy()),
      );
      raw.once('close', streams.take(principal.name));
      raw.once('close', () => {
        gone = true;
      });
      reply.hijack();
      raw.writeHead(200, {
        ...(reply.getHeaders() as Record<string, string>),
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-store',
        'x-accel-buffering': 'no',
      });
      raw.flushHeaders();
      await pump(
        followLog(registry, worker, lines, () => gone),
        raw,
        () => gone,
      );
      return reply;
    },
  );
};

/** Writes what comes as fast as the reader takes it; one that takes nothing for too long is cut off. */
async function pump(news: AsyncGenerator<LogNews, void>, to: ServerResponse, gone: () => boolean): Promise<void> {
  const tell = (text: string) => gone() || to.write(text) || drained(to);
  try {
    for await (const one of news) {
      if (gone()) break;
      if ('line' in one) await tell(`data: ${JSON.stringify(one.line)}\n\n`);
      else if ('fate' in one) await tell(`event: end\ndata: ${JSON.stringify({ ...one.fate, lines: [] })}\n\n`);
      else await tell(': alive\n\n');
    }
  } catch (error) {
    await tell(`event: error\ndata: ${JSON.stringify(toWire(error))}\n\n`);
  }
  to.end();
}

/** Resolves when more can be written, or nobody reads any more. */
function drained(to: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => to.destroy(), LIMITS.event_stall_ms);
    const done = () => {
      clearTimeout(timer);
      to.off('drain', done);
      to.off('close', done);
      resolve();
    };
    to.on('drain', done);
    to.on('close', done);
  });
}
