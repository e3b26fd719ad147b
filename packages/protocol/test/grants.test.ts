/** Grants: whatever is not written plainly is not granted; and limits that hold each other up. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { BadInput, isError } from '../src/errors.ts';
import { NO_GRANTS, normaliseGrants, pointerGranted } from '../src/grants.ts';
import { LEASE, LIMITS } from '../src/limits.ts';

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

  it('are whole, in small letters and without repetition', () => {
    assert.deepEqual(
      normaliseGrants({
        fetch: ['Example.ORG:443', '[::1]:80', '127.0.0.1:8080', '127.0.0.1:8080'],
        meshfs: { read: ['gem-pointer://wiki/a/'] },
      }),
      {
        fetch: ['example.org:443', '[::1]:80', '127.0.0.1:8080'],
        meshfs: { read: ['gem-pointer://wiki/a/'], write: [] },
      },
    );
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
      'gem-pointer://wiki/a b',
      'gem-pointer://wiki\\a',
    ])
      for (const right of ['read', 'write']) refused({ meshfs: { [right]: [prefix] } }, /pointer prefix/);
  });

  it('are lists of texts, and not too many', () => {
    for (const list of ['x:1', 5, {}, [5], [null], ['x'.repeat(2000)], Array(LIMITS.grants + 1).fill('a:1')])
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
              fc.array(fc.oneof(fc.string(), fc.constantFrom('a:1', '[::]:9', 'B.c:22'))),
              fc.jsonValue(),
            ),
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
