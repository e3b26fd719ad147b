/** What a request's schema refuses is told by member: what was given, what is expected; never what may be secret. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Type, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox';
import { BadInput, isError } from '@hauki/protocol';
import { readably } from '@hauki/protocol/schema-refusal';
import fc from 'fast-check';

const strict = { additionalProperties: false };
const SCHEMA = Type.Object(
  {
    audience: Type.String({ pattern: '^a+$', description: 'whose it is' }),
    memory_mib: Type.Optional(Type.Integer({ minimum: 4, maximum: 64 })),
    routing: Type.Optional(Type.Union([Type.Literal('direct'), Type.Literal('relay')])),
    labels: Type.Optional(Type.Record(Type.String(), Type.String({ maxLength: 4 }))),
    grants: Type.Optional(
      Type.Object(
        {
          time: Type.Optional(Type.Boolean()),
          fetch: Type.Optional(
            Type.Array(
              Type.Union([
                Type.String({ maxLength: 8 }),
                Type.Object({ to: Type.String(), per_minute: Type.Optional(Type.Integer()) }, strict),
              ]),
              { maxItems: 2 },
            ),
          ),
        },
        strict,
      ),
    ),
    secrets: Type.Optional(Type.Record(Type.String(), Type.Object({ value: Type.String() }, strict))),
  },
  strict,
);
const validator = (schema: object, httpPart = 'body') =>
  readably(TypeBoxValidatorCompiler as never)({ schema, httpPart });
const refused = (given: unknown, schema: object = SCHEMA, part = 'body') => {
  const { error } = validator(schema, part)(given);
  assert.ok(isError(error, BadInput), JSON.stringify(given));
  return error.message;
};

describe('a request that its schema refuses', () => {
  it('takes no number or truth value of a query that is spelt in another way, though validators bend it to one', () => {
    const query = Type.Object({ limit: Type.Optional(Type.Integer()), all: Type.Optional(Type.Boolean()) }, strict);
    const check = validator(query, 'querystring');
    for (const given of [{ limit: '12' }, { limit: '-1', all: 'true' }, { all: 'false' }, {}])
      assert.equal(check(given).error, undefined, JSON.stringify(given));
    for (const limit of ['1.5', '', 'true', '1e3', ' 1', '0x1']) {
      const { error } = check({ limit });
      assert.ok(isError(error, BadInput) && error.message.includes('limit'), `${JSON.stringify(limit)}: ${error}`);
    }
    for (const all of ['1', '', 'TRUE', 'yes']) assert.ok(isError(check({ all }).error, BadInput), JSON.stringify(all));
  });

  it('is told which member it is, what was given and what is expected', () => {
    for (const [given, message] of [
      [{ memory_mib: 'big' }, 'memory_mib: "big" was given; expected is a whole number from 4 to 64'],
      [{ memory_mib: 99.5 }, 'memory_mib: 99.5 was given; expected is a whole number from 4 to 64'],
      [{ routing: 'pigeon' }, 'routing: "pigeon" was given; expected is one of "direct", "relay"'],
      [
        { labels: { zone: 'north-east' } },
        'labels.zone: "north-east" was given; expected is a text of up to 4 characters',
      ],
      [{ grants: { time: 1 } }, 'grants.time: 1 was given; expected is true or false'],
      [{ grants: [] }, 'grants: a list of 0 was given; expected is an object with time, fetch'],
      [
        { grants: { fetch: ['a', { to: 'b', per_minute: 'often' }] } },
        'grants.fetch[1].per_minute: "often" was given; expected is a whole number',
      ],
      [
        { grants: { fetch: [true] } },
        'grants.fetch[0]: true was given; expected is a text of up to 8 characters, or an object with to, per_minute',
      ],
      [{ grants: { colour: 1 } }, 'grants.colour: there is no such member; there are: time, fetch'],
    ] as const)
      assert.equal(refused({ audience: 'a', ...given }), message);
  });

  it('is told what is missing, and several things at once', () => {
    assert.equal(refused({}), 'audience: it is missing; expected is a text like ^a+$ (whose it is)');
    assert.equal(
      refused(5),
      'the body: 5 was given; expected is an object with audience, memory_mib, routing, labels, grants, secrets',
    );
    const several = refused({ memory_mib: 1, bogus: 1 });
    for (const words of [
      /^the body: /,
      /audience: it is missing/,
      /bogus: there is no such/,
      /memory_mib: 1 was given/,
    ])
      assert.match(several, words);
  });

  it('is told where it stands when that is not the body', () => {
    const query = Type.Object({ limit: Type.Optional(Type.Integer({ minimum: 1 })) });
    assert.equal(
      refused({ limit: 'many' }, query, 'querystring'),
      'limit in the query: "many" was given; expected is a whole number from 1',
    );
  });

  it('is not told values that may be secret, nor long ones', () => {
    const message = refused({ audience: 'a', secrets: { KEY: { value: 12345 } } });
    assert.equal(message, 'secrets.KEY.value: a number was given; expected is a text');
    assert.equal(
      refused({ audience: 'a', memory_mib: 'x'.repeat(500) }),
      'memory_mib: a text of 500 characters was given; expected is a whole number from 4 to 64',
    );
  });

  it('is refused with a sentence whatever it is, and passes whenever the schema takes it', () => {
    const plain = validator(SCHEMA);
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom('audience', 'memory_mib', 'grants', 'labels', 'x/~y'), fc.jsonValue()),
        (given) => {
          const { error } = plain(given);
          const takes = (TypeBoxValidatorCompiler({ schema: SCHEMA } as never) as (v: unknown) => { error?: unknown })(
            given,
          );
          assert.equal(error === undefined, takes?.error === undefined);
          if (error)
            assert.ok(isError(error, BadInput) && error.message.length < 2_000 && !/undefined/.test(error.message));
        },
      ),
    );
  });
});
