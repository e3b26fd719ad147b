/** What the core's routes answer, and what they read that no schema checks: for its description alone (`/docs`). */
import {
  content,
  type Described,
  Flag,
  List,
  listOf,
  objectOf,
  ok,
  oneOf,
  orNull,
  Some,
  success,
  Text,
  type Told,
  Whole,
} from '@hauki/protocol/http-description';

/** A version of MeshFS. */
const VERSION = {
  pointer: Text,
  digest: Text,
  version: Whole,
  revision: Whole,
  bytes: Whole,
  media_type: Text,
  'language?': Text,
  written_at: Text,
  'deleted?': Flag,
};
const Version = objectOf(VERSION);
const { pointer: _pointer, revision: _revision, ...EARLIER } = VERSION;
const TICKET = objectOf({ signed: Text, secret: Text });
const ENTRY = {
  id: Text,
  name: Text,
  owner: Text,
  scopes: listOf(Text),
  targets: Some,
  quota: Some,
  used: Some,
  expires_at: orNull(Whole),
};
const LASTING = {
  worker: Text,
  owner: Text,
  state: Text,
  why: orNull(Text),
  node: orNull(Text),
  epoch: Whole,
  deaths: List,
};
const JOB = {
  job: Text,
  owner: Text,
  state: Text,
  method: Text,
  attempts: Whole,
  max_attempts: Whole,
  history: List,
  accepted_at: Whole,
  ended_at: orNull(Whole),
};
const header = (description: string): Described => ({ ...Text, description });
const EXPECT = {
  'if-match?': header('digests or version numbers that must be there, in quotes, or *'),
  'if-none-match?': header('*: only where there is nothing'),
};
const READ = {
  'if-match?': header('digests or version numbers, in quotes, or *'),
  'if-none-match?': header('tags that the reader has already'),
};
const RESUME = objectOf({ 'last-event-id?': header('resumes behind the event with this id') });
const events: Told = { answers: { 200: content('Server-Sent Events', 'text/event-stream') }, headers: RESUME };
const VersionNumber: Described = { ...Whole, minimum: 1 };
const version = objectOf({ 'version?': VersionNumber });
const EVOLVED = {
  module: Text,
  kernels: List,
  waves: Whole,
  'removed?': listOf(Text),
  'not_removed?': listOf(Text),
  'away?': listOf(Text),
};
/** As a kernel describes it of its own. */
const ofKernel: Told = { answers: { 200: Some } };

const RPC = objectOf({ jsonrpc: Text, method: Text, 'id?': {}, 'params?': {} });

