/** Events over HTTP: what is remembered as JSON, and what comes as Server-Sent Events (WHATWG HTML, section 9.2). */
import type { ServerResponse } from 'node:http';
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { LIMITS, type MeshEvent } from '@hauki/protocol';
import { AFTER, asked, type EventReader, type Events, visibleTo } from '../events.ts';
import type { Principal } from '../rights.ts';
import { Shares } from '../shares.ts';
import type { TokenStore } from '../tokens.ts';

/** Events in one answer where nobody says how many. */
const RECENT = 100;

export interface EventRoutesPowers {
  events: Events;
  tokens: Pick<TokenStore, 'hold'>;
}

const strict = { additionalProperties: false };
const Name = Type.String({ maxLength: 64, pattern: '^[A-Z0-9_]+$' });
const Filters = {
  name: Type.Optional(
    Type.Union([Name, Type.Array(Name, { maxItems: LIMITS.event_names })], {
      description: 'only events whose name begins so; may be repeated',
    }),
  ),
  worker: Type.Optional(Type.String({ maxLength: 64, description: 'only events of this worker' })),
  after: Type.Optional(
    Type.String({
      pattern: AFTER.source,
      description: 'begin after the event with this id; 0: with the oldest remembered',
    }),
  ),
};

export const eventRoutes: FastifyPluginAsyncTypebox<EventRoutesPowers> = async (app, { events, tokens }) => {
  const streams = new Shares('streams of events', LIMITS.event_streams, LIMITS.event_streams_each);

  const matcher = (principal: Principal, { name, worker }: { name?: string | string[]; worker?: string }) => {
    const wanted = asked(name === undefined ? [] : [name].flat(), worker);
    return (event: MeshEvent) => wanted(event) && visibleTo(principal, event);
  };

  app.get(
    '/api/v2/events/recent',
    {
      config: { scope: ['events', 'read'] },
      schema: {
        tags: ['events'],
        summary: 'The events that the core remembers and this token may see, oldest first',
        querystring: Type.Object(
          { ...Filters, limit: Type.Optional(Type.Integer({ minimum: 1, maximum: LIMITS.events, default: RECENT })) },
          strict,
        ),
      },
    },
    async (request) => {
      const { after, limit = RECENT, ...filters } = request.query;
      const found = events.recent({ after, limit, match: matcher(request.principal, filters) });
      return {
        status: 'success',
        core: events.core_id,
        events: found.map(({ id, seq, at, name, fields }) => ({ id, seq, at, name, fields })),
      };
    },
  );

  app.get(
    '/api/v2/events',
    {
      config: { scope: ['events', 'read'] },
      exposeHeadRoute: false,
      schema: {
        tags: ['events'],
        summary: 'Events as they happen, as Server-Sent Events; Last-Event-ID resumes',
        querystring: Type.Object(Filters, strict),
      },
    },
    (request, reply) => {
      const { principal } = request;
      const { after, ...filters } = request.query;
      const last = request.headers['last-event-id'];
      const reader = events.reader({
        after: typeof last === 'string' && last !== '' ? last : after,
        match: matcher(principal, filters),
      });
      const { raw } = reply;
      const ends = [() => reader.close()];
      const close = () => {
        for (const end of ends) end();
      };
      try {
        ends.push(streams.take(principal.name));
        ends.push(tokens.hold(principal, () => raw.destroy()));
      } catch (error) {
        close();
        throw error;
      }
      raw.once('close', close);
      reply.hijack();
      raw.writeHead(200, {
        ...(reply.getHeaders() as Record<string, string>),
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-store',
        // For proxies that would gather it.
        'x-accel-buffering': 'no',
      });
      stream(reader, raw);
    },
  );
};

/** Writes what the reader gives as fast as the client takes it; what it does not take stays in the ring. */
function stream(reader: EventReader, to: ServerResponse): void {
  let free = true;
  let stalled_at = 0;
  const pump = () => {
    for (let event = free ? reader.take() : undefined; event; event = free ? reader.take() : undefined)
      free = to.write(`id: ${event.id}\ndata: ${event.text}\n\n`);
    if (!free) stalled_at ||= performance.now();
  };
  to.on('drain', () => {
    free = true;
    stalled_at = 0;
    pump();
  });
  // An id without data moves the place to resume on, past what the filter left out.
  const beat = setInterval(() => {
    if (free) free = to.write(`: alive\nid: ${reader.position}\n\n`);
    else if (stalled_at > 0 && performance.now() - stalled_at > LIMITS.event_stall_ms) to.destroy();
  }, LIMITS.event_idle_ms);
  to.once('close', () => clearInterval(beat));
  reader.wake = pump;
  free = to.write('retry: 1000\n\n');
  pump();
  // Also who has heard nothing yet can resume.
  if (free) free = to.write(`id: ${reader.position}\n\n`);
}
