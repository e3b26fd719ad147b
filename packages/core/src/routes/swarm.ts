/** Cloning, calling over the relay, asking after a worker, ending it. */
import { isUtf8 } from 'node:buffer';
import type { OutgoingHttpHeaders } from 'node:http';
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import {
  BadInput,
  CPU_SHARE,
  type EventName,
  InternalError,
  ISOLATION,
  ISOLATION_LEVELS,
  LEASE,
  LIMITS,
  MeshError,
  TURN_MS,
  toWire,
  WORKER_LANGUAGES,
} from '@hauki/protocol';
import { answerPlain } from '@hauki/rpc';
import { areFirst, textOf } from '@hauki/rpc/node';
import type { FastifyReply } from 'fastify';
import { MEMORY_MIB } from '../bounds.ts';
import type { Callers } from '../callers.ts';
import type { Registry } from '../registry.ts';
import type { Relay } from '../relay.ts';
import { CALL, demand, may } from '../rights.ts';
import type { SpawnRequest, Swarm } from '../swarm.ts';

export interface SwarmRoutesPowers {
  swarm: Swarm;
  relay: Relay;
  callers: Pick<Callers, 'begin'>;
  registry: Registry;
  emit(name: EventName, fields: object): void;
}

/** Stands for a body that is no text: JSON-RPC has an answer of its own to it. */
const NO_JSON = '\ufffd';
/** An answer in parts, a line of JSON each. */
const IN_PARTS = 'application/x-ndjson';

/** Answers a request in parts, or as ever where nothing is told before the end. */
function inParts(reply: FastifyReply) {
  const { raw } = reply;
  const parts = {
    begun: false,
    tell(part: object): void {
      if (raw.writableEnded) return;
      if (!parts.begun) {
        reply.hijack();
        raw.writeHead(200, { ...(reply.getHeaders() as OutgoingHttpHeaders), 'content-type': IN_PARTS });
      }
      parts.begun = true;
      raw.write(`${JSON.stringify(part)}\n`);
    },
    end(last: object): object {
      if (!parts.begun) return last;
      parts.tell(last);
      raw.end();
      return reply;
    },
  };
  return parts;
}

const strict = { additionalProperties: false };
const Texts = Type.Array(Type.String({ maxLength: 1024 }), { maxItems: LIMITS.grants });
const Milliseconds = (description: string) => Type.Integer({ minimum: 0, description });
const Audience = Type.String({
  pattern: '^[A-Za-z0-9_-]{43}$',
  description:
    'RFC 7638 thumbprint of the caller’s Ed25519 key; whoever calls over HTTP alone redeems no ticket: any will do',
});

const Target = Type.String({ maxLength: 1024, description: 'host:port' });
const Targets = Type.Array(Target, { maxItems: LIMITS.grants });
const Whole = (maximum: number, minimum = 1, description?: string) =>
  Type.Integer({ minimum, maximum, ...(description ? { description } : {}) });

/** Grants as they may be asked for; `protocol/src/grants.ts` checks what is in them. */
const GRANTS = Type.Object(
  {
    fetch: Type.Optional(
      Type.Array(
        Type.Union([
          Target,
          Type.Object(
            {
              to: Target,
              methods: Type.Optional(Texts),
              per_minute: Type.Optional(Whole(LIMITS.fetches_per_minute, 0)),
            },
            strict,
          ),
        ]),
        { maxItems: LIMITS.grants },
      ),
    ),
    connect: Type.Optional(Targets),
    meshfs: Type.Optional(Type.Object({ read: Type.Optional(Texts), write: Type.Optional(Texts) }, strict)),
    volume: Type.Optional(
      Type.Union([
        Type.Null(),
        Type.String({ maxLength: 64 }),
        Type.Object(
          { name: Type.String({ maxLength: 64 }), quota_mib: Type.Optional(Whole(LIMITS.volume_mib)) },
          strict,
        ),
      ]),
    ),
    clone: Type.Optional(
      Type.Union([
        Type.Null(),
        Whole(LIMITS.clone_live),
        Type.Object(
          {
            live: Whole(LIMITS.clone_live),
            total: Type.Optional(Whole(LIMITS.clone_total)),
            memory_mib: Type.Optional(Whole(LIMITS.clone_memory_mib)),
          },
          strict,
        ),
      ]),
    ),
    time: Type.Optional(Type.Boolean({ description: 'the wall clock' })),
    random: Type.Optional(Type.Boolean({ description: 'entropy' })),
  },
  { ...strict, description: 'all that it may do in the world; nothing where they are left out' },
);

