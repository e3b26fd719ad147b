/**
 * The one error table: everything that can go wrong in operation, with its JSON-RPC code, HTTP status, typed fields,
 * and whether trying again can help. A class here is the same on both ends of a wire: `toWire` and `fromWire` are
 * inverse. Bugs are not here: they throw assertions. It lies in three files, for pages, which load what they use: what
 * callers make (`caller-errors.ts`), what those make who are called (`called-errors.ts`), and here all else, which the
 * core and nodes tell. This file is long because it is one table.
 *
 * Codes −32700…−32603 are JSON-RPC 2.0's own; ours lie in its server range from −32000 downwards.
 */

import { define } from './mesh-error.ts';

// Input
/** `scope` and `target`: what the token would have needed. */
export const Forbidden = /* @__PURE__ */ define<{ why: string; scope?: string; target?: string }>(
  'Forbidden',
  -32013,
  403,
  false,
  (f) => f.why,
);
export const GrantMissing = /* @__PURE__ */ define<{ grant: string; wanted: string }>(
  'GrantMissing',
  -32014,
  403,
  false,
  (f) => `The worker has no grant for this: ${f.grant} ${f.wanted}. Grant it when you clone or evolve, or do without`,
);
export const TokenUnknown = /* @__PURE__ */ define<{ token: string }>(
  'TokenUnknown',
  -32015,
  404,
  false,
  (f) => `There is no token ${f.token} that you may see. \`hauki token ls\` lists them`,
);

// Tickets: one error for each way in which a ticket can be wrong
export const TicketExpired = /* @__PURE__ */ define<{ expired_at: string }>(
  'TicketExpired',
  -32021,
  401,
  true,
  (f) => `The ticket expired at ${f.expired_at}. Ask for a new one`,
);
export const TicketReplayed = /* @__PURE__ */ define<{ ticket: string }>(
  'TicketReplayed',
  -32022,
  401,
  false,
  (f) => `Ticket ${f.ticket} was redeemed before; a ticket works once`,
);
export const TicketAudience = /* @__PURE__ */ define<{ why: string }>(
  'TicketAudience',
  -32023,
  401,
  false,
  (f) => `The ticket was issued to another key: ${f.why}`,
);
export const TicketMisdirected = /* @__PURE__ */ define<{ why: string }>(
  'TicketMisdirected',
  -32024,
  401,
  false,
  (f) => `The ticket is for another worker: ${f.why}`,
);
export const TicketUnproven = /* @__PURE__ */ define<{ why: string }>(
  'TicketUnproven',
  -32025,
  401,
  false,
  (f) => `Whoever sent the ticket does not hold its secret: ${f.why}`,
);

// Placement and provisioning
export const NoNodeFits = /* @__PURE__ */ define<{ wanted: object; have: string[] }>(
  'NoNodeFits',
  -32030,
  503,
  true,
  ({ wanted, have }) => {
    const [what, start] =
      'kernel' in Object(wanted) || 'kernels' in Object(wanted)
        ? ['kernel', 'hauki kernel --join']
        : ['node', 'hauki node'];
    const there =
      have.length === 0 ? `There are no ${what}s; start one with: ${start}` : `There is: ${have.join('; ')}`;
    return `No ${what} fits. Wanted: ${JSON.stringify(wanted)}. ${there}`;
  },
);
export const VaultFailed = /* @__PURE__ */ define<{
  driver: string;
  reason: string;
  log_tail?: string;
  worker?: string;
}>(
  'VaultFailed',
  -32031,
  500,
  true,
  (f) => `The ${f.driver} vault could not be started: ${f.reason}${f.log_tail ? `\n${f.log_tail}` : ''}`,
);
export const SourceRejected = /* @__PURE__ */ define<{
  stage: 'parse' | 'load' | 'exports' | 'bundle' | 'import' | 'routes';
  reason: string;
  log_tail?: string;
  /** The worker that was not to be: `hauki why` knows it. */
  worker?: string;
}>('SourceRejected', -32032, 422, false, (f) => `The worker's source was refused (${f.stage}): ${f.reason}`);
/** `used`: what is taken already, by the token and those below it. */
export const QuotaExceeded = /* @__PURE__ */ define<{
  what: string;
  limit: number;
  /** Taken before. */
  used: number;
  asked: number;
  /** When there is room again by itself; left out where something must end first. */
  wait_ms?: number;
}>('QuotaExceeded', -32034, 429, true, ({ what, limit, used, asked, wait_ms }) => {
  let advice = asked > limit ? 'Ask for less' : 'End some of its workers (hauki ps, hauki kill)';
  if (wait_ms !== undefined) advice = `Try again in ${Math.ceil(wait_ms / 1_000)} s`;
  return `The token's quota does not allow this: of ${limit} ${what} ${used} are taken, and ${asked} more would be ${used + asked - limit} too many. ${advice}, or use a token with a larger quota (hauki token create)`;
});
export const WorkerPaused = /* @__PURE__ */ define<{ worker: string; since: string }>(
  'WorkerPaused',
  -32035,
  503,
  true,
  (f) => `Worker ${f.worker} is paused since ${f.since}. Resume it: hauki resume ${f.worker}`,
);
export const WorkerUnknown = /* @__PURE__ */ define<{ worker: string }>(
  'WorkerUnknown',
  -32033,
  404,
  false,
  (f) => `There is no worker ${f.worker}`,
);

