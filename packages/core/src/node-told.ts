/**
 * What nodes tell of themselves and of their workers, checked: a node may be broken, or may lie, and what it says is
 * listed, summed and compared beside what others say. It stands apart from the link because the listing asks nodes too.
 *
 * What always holds: what passes is of its kind and bounded; what does not is refused as a whole, with a BadInput that
 * says where, or, where it answers what the core asked, with an OutcomeUnknown for who had asked the core. What a worker
 * may is not looked at here: that is never taken from a node's word (`vouchers.ts`).
 */
import { type TSchema, Type, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox';
import {
  describe,
  type Grants,
  ID_PATTERN,
  ISOLATION_LEVELS,
  type Job,
  LIMITS,
  type NodeInfo,
  type NodeLoad,
  OutcomeUnknown,
  type Provisioned,
  type TicketPart,
  type TicketRole,
  type ToldFate,
  type VolumeInfo,
  type WorkerInfo,
} from '@hauki/protocol';
import { readably } from '@hauki/protocol/schema-refusal';
import { NODE_LIMITS } from './limits.ts';

const strict = { additionalProperties: false };
const { word_chars, sentence_chars, count } = NODE_LIMITS;
const Word = Type.String({ maxLength: word_chars });
const Sentence = Type.String({ maxLength: sentence_chars });
const Count = Type.Number({ minimum: 0, maximum: count });
/** Milliseconds since 1970, and whatever else is only shown. */
const Shown = Type.Number();
const Level = Type.Union(ISOLATION_LEVELS.map((level) => Type.Literal(level)));
/** At most so many, under short names. */
const named = (of: TSchema, most: number) =>
  Type.Record(Type.String({ pattern: `^.{1,${word_chars}}$` }), of, { ...strict, maxProperties: most });

const Drivers = named(
  Type.Object(
    {
      available: Type.Boolean(),
      note: Type.Optional(Sentence),
      reason: Type.Optional(Sentence),
      isolation: Sentence,
      level: Level,
      runtimes: Type.Optional(
        Type.Array(Type.Union([Type.Literal('node'), Type.Literal('python')]), { maxItems: NODE_LIMITS.drivers }),
      ),
    },
    strict,
  ),
  NODE_LIMITS.drivers,
);

const Info = Type.Object(
  {
    node: Type.String({ pattern: ID_PATTERN }),
    labels: named(Word, NODE_LIMITS.labels),
    drivers: Drivers,
    memory_mib: Count,
    cores: Count,
    volumes: Type.Optional(
      Type.Object(
        { available: Type.Boolean(), reason: Type.Optional(Sentence), note: Type.Optional(Sentence) },
        strict,
      ),
    ),
  },
  strict,
);

const Load = Type.Object({ workers: Count, memory_used_mib: Count, cpu: Shown }, strict);

const Texts = Type.Array(Sentence, { maxItems: LIMITS.grants });
const orNull = (of: TSchema) => Type.Union([Type.Null(), of]);
const Used = orNull(Shown);

/** Whole ones: a node was given them so. */
const GrantsTold = Type.Object({
  fetch: Type.Array(Type.Object({ to: Sentence, methods: Texts, per_minute: Shown }), { maxItems: LIMITS.grants }),
  connect: Texts,
  meshfs: Type.Object({ read: Texts, write: Texts }),
  volume: orNull(Type.Object({ name: Word, quota_mib: Shown })),
  clone: orNull(Type.Object({ live: Count, total: Count, memory_mib: Count })),
  secrets: Type.Array(Type.Object({ name: Word, to: Texts }), { maxItems: LIMITS.secrets }),
  time: Type.Boolean(),
  random: Type.Boolean(),
});

const Direct = Type.Object(
  { host: Word, port: Type.Integer({ minimum: 0, maximum: 65_535 }), tls: Type.Boolean() },
  strict,
);

const NAMED = {
  worker: Type.String({ pattern: ID_PATTERN }),
  voucher: Type.Optional(Type.String({ maxLength: NODE_LIMITS.voucher_chars })),
};
const Epoch = Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER });

