/**
 * What nodes tell of themselves and of their workers, checked: a node may be broken, or may lie, and what it says is
 * listed, summed and compared beside what others say. It stands apart from the link because the listing asks nodes too.
 *
 * What always holds: what passes is of its kind and bounded; what does not is refused as a whole, with a BadInput that
 * says where. What a worker may is not looked at here: that is never taken from a node's word (`vouchers.ts`).
 */
import { type TSchema, Type, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox';
import {
  ID_PATTERN,
  ISOLATION_LEVELS,
  LIMITS,
  type NodeInfo,
  type NodeLoad,
  type ToldFate,
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

const Info = Type.Object(
  {
    node: Type.String({ pattern: ID_PATTERN }),
    labels: named(Word, NODE_LIMITS.labels),
    drivers: named(
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
    ),
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
    direct: Type.Object(
      { host: Word, port: Type.Integer({ minimum: 0, maximum: 65_535 }), tls: Type.Boolean() },
      strict,
    ),
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

/** A check that throws BadInput, in words for whoever runs the node or kernel; made when it is first needed. */
export function checker<T>(schema: TSchema): (told: unknown) => T {
  let check: ReturnType<ReturnType<typeof readably>> | undefined;
  return (told) => {
    check ??= readably(TypeBoxValidatorCompiler as never)({ schema, httpPart: 'body' });
    const { error } = check(told);
    if (error) throw error;
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
export const loadOf = checker<NodeLoad>(Load);
export const workersOf = checker<WorkerInfo[]>(Workers);
const fates = checker<ToldFate[]>(Fates);
export const fateOf = (told: unknown): ToldFate => fates([told])[0]!;