// Volumes
export const VolumeInUse = /* @__PURE__ */ define<{ volume: string; worker: string }>(
  'VolumeInUse',
  -32070,
  409,
  true,
  (f) =>
    `The volume ${f.volume} belongs to the worker ${f.worker} while that lives. End it first, or name another volume`,
);
export const VolumeUnknown = /* @__PURE__ */ define<{ volume: string }>(
  'VolumeUnknown',
  -32071,
  404,
  false,
  (f) => `There is no volume ${f.volume}`,
);
/** `code`: the system's, such as ENOSPC, where it is the system that refused. */
export const VolumeFailed = /* @__PURE__ */ define<{ volume: string; why: string; code?: string }>(
  'VolumeFailed',
  -32072,
  507,
  false,
  (f) => `The volume ${f.volume} could not do that: ${f.why}`,
);

// Lasting workers and the spool
export const NameTaken = /* @__PURE__ */ define<{ name: string }>(
  'NameTaken',
  -32060,
  409,
  false,
  (f) => `There is a lasting worker ${f.name} already. Choose another name, or delete that one first`,
);
export const WorkerRestarting = /* @__PURE__ */ define<{ worker: string; why: string }>(
  'WorkerRestarting',
  -32061,
  503,
  true,
  (f) => `The lasting worker ${f.worker} is not running just now: ${f.why}. Ask again in a moment`,
);
export const JobUnknown = /* @__PURE__ */ define<{ job: string }>(
  'JobUnknown',
  -32062,
  404,
  false,
  (f) => `There is no job ${f.job} in the spool; what has ended is kept for a limited time`,
);
export const JobEnded = /* @__PURE__ */ define<{ job: string; state: string }>(
  'JobEnded',
  -32063,
  409,
  false,
  (f) => `Job ${f.job} has ended already: it is ${f.state}, and stays so`,
);
// Kernels
export const ModuleUnknown = /* @__PURE__ */ define<{ module: string; has?: string[] }>(
  'ModuleUnknown',
  -32080,
  404,
  false,
  (f) =>
    `There is no module ${f.module} here${f.has === undefined ? '' : `. There ${f.has.length > 0 ? `is: ${f.has.join(', ')}` : 'are none'}`}`,
);
/** A change was tried and did not pass; what ran before runs on. */
export const EvolveRejected = /* @__PURE__ */ define<{
  module: string;
  stage: string;
  why: string;
  /** Of the source, where it is known. */
  line?: number;
  log?: string;
}>(
  'EvolveRejected',
  -32081,
  422,
  false,
  (f) =>
    `${f.module} was rejected at the stage ${f.stage}${f.line === undefined ? '' : `, line ${f.line}`}: ${f.why}. Nothing was changed`,
);
export const EditRefused = /* @__PURE__ */ define<{ why: string; running?: string; diff?: string }>(
  'EditRefused',
  -32082,
  409,
  false,
  (f) => `The change cannot be made: ${f.why}`,
);
/** A vault was there and took the request, but gave no answer that can be passed on. */
export const PluginFailed = /* @__PURE__ */ define<{ module: string; why: string }>(
  'PluginFailed',
  -32083,
  502,
  false,
  (f) => `The module ${f.module} failed: ${f.why}`,
);

export const JobCancelled = /* @__PURE__ */ define<{ job: string }>(
  'JobCancelled',
  -32065,
  409,
  false,
  (f) => `Job ${f.job} was cancelled; it has no result`,
);
export const KeyReused = /* @__PURE__ */ define<{ key: string; job: string }>(
  'KeyReused',
  -32064,
  409,
  false,
  (f) => `The key ${JSON.stringify(f.key)} belongs to another request, job ${f.job}. A new job needs a new key`,
);

