/** What tokens may do: no chain of tokens, however asked for, ends with more than it began. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  BadInput,
  type ErrorClass,
  Forbidden,
  type Grants,
  isError,
  normaliseGrants,
  parsePointer,
  pointerGranted,
  SCOPES,
  type Scope,
  type TokenRequest,
} from '@hauki/protocol';
import fc from 'fast-check';
import { visibleTo } from '../src/events.ts';
import {
  ADMIN,
  attenuate,
  demand,
  demandEnd,
  demandGrants,
  may,
  NODE,
  owns,
  type Principal,
  refusal,
} from '../src/rights.ts';

const below = (maker: Principal, request: Omit<TokenRequest, 'name'>, id = 't-1'): Principal => ({
  ...attenuate(maker, { name: 't', ...request }),
  id,
  name: maker.id === 'admin' ? id : `${maker.name}/${id}`,
});

const refuses = (run: () => unknown, kind: ErrorClass<any>, pattern: RegExp) =>
  assert.throws(run, (thrown) => {
    assert.ok(isError(thrown, kind), `expected ${kind.row.name}, got ${thrown}`);
    assert.match((thrown as Error).message, pattern);
    return true;
  });

const scope = fc.constantFrom(...(Object.keys(SCOPES) as Scope[]));
const worker = fc.constantFrom('w-a', 'w-b', 'w-c');
const node = fc.constantFrom('north', 'south', 'north-0a1b2c', 'north-0a1b2c-3d4e5f', 'north-2', 'north-zzzzzz');
const host = fc.constantFrom('a.example:443', 'b.example:443', 'A.example:443');
const prefix = fc.constantFrom(
  ...'gem-pointer:// gem-pointer://wiki/ gem-pointer://wiki/a/ gem-pointer://wiki/A/ gem-pointer://wiki/a/b/'.split(
    ' ',
  ),
  ...'gem-pointer://WIKI/a/ gem-pointer://wiki/a gem-pointer://wiki/a/notes gem-pointer://wiki/a/notes.md'.split(' '),
  ...'gem-pointer://wiki/ab/ gem-pointer://data/ gem-pointer://data/x gem-pointer://data/x.md'.split(' '),
  'gem-pointer://data/e\u0301/',
  'gem-pointer://data/\u00e9/',
);
/** A grant names a space at least. */
const grant = prefix.filter((text) => text !== 'gem-pointer://');
const pointer = fc.constantFrom(
  ...'gem-pointer://wiki/a/notes gem-pointer://wiki/a/notes.md gem-pointer://wiki/a gem-pointer://wiki/a/b/c'.split(
    ' ',
  ),
  ...'gem-pointer://WIKI/a/notes gem-pointer://wiki/A/notes gem-pointer://wiki/ab/x gem-pointer://data/x'.split(' '),
  'gem-pointer://data/e\u0301/x',
  'gem-pointer://data/x.md',
);
const some = <T>(one: fc.Arbitrary<T>) => fc.option(fc.array(one, { maxLength: 3 }), { nil: undefined });
const request = fc.record({
  scopes: fc.array(scope, { minLength: 1, maxLength: 4 }),
  targets: fc.record({
    workers: some(fc.oneof(worker, fc.constant('*'))),
    pointers: some(prefix),
    nodes: some(fc.oneof(node, fc.constant('*'))),
    fetch: some(fc.oneof(host, fc.constant('*'))),
  }),
}) as fc.Arbitrary<Omit<TokenRequest, 'name'>>;

/** The chain that comes of asking for these one below the other; what is refused is left out. */
function chainOf(requests: Omit<TokenRequest, 'name'>[]): Principal[] {
  const chain = [ADMIN];
  for (const [i, wanted] of requests.entries())
    try {
      chain.push(below(chain.at(-1)!, wanted, `t-${i}`));
    } catch (thrown) {
      assert.ok(isError(thrown, Forbidden) || isError(thrown, BadInput), String(thrown));
    }
  return chain;
}

