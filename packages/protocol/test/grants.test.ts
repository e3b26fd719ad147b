/** Grants: whatever is not written plainly is not granted; and limits that hold each other up. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { BadInput, isError, TooLarge } from '../src/caller-errors.ts';
import { canonicalTarget, NO_GRANTS, normaliseGrants } from '../src/grants.ts';
import { LEASE, LIMITS } from '../src/limits.ts';
import { pointerGranted, reaches } from '../src/prefix.ts';

const refused = (request: unknown, pattern: RegExp) =>
  assert.throws(
    () => normaliseGrants(request as never),
    (thrown) => isError(thrown, BadInput) && pattern.test(thrown.message),
    JSON.stringify(request),
  );

describe('grants', () => {
  it('are none when nothing is asked for', () => {
    assert.deepEqual(normaliseGrants(), NO_GRANTS);
    assert.deepEqual(normaliseGrants({}), NO_GRANTS);
    assert.deepEqual(normaliseGrants({ meshfs: {} }), NO_GRANTS);
  });

  it('are no more than a ticket holds that fits a handshake', () => {
    const read = Array.from(
      { length: LIMITS.grants },
      (_, i) => `gem-pointer://wiki/p${i}/${'a'.repeat(200)}/${'b'.repeat(200)}/`,
    );
    normaliseGrants({ meshfs: { read } });
    assert.throws(
      () => normaliseGrants({ meshfs: { read, write: read } }),
      (thrown) => isError(thrown, TooLarge) && thrown.fields.limit_bytes === LIMITS.grants_bytes,
    );
    assert.ok((LIMITS.grants_bytes * 4) / 3 < LIMITS.handshake_bytes * 0.9, 'base64 takes a third more');
  });

  it('are whole, in small letters and without repetition', () => {
    assert.deepEqual(
      normaliseGrants({
        fetch: ['Example.ORG:443', '[::1]:80', '127.0.0.1:8080', '127.0.0.1:8080'],
        meshfs: { read: ['gem-pointer://wiki/a/'] },
      }),
      {
        ...NO_GRANTS,
        fetch: ['example.org:443', '[::1]:80', '127.0.0.1:8080'].map((to) => ({ to, methods: [], per_minute: 0 })),
        meshfs: { read: ['gem-pointer://wiki/a/'], write: [] },
      },
    );
  });

  it('have short forms that mean the long ones', () => {
    assert.deepEqual(
      normaliseGrants({
        fetch: [{ to: 'A:1', methods: ['post', 'GET', 'POST'], per_minute: 5 }, { to: 'a:1' }, 'a:1'],
        connect: ['Irc.Example.:6697', 'irc.example:06697'],
        volume: 'notes',
        clone: 3,
        time: true,
      }),
      {
        ...NO_GRANTS,
        fetch: [
          { to: 'a:1', methods: ['GET', 'POST'], per_minute: 5 },
          { to: 'a:1', methods: [], per_minute: 0 },
        ],
        connect: ['irc.example:6697'],
        volume: { name: 'notes', quota_mib: 64 },
        clone: { live: 3, total: 48, memory_mib: 384 },
        time: true,
      },
    );
    assert.deepEqual(normaliseGrants({ volume: null, clone: 0 }), NO_GRANTS);
    assert.deepEqual(normaliseGrants({ clone: { live: 1, total: 2, memory_mib: 3 } }).clone, {
      live: 1,
      total: 2,
      memory_mib: 3,
    });
  });

  it('spell each address in one way', () => {
    for (const [written, meant] of [
      ['EXAMPLE.org.:443', 'example.org:443'],
      ['127.1:80', '127.0.0.1:80'],
      ['0x7f.0.0.1:80', '127.0.0.1:80'],
      ['0177.0.0.1:80', '127.0.0.1:80'],
      ['2130706433:80', '127.0.0.1:80'],
      ['127.0.0.1.:80', '127.0.0.1:80'],
      ['[0:0:0:0:0:0:0:1]:80', '[::1]:80'],
      ['[2001:DB8::0:1]:00080', '[2001:db8::1]:80'],
      ['[::ffff:127.0.0.1]:80', '[::ffff:7f00:1]:80'],
    ] as const)
      assert.equal(canonicalTarget(written), meant, written);
    for (const none of [
      '256.0.0.1:80',
      '1.2.3.4.5:80',
      '0x100000000:80',
      '..:80',
      'a..:80',
      '[::1%eth0]:80',
      '[::g]:80',
    ])
      assert.equal(canonicalTarget(none), undefined, none);
  });

  it('name their secrets, and never their values', () => {
    const value = 'hush-hush';
    const grants = normaliseGrants({}, { KEY: { value, to: ['A.example:443', 'a.example:443'] } });
    assert.deepEqual(grants.secrets, [{ name: 'KEY', to: ['a.example:443'] }]);
    assert.ok(!JSON.stringify(grants).includes(value));
    const wrong: Record<string, unknown>[] = [
      { 'A B': { value, to: ['a:1'] } },
      { ['x'.repeat(65)]: { value, to: ['a:1'] } },
      { KEY: { value, to: [] } },
      { KEY: { value } },
      { KEY: { value, to: ['*:443'] } },
      { KEY: { value: 'abc', to: ['a:1'] } },
      { KEY: { value: 5, to: ['a:1'] } },
      { KEY: { value, to: ['a:1'], more: 1 } },
      { KEY: value },
      { KEY: { value: 'x'.repeat(LIMITS.secret_chars + 1), to: ['a:1'] } },
      Object.fromEntries(Array.from({ length: LIMITS.secrets + 1 }, (_, i) => [`K${i}`, { value, to: ['a:1'] }])),
    ];
    for (const secrets of wrong)
      assert.throws(
        () => normaliseGrants({}, secrets as never),
        (thrown) => isError(thrown, BadInput) && !thrown.message.includes(value),
        JSON.stringify(secrets).slice(0, 100),
      );
    refused({ secrets: { KEY: { value, to: ['a:1'] } } }, /beside the grants/);
  });

  it('are refused where they say more, less or other than there is', () => {
    for (const [request, words] of [
      [{ fetch: [{ to: 'a:1', headers: [] }] }, /no "headers".*to, methods, per_minute/],
      [{ fetch: [{ methods: ['GET'] }] }, /host:port/],
      [{ fetch: [{ to: 'a:1', methods: ['GET /'] }] }, /method/],
      [{ fetch: [{ to: 'a:1', per_minute: -1 }] }, /per_minute/],
      [{ fetch: [{ to: 'a:1', per_minute: 0.5 }] }, /whole number/],
      [{ connect: ['a'] }, /grants\.connect/],
      [{ volume: '../x' }, /grants\.volume/],
      [{ volume: { name: 'a', quota_mib: 0 } }, /quota_mib/],
      [{ volume: 5 }, /grants\.volume/],
      [{ clone: -1 }, /grants\.clone/],
      [{ clone: { live: 5, total: 4 } }, /total.*from 5/],
      [{ clone: '3' }, /grants\.clone/],
      [{ time: 'yes' }, /true or false/],
      [{ everything: true }, /no "everything"/],
      [{ meshfs: { remove: [] } }, /no "remove"/],
      [[], /grants/],
      [null, /grants/],
    ] as const)
      refused(request, words);
  });

  it('name host and port exactly', () => {
    for (const entry of [
      '',
      'example.org',
      'example.org:',
      ':443',
      'example.org:0',
      'example.org:65536',
      'example.org:443/path',
      'https://example.org:443',
      'user@example.org:443',
      '*:443',
      '*.example.org:443',
      'example.org:443 ',
      'exa mple.org:443',
      'example.org:443\n',
      '::1:80',
      'e\u0308.org:1',
    ])
      refused({ fetch: [entry] }, /grants\.fetch.*host:port/s);
  });

  it('name pointer prefixes that lead nowhere else', () => {
    for (const prefix of [
      '',
      'wiki/a/',
      'gem-pointer://',
      'gem-pointer://wiki/../x',
      'gem-pointer://wiki/a/..',
      'gem-pointer://wiki/%2e%2e/',
      'gem-pointer://wiki',
      'gem-pointer://wiki/*',
      'gem-pointer://wiki/a//b/',
      'gem-pointer://wiki/./a/',
      'gem-pointer://wiki/a/b ',
      'gem-pointer://wiki\\a',
    ])
      for (const right of ['read', 'write']) refused({ meshfs: { [right]: [prefix] } }, /pointer prefix/);
  });

  it('have pointer prefixes in the one spelling that pointers have', () => {
    const read = [
      'gem-pointer://wiki/a',
      'gem-pointer://WIKI/a/readme.md',
      'GEM-POINTER://wiki/a b/',
      'gem-pointer://wiki/e\u0301/',
      'gem-pointer://data/',
    ];
    assert.deepEqual(normaliseGrants({ meshfs: { read } }).meshfs.read, [
      'gem-pointer://wiki/a/readme.md',
      'gem-pointer://wiki/a b/',
      'gem-pointer://wiki/\u00e9/',
      'gem-pointer://data/',
    ]);
  });

  it('are lists of texts, and not too many', () => {
    for (const list of ['x:1', 5, null, {}, [5], [null], ['x'.repeat(2000)], Array(LIMITS.grants + 1).fill('a:1')])
      refused({ fetch: list }, /list of at most/);
    assert.equal(
      normaliseGrants({ fetch: Array.from({ length: LIMITS.grants }, (_, i) => `a${i}:1`) }).fetch.length,
      LIMITS.grants,
    );
  });

  it('throw nothing but BadInput, and stay the same when made whole again', () => {
    fc.assert(
      fc.property(
        fc.record(
          {
            fetch: fc.oneof(
              fc.array(
                fc.oneof(
                  fc.string(),
                  fc.constantFrom('a:1', '[::]:9', 'B.c:22', '0x7f.1:80'),
                  fc.record({
                    to: fc.constantFrom('a:1', 'A.:1'),
                    per_minute: fc.nat(9),
                    methods: fc.constant(['get']),
                  }),
                ),
              ),
              fc.jsonValue(),
            ),
            connect: fc.oneof(fc.array(fc.constantFrom('a:1', 'A:01', '[::0]:1')), fc.jsonValue()),
            volume: fc.oneof(fc.constantFrom('a', 'b-c'), fc.jsonValue()),
            clone: fc.oneof(fc.nat(300), fc.jsonValue()),
            time: fc.boolean(),
            meshfs: fc.record(
              {
                read: fc.array(fc.webUrl().map((url) => url.replace(/^https?/, 'gem-pointer'))),
                write: fc.jsonValue(),
              },
              { requiredKeys: [] },
            ),
          },
          { requiredKeys: [] },
        ),
        (request) => {
          try {
            const whole = normaliseGrants(request as never);
            assert.deepEqual(normaliseGrants(whole), whole);
          } catch (thrown) {
            assert.ok(isError(thrown, BadInput), String(thrown));
          }
        },
      ),
    );
  });
});

describe('a granted pointer', () => {
  it('lies below a prefix that ends with a slash, or is the pointer itself', () => {
    const folder = ['gem-pointer://wiki/a/'];
    assert.ok(pointerGranted(folder, 'gem-pointer://wiki/a/b.md'));
    assert.ok(pointerGranted(folder, 'gem-pointer://wiki/a/b/c.md'));
    assert.ok(!pointerGranted(folder, 'gem-pointer://wiki/a'));
    assert.ok(!pointerGranted(folder, 'gem-pointer://wiki/ab/c.md'));
    const one = ['gem-pointer://wiki/a/b'];
    assert.ok(pointerGranted(one, 'gem-pointer://wiki/a/b'));
    assert.ok(!pointerGranted(one, 'gem-pointer://wiki/a/b.md'));
    assert.ok(!pointerGranted(one, 'gem-pointer://wiki/a/bc'));
    assert.ok(!pointerGranted([], 'gem-pointer://wiki/a/b'));
  });
});

describe('a pointer that is reached', () => {
  it('goes by every spelling of it', () => {
    const one = ['gem-pointer://wiki/a/b'];
    for (const pointer of ['gem-pointer://wiki/a/b', 'gem-pointer://wiki/a/b.md', 'GEM-POINTER://Wiki/a/b.MD'])
      assert.ok(reaches(one, pointer) && reaches([`${one[0]}.md`], pointer), pointer);
    for (const pointer of ['gem-pointer://wiki/a/b.txt', 'gem-pointer://wiki/a/bc', 'gem-pointer://wiki/a'])
      assert.ok(!reaches(one, pointer), pointer);
  });
});

describe('limits', () => {
  it('are positive whole numbers, and fit into each other', () => {
    for (const [name, value] of [...Object.entries(LIMITS), ...Object.entries(LEASE)])
      assert.ok(Number.isSafeInteger(value) && value > 0, name);
    // A frame's first byte must stay 0x00.
    assert.ok(LIMITS.message_bytes + 1 < 2 ** 24);
    assert.ok(LIMITS.source_bytes < LIMITS.message_bytes && LIMITS.source_bytes < LIMITS.body_bytes);
    // A fetched body passes the control channel in base64.
    assert.ok(Math.ceil(LIMITS.fetch_body_bytes / 3) * 4 < LIMITS.message_bytes);
    assert.ok(LIMITS.handshake_bytes < LIMITS.message_bytes);
    assert.ok(LEASE.heartbeat_ms * 2 < LEASE.lease_ms, 'a lost heartbeat does not kill');
    assert.ok(LEASE.min_ms < LEASE.lease_ms && LEASE.lease_ms < LEASE.max_ms);
  });
});