// MeshFS
export const PointerMissing = /* @__PURE__ */ define<Record<never, never>>(
  'PointerMissing',
  -32040,
  400,
  false,
  () => 'No pointer was given. A pointer looks like gem-pointer://wiki/project/page',
);
export const PointerInvalid = /* @__PURE__ */ define<{ pointer: string; why: string }>(
  'PointerInvalid',
  -32041,
  400,
  false,
  (f) => `Not a pointer: ${JSON.stringify(f.pointer)}: ${f.why}`,
);
export const PointerUnknown = /* @__PURE__ */ define<{ pointer: string }>(
  'PointerUnknown',
  -32042,
  404,
  false,
  (f) => `Nothing was ever written to ${f.pointer}`,
);
export const PayloadLost = /* @__PURE__ */ define<{ pointer: string; digest: string }>(
  'PayloadLost',
  -32043,
  410,
  false,
  (f) => `${f.pointer} is known, but its content (sha256 ${f.digest}) is gone from the store`,
);
export const StorageFailed = /* @__PURE__ */ define<{ what: string }>(
  'StorageFailed',
  -32044,
  507,
  true,
  (f) => `The store could not keep this: ${f.what}. Nothing was changed`,
);

/** The pointer's newest version is a deletion. `version` is the deletion's own; earlier ones stay readable. */
export const PointerDeleted = /* @__PURE__ */ define<{ pointer: string; version: number; deleted_at: string }>(
  'PointerDeleted',
  -32045,
  410,
  false,
  (f) =>
    `${f.pointer} was deleted at ${f.deleted_at} (version ${f.version}). Earlier versions can still be read: ask for its history`,
);
/** A compare-and-set found something else. `found` is what is there now; null for nothing, or for what was deleted. */
export const PreconditionFailed = /* @__PURE__ */ define<{
  pointer: string;
  wanted: string;
  found: { version: number; digest: string } | null;
}>(
  'PreconditionFailed',
  -32046,
  412,
  false,
  (f) =>
    `${f.pointer} is not as expected (${f.wanted}): ${!f.found ? 'there is nothing' : `there is version ${f.found.version}, sha256 ${f.found.digest}`}. Nothing was changed`,
);
export const VersionUnknown = /* @__PURE__ */ define<{
  pointer: string;
  version: number;
  oldest: number;
  newest: number;
}>(
  'VersionUnknown',
  -32047,
  404,
  false,
  (f) => `${f.pointer} has no version ${f.version}; kept are ${f.oldest} to ${f.newest}`,
);
/** A watcher fell too far behind, or begins before what is remembered: list again, then watch from there. */
export const ChangesMissed = /* @__PURE__ */ define<{ after: number; oldest: number }>(
  'ChangesMissed',
  -32048,
  410,
  false,
  (f) =>
    `Changes after revision ${f.after} are no longer all known; the oldest known is ${f.oldest}. Read the list again and watch from its revision`,
);
export const RangeUnsatisfiable = /* @__PURE__ */ define<{ pointer: string; bytes: number }>(
  'RangeUnsatisfiable',
  -32049,
  416,
  false,
  (f) => `${f.pointer} has ${f.bytes} bytes; the range asked for lies behind them`,
);
/** `wanted` and `got` are SHA-256 in hex. */
export const DigestMismatch = /* @__PURE__ */ define<{ wanted: string; got: string }>(
  'DigestMismatch',
  -32090,
  400,
  false,
  (f) => `The content's sha256 is ${f.got}, but ${f.wanted} was announced. Nothing was changed; send it again`,
);
export const UploadUnknown = /* @__PURE__ */ define<{ upload: string }>(
  'UploadUnknown',
  -32091,
  404,
  false,
  (f) => `There is no upload ${f.upload}: it was finished, given up, or too old. Begin again at byte 0`,
);
export const UploadOffset = /* @__PURE__ */ define<{ upload: string; offset: number }>(
  'UploadOffset',
  -32092,
  409,
  false,
  (f) => `Upload ${f.upload} goes on at byte ${f.offset}`,
);
/** Binary content was asked for as text. */
export const NotText = /* @__PURE__ */ define<{ pointer: string; media_type: string }>(
  'NotText',
  -32093,
  415,
  false,
  (f) => `The content of ${f.pointer} (${f.media_type}) is not UTF-8 text. Read its bytes: GET /api/v2/meshfs/raw`,
);
