/**
 * What a JSON schema refuses, in words for who sent it: which member, what was given, what is expected there. It knows
 * schemas and validators' findings as data alone, so that the core and the kernels say the same.
 */
import { BadInput } from './caller-errors.ts';

/** A JSON schema, as far as ours use it. */
export interface JsonSchema {
  type?: string;
  const?: unknown;
  enum?: unknown[];
  anyOf?: JsonSchema[];
  properties?: Record<string, JsonSchema>;
  minProperties?: number;
  required?: string[];
  additionalProperties?: boolean | JsonSchema;
  patternProperties?: Record<string, JsonSchema>;
  items?: JsonSchema;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  maxItems?: number;
  pattern?: string;
  description?: string;
}

/** One finding of a validator: `instancePath` is a JSON pointer into what was given. */
export interface Finding {
  keyword?: string;
  instancePath?: string;
  params?: unknown;
  message?: string;
}

/** Findings that are told; who mends them sees the rest. */
const MOST = 4;
const SHOWN_CHARS = 60;
/** Members whose values are shown to nobody, and those below them. */
const HIDDEN = /^(secrets?|value|token|password|key|source|content|body)$/i;

const pathOf = (pointer = '') =>
  pointer
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));

/** As in `grants.fetch[0].to`. */
const nameOf = (path: readonly string[], whole: string) =>
  path.length === 0
    ? whole
    : path
        .map((part, i) => {
          const shown = part.slice(0, SHOWN_CHARS);
          if (/^\d+$/.test(shown)) return `[${shown}]`;
          if (!/^[\w-]+$/.test(shown)) return `[${JSON.stringify(shown)}]`;
          return i === 0 ? shown : `.${shown}`;
        })
        .join('');

const member = (value: unknown, key: string): unknown =>
  typeof value === 'object' && value !== null && Object.hasOwn(value, key)
    ? (value as Record<string, unknown>)[key]
    : undefined;

/** The schema of a member, where a schema has one. */
function below(schema: JsonSchema, key: string): JsonSchema | undefined {
  for (const one of schema.anyOf ?? []) {
    const found = below(one, key);
    if (found) return found;
  }
  if (schema.items && /^\d+$/.test(key)) return schema.items;
  if (schema.properties && Object.hasOwn(schema.properties, key)) return schema.properties[key];
  for (const [pattern, of] of Object.entries(schema.patternProperties ?? {}))
    if (new RegExp(pattern).test(key)) return of;
  return typeof schema.additionalProperties === 'object' ? schema.additionalProperties : undefined;
}

function bounds(least: number | undefined, most: number | undefined): string {
  if (least !== undefined && most !== undefined) return ` from ${least} to ${most}`;
  if (least !== undefined) return ` from ${least}`;
  return most === undefined ? '' : ` up to ${most}`;
}

/** What a schema takes, in words. */
export function expectedBy(schema: JsonSchema): string {
  const { type, anyOf, properties, minimum, maximum, minLength, maxLength, maxItems, pattern, description } = schema;
  const more = description ? ` (${description})` : '';
  if (anyOf) {
    const constants = anyOf.filter((one) => 'const' in one).map((one) => JSON.stringify(one.const));
    const others = anyOf.filter((one) => !('const' in one)).map(expectedBy);
    const words = constants.length > 1 ? [`one of ${constants.join(', ')}`] : constants;
    return [...words, ...others].join(', or ');
  }
  if ('const' in schema) return JSON.stringify(schema.const);
  if (schema.enum) return `one of ${schema.enum.map((one) => JSON.stringify(one)).join(', ')}`;
  if (type === 'integer') return `a whole number${bounds(minimum, maximum)}${more}`;
  if (type === 'number') return `a number${bounds(minimum, maximum)}${more}`;
  if (type === 'boolean') return `true or false${more}`;
  if (type === 'null') return 'null';
  if (type === 'array') {
    const most = maxItems === undefined ? '' : ` of at most ${maxItems}`;
    return `a list${most}${schema.items?.type || schema.items?.anyOf ? `, each ${expectedBy(schema.items)}` : ''}${more}`;
  }
  if (type === 'object' || properties) {
    const names = Object.keys(properties ?? {});
    const least = schema.minProperties ? `at least ${schema.minProperties} of ` : '';
    return names.length > 0 ? `an object with ${least}${names.join(', ')}` : `an object${more}`;
  }
  if (type === 'string') {
    const least = minLength || undefined;
    const chars = least || maxLength !== undefined ? ` of${bounds(least, maxLength)} characters` : '';
    return `a text${chars}${pattern ? ` like ${pattern}` : ''}${more}`;
  }
  return `something else${more}`;
}

/** What was given, in words; of what may be secret, only its kind. */
function shown(value: unknown, hidden: boolean): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object' && value !== null)
    return Object.keys(value).length > 0 ? 'an object' : 'an empty object';
  if (typeof value === 'string' && (hidden || value.length > SHOWN_CHARS))
    return `a text of ${value.length} characters`;
  return hidden && value !== null ? `a ${typeof value}` : JSON.stringify(value);
}