const Workers = Type.Array(
  Type.Object({
    ...NAMED,
    epoch: Epoch,
    isolation: Level,
    direct: Direct,
    grants: GrantsTold,
    pid: Shown,
    born_at: Shown,
    lease_until: Shown,
    lasting: Type.Optional(Type.Boolean()),
    cpu: Type.Optional(Shown),
    turn_ms: Type.Optional(Shown),
    paused_at: Type.Optional(Shown),
    ends_at: Type.Optional(Shown),
    idle_ms: Type.Optional(Shown),
    usage: Type.Optional(
      Type.Object({ cpu_ms: Used, memory_bytes: Used, calls: Used, log_lines: Shown, fetched_bytes: Shown }, strict),
    ),
  }),
  { maxItems: LIMITS.vaults_per_node },
);

/** The rest of a fate is put right rather than refused: what became of a worker is worth knowing in parts. */
const Fates = Type.Array(Type.Object({ ...NAMED, epoch: Type.Optional(Epoch) }), { maxItems: LIMITS.fates });

/**
 * A check that throws what `failed` makes of a BadInput, which is in words for whoever runs the node or kernel; made when
 * it is first needed.
 */
export function checker<T>(schema: TSchema, failed = (error: unknown) => error): (told: unknown) => T {
  let check: ReturnType<ReturnType<typeof readably>> | undefined;
  return (told) => {
    check ??= readably(TypeBoxValidatorCompiler as never)({ schema, httpPart: 'body' });
    const { error } = check(told);
    if (error) throw failed(error);
    return told as T;
  };
}

const all = checker<{ info: NodeInfo; load: NodeLoad; workers: WorkerInfo[]; fates: ToldFate[] }>(
  Type.Object({ info: Info, load: Load, workers: Workers, fates: Fates }),
);

/** What a node registers with. */
export const registrationOf = (info: unknown, load: unknown, workers: unknown, fates: unknown) =>
  all({ info, load, workers, fates: fates ?? [] });
const announced = checker<{ node: string; workers: WorkerInfo[]; fates: ToldFate[] }>(
  Type.Object({ node: NAMED.worker, workers: Workers, fates: Fates }),
);

/** What a node announces of itself before it registers. */
export const announcementOf = (node: unknown, workers: unknown, fates: unknown) => announced({ node, workers, fates });
export const workerNameOf = checker<string>(NAMED.worker);
export const loadOf = checker<NodeLoad>(Load);
export const driversOf = checker<NodeInfo['drivers']>(Drivers);
export const workersOf = checker<WorkerInfo[]>(Workers);
const fates = checker<ToldFate[]>(Fates);
export const fateOf = (told: unknown): ToldFate => fates([told])[0]!;

/** A check of what a node answers. Throws OutcomeUnknown: what it did nobody knows, and the request was in order. */
const answerOf = <T>(method: string, schema: TSchema) =>
  checker<T>(
    schema,
    (error) => new OutcomeUnknown({ method, why: `its node answered what is no answer (${describe(error)})` }),
  );

const ticketOf = (role: TicketRole) => {
  const Text = Type.String({ minLength: 1, maxLength: word_chars });
  return Type.Object({ jti: Text, role: Type.Literal(role), secret: Text }, strict);
};
const made = answerOf<Provisioned>(
  'provision',
  Type.Object({ isolation: Level, direct: Direct, ticket: ticketOf('owner') }),
);

/** A node's answer to a job is about that job, whatever else it says: nobody is sent to another worker by it. */
export const madeOf = (told: unknown, { worker, epoch = 1, driver }: Job): Provisioned => ({
  ...made(told),
  worker,
  epoch,
  driver,
});
export const ticketPartOf = answerOf<TicketPart>('mint_ticket', ticketOf('visitor'));
export const inspectedOf = answerOf<string>('inspect', Type.String());
export const narrowedOf = answerOf<{ worker: string; grants: Grants }[]>(
  'narrow',
  Type.Array(Type.Object({ worker: NAMED.worker, grants: GrantsTold }), { maxItems: LIMITS.vaults_per_node }),
);
export const volumesOf = checker<VolumeInfo[]>(
  Type.Array(
    Type.Object({
      owner: Sentence,
      name: Word,
      quota_mib: Shown,
      used_bytes: Shown,
      worker: orNull(Word),
      created_at: Shown,
    }),
    { maxItems: LIMITS.volumes_per_node },
  ),
);