/** Owners that matter: each of the chain, strangers with like names, and nodes below. */
const ownersOf = (chain: Principal[]) => [
  ...chain.flatMap(({ name }) => [name, `${name}/deeper-1`, `${name}x`]),
  'admin',
  'stranger-1',
];

describe('a chain of tokens', () => {
  // First wide, then narrower: of chains that ask blindly few links would stand.
  const chain = fc.array(request, { minLength: 2, maxLength: 6 }).map(chainOf);

  it('never lets the lower do what the upper may not', () => {
    let links = 0;
    let allowed = 0;
    fc.assert(
      fc.property(
        chain,
        fc.array(scope, { minLength: 1, maxLength: 2 }),
        worker,
        pointer,
        node,
        (made, scopes, w, p, n) => {
          links += made.length - 1;
          for (const [i, lower] of made.slice(1).entries()) {
            const upper = made[i]!;
            const wishes = [
              { scope: scopes },
              { scope: scopes, pointer: p },
              { scope: scopes, node: n },
              ...ownersOf(made).map((owner) => ({ scope: scopes, worker: { worker: w, owner } })),
            ];
            for (const wish of wishes)
              if (may(lower, wish)) {
                allowed += 1;
                assert.ok(may(upper, wish), `${JSON.stringify(wish)} by ${JSON.stringify(made)}`);
              }
          }
        },
      ),
      { numRuns: 2_000 },
    );
    // The property was not true for want of tokens.
    assert.ok(links > 500 && allowed > 500, `${links} tokens, ${allowed} wishes granted`);
  });

  it('never lets the lower hand on, or see, what the upper may not', () => {
    const grants = fc
      .record({
        ...{ fetch: fc.array(host), connect: fc.array(host), to: fc.array(host, { minLength: 1 }) },
        ...{ read: fc.array(grant), write: fc.array(grant), clone: fc.nat(1), secret: fc.boolean() },
      })
      .map(({ fetch, connect, read, write, clone, secret, to }) =>
        normaliseGrants(
          { fetch, connect, meshfs: { read, write }, clone },
          secret ? { KEY: { value: 'hush', to } } : {},
        ),
      );
    const passes = (principal: Principal, given: Grants) => {
      try {
        demandGrants(principal, given);
        return true;
      } catch (thrown) {
        assert.ok(isError(thrown, Forbidden), String(thrown));
        return false;
      }
    };
    fc.assert(
      fc.property(chain, grants, worker, pointer, (made, given, w, p) => {
        for (const [i, lower] of made.slice(1).entries()) {
          const upper = made[i]!;
          if (passes(lower, given)) assert.ok(passes(upper, given));
          const events = [
            {},
            { worker: w },
            { pointer: p },
            ...ownersOf(made).flatMap((owner) => [{ owner }, { owner, worker: w }, { owner, token: 't' }]),
          ];
          for (const fields of events) {
            const event = { id: 'c-1', seq: 1, at: 0, name: 'X', fields };
            if (visibleTo(lower, event)) assert.ok(visibleTo(upper, event), JSON.stringify({ fields, made }));
          }
        }
      }),
      { numRuns: 1_000 },
    );
  });

  it('hands to workers only pointers that the token may go to itself', () => {
    let handed = 0;
    fc.assert(
      fc.property(chain, fc.array(grant, { minLength: 1, maxLength: 2 }), pointer, (made, read, p) => {
        const { text } = parsePointer(p);
        const given = normaliseGrants({ meshfs: { read } });
        const holder = made.at(-1)!;
        try {
          demandGrants(holder, given);
        } catch {
          return;
        }
        if (!pointerGranted(given.meshfs.read, text)) return;
        handed += 1;
        assert.ok(may(holder, { scope: 'meshfs.read', pointer: text }), `${text} by ${JSON.stringify([read, made])}`);
      }),
      { numRuns: 3_000 },
    );
    assert.ok(handed > 20, `${handed}`);
  });
});