/** Of findings about one value only the deepest: where it could be several things, that tells most. */
function telling(findings: readonly Finding[]): { path: string[]; keyword: string; params: unknown }[] {
  const all = findings.map(({ instancePath, keyword = '', params }) => ({
    path: pathOf(instancePath),
    keyword,
    params,
  }));
  const told = new Map<string, (typeof all)[number]>();
  for (const one of all) {
    // What is no member is told where it stands, once.
    if (one.keyword === 'additionalProperties') continue;
    const deeper = all.some(
      ({ path, keyword }) =>
        keyword !== 'required' && path.length > one.path.length && one.path.every((part, i) => path[i] === part),
    );
    if (deeper && one.keyword !== 'required') continue;
    const key = JSON.stringify([one.path, one.keyword === 'required']);
    told.set(key, one);
  }
  return [...told.values()];
}

/**
 * The refusal of `value` by `schema`. `whole`: what it is called as a whole, as in "the body"; members stand alone there,
 * and with `where` behind them elsewhere, as in "limit in the query".
 */
export function schemaRefusal(
  schema: JsonSchema,
  value: unknown,
  findings: readonly Finding[],
  whole = 'the body',
  where = '',
): InstanceType<typeof BadInput> {
  const called = (path: readonly string[]) => `${nameOf(path, whole)}${path.length > 0 ? where : ''}`;
  const told: { what: string; why: string }[] = [];
  for (const { path, keyword, params } of telling(findings)) {
    let parent: JsonSchema | undefined;
    let here: JsonSchema | undefined = schema;
    for (const key of path) {
      parent = here;
      here = here && below(here, key);
    }
    if (keyword === 'required') {
      const { requiredProperties = [] } = (params ?? {}) as { requiredProperties?: string[] };
      for (const name of requiredProperties) {
        const expected = here && below(here, name);
        const why = `it is missing${expected ? `; expected is ${expectedBy(expected)}` : ''}`;
        told.push({ what: called([...path, name]), why });
      }
      continue;
    }
    if (!here && parent) {
      const names = Object.keys(parent.properties ?? parent.anyOf?.find((one) => one.properties)?.properties ?? {});
      const there = names.length > 0 ? `; there are: ${names.join(', ')}` : '';
      told.push({ what: called(path), why: `there is no such member${there}` });
      continue;
    }
    const hidden = path.some((part) => HIDDEN.test(part));
    const given = shown(path.reduce(member, value), hidden);
    told.push({ what: called(path), why: `${given} was given; expected is ${expectedBy(here ?? schema)}` });
  }
  const [first, ...rest] = told;
  if (!first) return new BadInput({ what: whole, why: findings[0]?.message ?? 'it is not as described in /docs' });
  if (rest.length === 0) return new BadInput(first);
  const lines = told.slice(0, MOST).map(({ what, why }) => `${what}: ${why}`);
  const left = told.length - lines.length;
  return new BadInput({ what: whole, why: [...lines, ...(left > 0 ? [`and ${left} more`] : [])].join('. ') });
}

const PARTS: Record<string, readonly [whole: string, where: string]> = {
  querystring: ['the query', ' in the query'],
  params: ['the path', ' in the path'],
  headers: ['the headers', ' in the headers'],
};

/** How texts of a path or a query spell what is no text. Validators bend others to it: 1.5 to 1, true to 1, nothing to 0. */
const SPELT: Record<string, RegExp> = { integer: /^-?\d+$/, boolean: /^(?:true|false)$/ };

/** Finds the members that are spelt as nothing that their schemas take. */
function misspeltIn({ properties = {} }: JsonSchema): (value: unknown) => Finding[] | undefined {
  const spelt = Object.entries(properties).flatMap(([name, { type = '' }]) => {
    const as = SPELT[type];
    return as ? [[name, as] as const] : [];
  });
  return (value) => {
    const found = spelt.filter(([name, as]) => {
      const text = member(value, name);
      return typeof text === 'string' && !as.test(text);
    });
    return found.length > 0 ? found.map(([name]) => ({ keyword: 'type', instancePath: `/${name}` })) : undefined;
  };
}

/** A validator that says what it refuses as `schemaRefusal` does, from one that gives findings. */
export function readably<Route extends { schema: unknown; httpPart?: string | undefined }>(
  compile: (route: Route) => (value: unknown) => unknown,
): (route: Route) => (value: unknown) => { value?: unknown; error?: Error } {
  return (route) => {
    const check = compile(route);
    const [whole, where] = PARTS[route.httpPart ?? ''] ?? ['the body', ''];
    const misspelt = route.httpPart === 'body' ? () => undefined : misspeltIn(route.schema as JsonSchema);
    return (value) => {
      const wrong = misspelt(value);
      if (wrong) return { error: schemaRefusal(route.schema as JsonSchema, value, wrong, whole, where) };
      const { error, ...passed } = (check(value) ?? {}) as { error?: Finding[]; value?: unknown };
      if (!error) return passed;
      const findings = Array.isArray(error) ? error : [error];
      return { error: schemaRefusal(route.schema as JsonSchema, value, findings, whole, where) };
    };
  };
}