/** What rides with a request (docs/protocol.md, section 20). */
const First = Type.Array(
  Type.Object({ text: Type.String(), bytes: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_-]*$' })) }, strict),
  { maxItems: LIMITS.first_messages, description: 'the first messages of the owner’s session' },
);

/** What to run and what it may do: the part that every way of spawning shares. */
export const MODULE = {
  pointer: Type.Optional(Type.String({ description: 'gem-pointer:// of a module in MeshFS' })),
  source: Type.Optional(
    Type.String({
      description:
        'the module itself, in place of a pointer: what it exports as functions, or its default class, can be called (in Python: its functions)',
    }),
  ),
  language: Type.Optional(
    Type.Union(
      WORKER_LANGUAGES.map((language) => Type.Literal(language)),
      { description: 'javascript where it is left out' },
    ),
  ),
  driver: Type.Optional(
    Type.String({
      maxLength: 32,
      description: 'lxc, quickjs or process; left out: the strongest that there is. Python needs lxc or process',
    }),
  ),
  labels: Type.Optional(
    Type.Record(Type.String({ maxLength: 64 }), Type.String({ maxLength: 256 }), {
      maxProperties: LIMITS.labels,
      description: 'that its node must have',
    }),
  ),
  min_isolation: Type.Optional(
    Type.Union(
      ISOLATION_LEVELS.map((level) => Type.Literal(level)),
      { description: `weakest first: ${ISOLATION_LEVELS.map((level) => `${level}: ${ISOLATION[level]}`).join('; ')}` },
    ),
  ),
  memory_mib: Type.Optional(
    Whole(MEMORY_MIB.most, MEMORY_MIB.least, 'left out: 32 in quickjs, 128 in lxc and process, which need 48 at least'),
  ),
  cpu: Type.Optional(
    Type.Number({
      minimum: CPU_SHARE.least,
      maximum: CPU_SHARE.most,
      description: `share of a core; from ${CPU_SHARE.least_quickjs} in a quickjs vault`,
    }),
  ),
  turn_ms: Type.Optional(
    Type.Integer({
      minimum: TURN_MS.least,
      maximum: TURN_MS.most,
      description: 'what one turn of its code may compute; with the driver quickjs alone',
    }),
  ),
  grants: Type.Optional(GRANTS),
  secrets: Type.Optional(
    Type.Record(
      Type.String({ maxLength: 64 }),
      Type.Object({ value: Type.String({ maxLength: LIMITS.secret_chars }), to: Targets }, strict),
      {
        maxProperties: LIMITS.secrets,
        description: 'put in for {{secret:NAME}} in requests that the worker sends to `to`; the worker never sees them',
      },
    ),
  ),
  load_timeout_ms: Type.Optional(Milliseconds('what loading the module may take; 10000 where it is left out')),
};

/** What a clone is asked for with. */
export const Spawn = Type.Object(
  {
    ...MODULE,
    lease_ms: Type.Optional(
      Whole(
        LEASE.max_ms,
        LEASE.min_ms,
        'it ends when its owner’s session has been silent for so long; left out: 30000',
      ),
    ),
    heartbeat_ms: Type.Optional(
      Whole(LEASE.max_ms, LEASE.min_heartbeat_ms, 'how often that session renews the lease; left out: 5000'),
    ),
    ttl_ms: Type.Optional(
      Whole(LEASE.max_ms, 0, 'it lives for so long without any renewal: what a caller over HTTP alone gives'),
    ),
    max_life_ms: Type.Optional(Whole(LEASE.max_life_ms, LEASE.min_ms, 'it ends after so long for certain')),
    idle_ms: Type.Optional(Whole(LEASE.max_ms, LEASE.min_ms, 'it ends when nobody has called it for so long')),
    first: Type.Optional(First),
    audience: Audience,
  },
  strict,
);

/** Throws BadInput where what rides is more than may. */
export function checkFirst({ first }: SpawnRequest): void {
  if (first && !areFirst(first))
    throw new BadInput({ what: 'first', why: `its messages may have ${LIMITS.first_chars} characters together` });
}

/** https://www.w3.org/TR/trace-context/#traceparent-header */
const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;
/** The path of a route about one worker. */
export const Worker = Type.Object({ worker: Type.String({ pattern: '^[a-z0-9-]{1,64}$' }) });

export const swarmRoutes: FastifyPluginAsyncTypebox<SwarmRoutesPowers> = async (app, powers) => {
  const { swarm, relay, callers, registry, emit } = powers;
  // JSON-RPC text is parsed by JSON-RPC's own rules, batches and parse errors included.
  app.removeAllContentTypeParsers();
  const json = app.getDefaultJsonParser('error', 'error');
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body: Buffer, done) => {
    if (request.routeOptions.config && (request.routeOptions.config as { raw?: boolean }).raw)
      return done(null, isUtf8(body) ? body.toString() : NO_JSON);
    // Clients that send a content type with every request send it with an empty body too.
    if (body.length === 0 && request.method === 'DELETE') return done(null, undefined);
    return json(request, textOf(body), done);
  });

  app.post(
    '/api/v2/swarm_spawn_ephemeral',
    {
      config: { scope: 'spawn.pointer' },
      schema: {
        tags: ['swarm'],
        summary: 'Clone a worker: place it, provision its vault, load it, and get the ticket',
        description: `A source needs the scope spawn, a pointer alone spawn.pointer. Accepting ${IN_PARTS}, the answer may come twice, a line each: as soon as there is a vault, and when its worker is loaded or has failed to`,
        body: Spawn,
      },
    },
    async (request, reply) => {
      const body = request.body as SpawnRequest;
      checkFirst(body);
      if (!request.headers.accept?.includes(IN_PARTS))
        return { status: 'success', ...(await swarm.spawn(body, request.principal)) };
      const parts = inParts(reply);
      try {
        const spawned = await swarm.spawn(body, request.principal, (part) =>
          parts.tell({ status: 'success', ...part }),
        );
        return parts.end({ status: 'success', ...spawned });
      } catch (error) {
        if (!parts.begun) throw error;
        const told = error instanceof MeshError ? error : new InternalError({ why: 'the clone failed' });
        return parts.end({ status: 'error', error: toWire(told) });
      }
    },
  );

  app.post(
    '/api/v2/ephemeral/:worker',
    {
      config: { raw: true, scope: CALL },
      schema: {
        tags: ['swarm'],
        summary: 'Call a worker over the relay: a JSON-RPC 2.0 request or batch, answered as JSON-RPC',
        description:
          'Errors of the call are JSON-RPC’s, with status 200: `error.data.name` is their key. `params` are the arguments, in a list',
        params: Worker,
      },
    },
    async (request, reply) => {
      const { worker } = request.params;
      demand(request.principal, { scope: 'call', worker: registry.known(worker) });
      const { traceparent } = request.headers;
      const traced = typeof traceparent === 'string' && TRACEPARENT.test(traceparent) ? { traceparent } : {};
      const options = { timeout_ms: LIMITS.call_ms, ...traced };
      // Of workers that are none any more nothing is noted: nobody would hear of their end again.
      const over = registry.workers.has(worker) ? callers.begin(worker, request.principal.name) : () => {};
      const text = await answerPlain(request.body as string, (method, params) =>
        relay.call(worker, method, params, options, request.principal.name),
      ).finally(over);
      if (text === undefined) return reply.status(204).send();
      return reply.type('application/json').send(text);
    },
  );

  app.get(
    '/api/v2/ephemeral/:worker',
    {
      config: { scope: ['read', ...CALL] },
      schema: { tags: ['swarm'], summary: 'What became of a worker', params: Worker },
    },
    async (request) => {
      const { worker } = request.params;
      if (!may(request.principal, { scope: 'read' }))
        demand(request.principal, { scope: 'call', worker: registry.known(worker) });
      return { status: 'success', worker, ...swarm.state(worker), info: registry.workers.get(worker) ?? null };
    },
  );

  app.post(
    '/api/v2/ephemeral/:worker/ticket',
    {
      config: { scope: CALL },
      schema: {
        tags: ['swarm'],
        summary: 'A visitor’s ticket to a living worker: it may call, but neither renew nor end',
        params: Worker,
        body: Type.Object({ audience: Audience }, strict),
      },
    },
    async (request) => {
      const { worker } = request.params;
      const { owner } = registry.known(worker);
      demand(request.principal, { scope: 'call', worker: { worker, owner } });
      const ticket = await swarm.visitorTicket(worker, request.body.audience, request.principal.name);
      emit('VISITOR_TICKET', { worker, owner, by: request.principal.name });
      return { status: 'success', worker, ticket };
    },
  );

  app.delete(
    '/api/v2/ephemeral/:worker',
    {
      config: { scope: ['destruct', 'spawn.pointer'] },
      schema: { tags: ['swarm'], summary: 'Destruct: kill at once', params: Worker },
    },
    async (request) => {
      const { worker } = request.params;
      demand(request.principal, { scope: 'destruct', worker: registry.known(worker) });
      await swarm.destruct(worker, request.principal);
      return { status: 'success', worker };
    },
  );
};