describe('a narrower token', () => {
  it('says which scope or target its maker would have needed', () => {
    const ci = below(ADMIN, {
      scopes: ['spawn', 'tokens'],
      targets: { pointers: ['gem-pointer://wiki/ci/'], fetch: [] },
    });
    refuses(() => below(ci, { scopes: ['read'] }), Forbidden, /scope read, which it does not have/);
    refuses(() => below(ci, { scopes: ['admin'] }), Forbidden, /scope admin/);
    refuses(() => below(ci, { scopes: ['node'] }), Forbidden, /scope node/);
    const asks = (targets: TokenRequest['targets']) => () =>
      below(ci, { scopes: ['spawn.pointer'], ...(targets && { targets }) });
    refuses(asks({ pointers: ['gem-pointer://wiki/'] }), Forbidden, /pointers gem-pointer:\/\/wiki\/, which/);
    refuses(asks({ pointers: ['gem-pointer://wiki/cis/'] }), Forbidden, /wiki\/cis\//);
    refuses(asks({ workers: ['*'] }), Forbidden, /workers \*/);
    refuses(asks({ workers: ['w-1'] }), Forbidden, /workers w-1/);
    refuses(asks({ fetch: ['a.example:443'] }), Forbidden, /fetch a\.example:443/);
    assert.deepEqual(asks({ pointers: ['gem-pointer://WIKI/ci/deep/'] })().targets, {
      workers: [],
      pointers: ['gem-pointer://wiki/ci/deep/'],
      nodes: ['*'],
      fetch: [],
    });
  });

  it('keeps to the nodes and hosts of its maker', () => {
    const north = below(ADMIN, { scopes: ['spawn'], targets: { nodes: ['north'], fetch: ['a.example:443'] } });
    const asks = (targets: TokenRequest['targets']) => () =>
      below(north, { scopes: ['spawn'], ...(targets && { targets }) });
    for (const other of ['*', 'north-2', 'south', 'northern'])
      refuses(asks({ nodes: [other] }), Forbidden, /cannot give nodes/);
    assert.deepEqual(asks({ nodes: ['north-0a1b2c'] })().targets.nodes, ['north-0a1b2c']);
    refuses(asks({ fetch: ['*'] }), Forbidden, /cannot give fetch \*/);
    demandGrants(north, normaliseGrants({ fetch: ['A.example:443'] }));
    demandGrants(north, normaliseGrants({ connect: ['a.example.:443'], clone: 2, volume: 'x', time: true }));
    const refused = (given: Grants, words: RegExp) => refuses(() => demandGrants(north, given), Forbidden, words);
    refused(normaliseGrants({ fetch: ['b.example:443'] }), /fetch b\.example:443 is beyond this token/);
    refused(normaliseGrants({ connect: ['a.example:80'] }), /connect a\.example:80 is beyond this token/);
    const leak = { KEY: { value: 'hush', to: ['a.example:443', 'b.example:443'] } };
    refused(normaliseGrants({}, leak), /secrets KEY to b\.example:443 is beyond this token/);
    const spools = below(ADMIN, { scopes: ['spool'] });
    refuses(() => demandGrants(spools, normaliseGrants({ clone: 1 })), Forbidden, /needs a token with the scope spawn/);
  });

  it('is refused with words where it cannot be', () => {
    const asks = (wanted: object) => () => below(ADMIN, { scopes: ['read'], ...wanted } as TokenRequest);
    refuses(asks({ scopes: [] }), BadInput, /none is given. There are: read, /);
    refuses(asks({ scopes: ['everything'] }), BadInput, /"everything" is none/);
    refuses(asks({ scopes: ['__proto__'] }), BadInput, /is none/);
    refuses(asks({ scopes: ['node', 'read'] }), BadInput, /give it the scope node alone/);
    refuses(asks({ targets: { workers: ['W 1'] } }), BadInput, /is no name/);
    refuses(asks({ targets: { fetch: ['a.example'] } }), BadInput, /is not host:port/);
    for (const bad of ['wiki/', 'gem-pointer://wiki/../x/', 'gem-pointer://wiki/a//', 'gem-pointer://wiki/%61/', ''])
      assert.throws(asks({ targets: { pointers: [bad] } }), /not a pointer|No pointer/i, bad);
  });

  it('reaches a pointer in every spelling of it and in none of another', () => {
    const one = below(ADMIN, { scopes: ['meshfs.read'], targets: { pointers: ['gem-pointer://wiki/a/notes'] } });
    const reads = (given: string) => may(one, { scope: 'meshfs.read', pointer: given });
    assert.ok(
      reads('gem-pointer://wiki/a/notes') &&
        reads('gem-pointer://wiki/a/notes.md') &&
        reads('GEM-pointer://Wiki/a/notes'),
    );
    for (const other of ['a/notes.txt', 'a/notes2', 'a/notes/x', 'A/notes', 'a/Notes', 'a'])
      assert.ok(!reads(`gem-pointer://wiki/${other}`), other);
    assert.ok(!may(one, { scope: 'meshfs.write', pointer: 'gem-pointer://wiki/a/notes' }));
    assert.throws(() => reads('gem-pointer://wiki/a/../b'), /leads elsewhere/);
  });

  it('owns the workers of those below it, and of nobody with a like name', () => {
    assert.ok(owns({ name: 'a-1' }, 'a-1') && owns({ name: 'a-1' }, 'a-1/b-2'));
    for (const other of ['a-11', 'a-1x/b', 'b-2/a-1', 'a', '']) assert.ok(!owns({ name: 'a-1' }, other), other);
  });

  it('that may clone may call and end its own, and no other', () => {
    const maker = below(ADMIN, { scopes: ['spawn'] });
    const own = { worker: 'w-1', owner: maker.name };
    for (const wanted of ['call', 'destruct'] as const) {
      demand(maker, { scope: wanted, worker: own });
      assert.match(
        refusal(maker, { scope: wanted, worker: { worker: 'w-2', owner: 'admin' } })!.why,
        /needs a token with the scope/,
      );
      const other = below(ADMIN, { scopes: [wanted] }, 't-2');
      assert.match(
        refusal(other, { scope: wanted, worker: own })!.why,
        /does not reach the worker w-1; it reaches its own/,
      );
      demand(below(ADMIN, { scopes: [wanted], targets: { workers: ['w-1'] } }), { scope: wanted, worker: own });
    }
    refuses(() => demand(maker, { scope: 'provision', worker: own }), Forbidden, /scope provision/);
  });

  it('reaches the workers that it names, and no others', () => {
    const one = below(ADMIN, { scopes: ['call'], targets: { workers: ['w-1'] } });
    const calls = (worker: string) => may(one, { scope: 'call', worker: { worker, owner: 'admin' } });
    assert.deepEqual([calls('w-1'), calls('w-2'), calls('w-11')], [true, false, false]);
  });

  it('ends what lasts only where it may provision', () => {
    const lasting = { worker: 'counter', owner: 't-1', lasting: true };
    const maker = below(ADMIN, { scopes: ['spawn', 'destruct'] });
    demandEnd(maker, { ...lasting, lasting: false });
    refuses(() => demandEnd(maker, lasting), Forbidden, /scope provision/);
    demandEnd(below(ADMIN, { scopes: ['provision'] }), lasting);
  });

  it('of a node registers as that node, and is nothing else', () => {
    const north = below(ADMIN, { scopes: ['node'], targets: { nodes: ['north'] } });
    assert.ok(may(north, { scope: 'node', node: 'north' }) && !may(north, { scope: 'node', node: 'south' }));
    assert.ok(may(north, { scope: 'node', node: 'north-0a1b2c' }), 'as agents name themselves');
    for (const other of ['north-2', 'north-0a1b2cd', 'northern', 'north0a1b2c', 'north-0A1B2C', 'nort'])
      assert.ok(!may(north, { scope: 'node', node: other }), other);
    assert.ok(may(NODE, { scope: 'node', node: 'south' }));
    for (const other of Object.keys(SCOPES) as Scope[])
      if (other !== 'node') assert.ok(!may(north, { scope: other }), other);
  });
});