/** By method and path. */
export const TOLD: Record<string, Told> = {
  'GET /health': {
    answers: {
      200: objectOf({
        status: oneOf('ok'),
        core: Text,
        nodes: Whole,
        workers: Whole,
        uptime_s: Whole,
      }),
    },
  },
  'GET /.well-known/jwks.json': { answers: { 200: objectOf({ keys: List }) } },
  'GET /api/v2/schemas/ticket.json': { answers: { 200: objectOf({ delivered: Some, signed_body: Some }) } },
  'GET /api/v2/service_registry': ok({ nodes: List, workers: List, relay_bytes: Whole }),
  'GET /api/v2/sessions': ok({ sessions: List }),
  'POST /api/v2/swarm_spawn_ephemeral': ok({ worker: Text, node: Text, ticket: TICKET, 'first?': List }),
  'POST /api/v2/ephemeral/:worker': {
    answers: {
      200: { ...listOf(Some), ...{ type: ['object', 'array'] }, description: 'JSON-RPC' },
      204: content('Only notifications came'),
    },
    headers: objectOf({ 'traceparent?': Text }),
    body: { anyOf: [RPC, listOf(RPC)], description: 'A JSON-RPC 2.0 request or batch' },
  },
  'GET /api/v2/ephemeral/:worker': ok({
    worker: Text,
    state: oneOf('alive', 'node_lost', 'dead'),
    info: orNull(Some),
    'node?': Text,
    'fate?': Some,
  }),
  'POST /api/v2/ephemeral/:worker/ticket': ok({ worker: Text, ticket: TICKET }),
  'DELETE /api/v2/ephemeral/:worker': ok({ worker: Text }),
  'POST /api/v2/ephemeral/:worker/pause': ok({ worker: Text }),
  'POST /api/v2/ephemeral/:worker/resume': ok({ worker: Text }),
  'POST /api/v2/ephemeral/:worker/inspect': ok({ worker: Text, result: Text }),
  'POST /api/v2/ephemeral/:worker/revoke': ok({ worker: Text, grants: Some }),
  'GET /api/v2/ephemeral/:worker/logs': {
    answers: {
      200: {
        description: 'The lines; with `follow`, Server-Sent Events',
        content: {
          'application/json': {
            schema: success({ worker: Text, epoch: orNull(Whole), lines: List, fate: orNull(Some) }),
          },
          'text/event-stream': { schema: Text },
        },
      },
    },
  },
  'POST /api/v2/lxc_provision': ok({ worker: Text, node: Text, epoch: Whole, driver: Text }),
  'GET /api/v2/lxc_provision': ok({ workers: listOf(objectOf(LASTING)) }),
  'GET /api/v2/lxc_provision/:worker': ok(LASTING),
  'DELETE /api/v2/lxc_provision/:worker': ok({ worker: Text }),
  'POST /api/v2/omega_spool': { answers: { 202: success({ job: Text, state: Text }) } },
  'GET /api/v2/omega_spool': ok({ jobs: listOf(objectOf(JOB)), 'next?': Text }),
  'GET /api/v2/omega_spool/:job': ok({ ...JOB, 'result?': {} }),
  'DELETE /api/v2/omega_spool/:job': ok(JOB),
  'GET /api/v2/volumes': ok({ volumes: List }),
  'DELETE /api/v2/volumes/:name': ok({ volume: Text }),
  'POST /api/v2/meshfs/write': { ...ok(VERSION), headers: objectOf(EXPECT) },
  'GET /api/v2/meshfs/resolve': ok({ ...VERSION, content: Text }),
  'GET /api/v2/meshfs/history': ok({ pointer: Text, versions: listOf(objectOf(EARLIER)), 'next?': Whole }),
  'GET /api/v2/meshfs/list': ok({ revision: Whole, entries: listOf(Version), 'next?': Text }),
  'GET /api/v2/meshfs/watch': events,
  'POST /api/v2/meshfs/gc': ok({ kept: Whole, removed: Whole, removed_bytes: Whole }),
  'PUT /api/v2/meshfs/raw': {
    answers: {
      200: success(VERSION),
      201: { ...success(VERSION), description: 'The first of its pointer' },
      202: {
        ...objectOf({ status: oneOf('accepted'), upload: Text, offset: Whole }),
        description: 'A piece of an upload',
      },
    },
    headers: objectOf({
      ...EXPECT,
      'content-range?': header('which bytes of an upload this piece is'),
      'repr-digest?': header('the SHA-256 of the whole content (RFC 9530)'),
    }),
    body: { type: 'string', format: 'binary' },
    consumes: ['*/*'],
  },
  'GET /api/v2/meshfs/raw': {
    answers: {
      200: content('The content', '*/*'),
      206: content('The range of it that was asked for', '*/*'),
      304: content('The reader has it already'),
    },
    headers: objectOf({ ...READ, 'range?': Text, 'if-range?': Text }),
  },
  'HEAD /api/v2/meshfs/raw': {
    answers: {
      200: content('There is such content, as its headers tell'),
      204: content('How far an upload is, as its headers tell'),
      304: content('The reader has it already'),
    },
    headers: objectOf(READ),
  },
  'DELETE /api/v2/meshfs/raw': {
    answers: {
      200: {
        ...success({
          ...Object.fromEntries(Object.entries(VERSION).map(([name, of]) => [`${name.replace('?', '')}?`, of])),
          'upload?': Text,
        }),
        description: 'The deletion, a version; or the upload that was given up',
      },
    },
    headers: objectOf(EXPECT),
  },
  'POST /api/v2/tokens': ok({ ...ENTRY, created_at: Whole, token: Text }),
  'GET /api/v2/tokens': ok({ tokens: listOf(objectOf({ ...ENTRY, created_at: Whole })) }),
  'GET /api/v2/tokens/self': ok(ENTRY),
  'DELETE /api/v2/tokens/:id': ok({ revoked: listOf(Text), 'ended?': Some }),
  'GET /api/v2/events/recent': ok({ core: Text, events: List }),
  'GET /api/v2/events': events,
  'GET /api/v2/kernels': ok({ kernels: List }),
  'GET /api/v2/kernels/:kernel/status': ofKernel,
  'GET /api/v2/kernels/:kernel/history': { ...ofKernel, querystring: objectOf({ 'module?': Text }) },
  'GET /api/v2/kernels/:kernel/modules/:module/versions': ofKernel,
  'GET /api/v2/kernels/:kernel/modules/:module/versions/:version': ofKernel,
  'GET /api/v2/kernels/:kernel/modules/:module/diff': {
    ...ofKernel,
    querystring: objectOf({ from: VersionNumber, to: VersionNumber }),
  },
  'GET /api/v2/kernels/:kernel/modules/:module/log': { ...ofKernel, querystring: version },
  'POST /api/v2/kernels/:kernel/modules/:module/rollback': { ...ofKernel, body: version },
  'POST /api/v2/kernels/:kernel/modules/:module/weights': {
    ...ofKernel,
    body: objectOf({ versions: { type: 'object', additionalProperties: Whole } }),
  },
  'POST /api/v2/kernels/:kernel/modules/:module/pin': { ...ofKernel, body: objectOf({ pinned: Flag }) },
  'POST /api/evolve': ok(EVOLVED),
  'POST /api/evolve_plugin': ok(EVOLVED),
  'DELETE /api/v2/modules/:module': ok({ module: Text, removed: listOf(Text), not_removed: listOf(Text) }),
};
