/** Secrets: put in where they may go and nowhere else, whatever the pieces look like. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GrantMissing, isError, NO_GRANTS } from '@hauki/protocol';
import fc from 'fast-check';
import { createRates } from '../src/effects/rates.ts';
import { secretsOf } from '../src/effects/secrets.ts';

const LONG = 'L'.repeat(64);
const values = { KEY: 's3cr3t/va lue+"x"', OTHER: 'ünlike-others €', UNGRANTED: 'left-over', [LONG]: 'long' };
const grants = {
  ...NO_GRANTS,
  secrets: [
    { name: 'KEY', to: ['api.example:443', '[::1]:80'] },
    { name: 'OTHER', to: ['other.example:443'] },
    { name: 'LOST', to: ['api.example:443'] },
    { name: LONG, to: ['api.example:443'] },
  ],
};
const secrets = secretsOf({ grants }, values);
const HERE = 'api.example:443';
const refused = (run: () => unknown, wanted: string) =>
  assert.throws(run, (e) => isError(e, GrantMissing) && e.fields.grant === 'secrets' && e.fields.wanted === wanted);

describe('a secret', () => {
  it('stands where its placeholder stood, in requests to where it may go', () => {
    assert.equal(secrets.fill('Bearer {{secret:KEY}}', HERE), `Bearer ${values.KEY}`);
    assert.equal(secrets.fill('{{secret:KEY}}{{secret:KEY}}', '[::1]:80'), values.KEY + values.KEY);
    assert.equal(
      secrets.fill('$& and {{secret}} and {{secret:}} and {{ secret:KEY }}', HERE),
      '$& and {{secret}} and {{secret:}} and {{ secret:KEY }}',
    );
  });

  it('goes nowhere else', () => {
    refused(() => secrets.fill('{{secret:KEY}}', 'other.example:443'), 'KEY to other.example:443');
    refused(() => secrets.fill('{{secret:KEY}}', 'api.example:80'), 'KEY to api.example:80');
    refused(() => secrets.fill('{{secret:NOBODY}}', HERE), 'NOBODY');
    refused(() => secrets.fill('{{secret:UNGRANTED}}', HERE), 'UNGRANTED');
    refused(() => secrets.fill('{{secret:LOST}}', HERE), 'LOST to api.example:443');
    refused(() => secrets.fill('{{secret:constructor}}', HERE), 'constructor');
    assert.ok(secrets.withheld('x{{secret:KEY}}', 'other.example:443') && !secrets.withheld('x{{secret:KEY}}', HERE));
    assert.ok(!secrets.withheld('nothing', 'anywhere.example:1'));
  });

  it('is put into a body however it is cut, and changes no other byte', async () => {
    const part = fc.oneof(
      fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes)),
      fc
        .constantFrom('{{secret:KEY}}', '{{secret:', '{{', '}}', '{{secret:KEY', '{', 'secret', 'ü')
        .map((t) => Buffer.from(t)),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(part, { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1 }),
        async (parts, sizes) => {
          const body = Buffer.concat(parts);
          // Not one that is refused, by chance.
          const named = [...body.toString('latin1').matchAll(/\{\{secret:(\w+)\}\}/g)];
          fc.pre(named.every(([, name]) => name === 'KEY'));
          async function* pieces() {
            for (let at = 0, i = 0; at < body.length; i++) {
              const size = sizes[i % sizes.length]!;
              yield Uint8Array.from(body.subarray(at, at + size));
              at += size;
            }
          }
          const got: Uint8Array[] = [];
          for await (const piece of secrets.fillBytes(pieces(), HERE)) got.push(piece);
          const expected = body
            .toString('latin1')
            .replaceAll('{{secret:KEY}}', Buffer.from(values.KEY).toString('latin1'));
          assert.equal(Buffer.concat(got).toString('latin1'), expected);
          assert.equal(Buffer.from(secrets.fillWhole(body, HERE)).toString('latin1'), expected);
        },
      ),
      { numRuns: 1_000 },
    );
  });

  it('of the longest name is put in wherever it is cut, and is UTF-8', async () => {
    const body = Buffer.from(`<{{secret:${LONG}}}>`);
    for (let at = 0; at <= body.length; at++) {
      async function* pieces() {
        yield body.subarray(0, at);
        yield body.subarray(at);
      }
      const got: Uint8Array[] = [];
      for await (const piece of secrets.fillBytes(pieces(), HERE)) got.push(piece);
      assert.equal(Buffer.concat(got).toString(), '<long>', `cut at ${at}`);
    }
    const other = secrets.fillWhole(Buffer.from('ü{{secret:OTHER}}'), 'other.example:443');
    assert.equal(Buffer.from(other).toString(), `ü${values.OTHER}`);
  });

  it('keeps back no more of a body than a placeholder may be long', async () => {
    let given = 0;
    async function* pieces() {
      for (; given < 100; given++) yield Buffer.from('{{secret:'.padEnd(1_000, 'x'));
    }
    let got = 0;
    for await (const piece of secrets.fillBytes(pieces(), HERE)) {
      got += piece.length;
      assert.ok(got >= given * 1_000 - 100, `${got} of ${given * 1_000}`);
    }
    assert.equal(got, 100_000);
  });
});

describe('a rate', () => {
  it('lets through what its grants say in any minute, and not more for asking often', () => {
    let now = 0;
    const rates = createRates(() => now);
    const rules = [{ to: 'a:1', per_minute: 6 }];
    const taken = (times: number) => Array.from({ length: times }, () => rates.take(rules)).filter(Boolean).length;
    assert.equal(taken(4), 4);
    now += 30_000;
    assert.equal(taken(10), 2);
    now += 29_999;
    assert.equal(taken(3), 0);
    // What was taken first is a minute ago, with the part of it that is counted as one.
    now += 1_001;
    assert.equal(taken(10), 4);
    now += 3_600_000;
    assert.equal(taken(20), 6, 'what nobody asked for is not saved up beyond a minute');
  });

  it('holds in each minute, however the requests are spread', () => {
    let now = 0;
    const rates = createRates(() => now);
    const rules = [{ to: 'a:1', per_minute: 60 }];
    const at: number[] = [];
    for (; now < 300_000; now += 137) if (rates.take(rules)) at.push(now);
    for (const begin of at) assert.ok(at.filter((time) => time >= begin && time < begin + 60_000).length <= 60);
    assert.ok(at.length >= 4 * 60);
  });

  it('of one grant leaves the next; a grant without one is taken first', () => {
    const rates = createRates(() => 0);
    const few = { name: 'few', per_minute: 1 };
    const more = { name: 'more', per_minute: 2 };
    assert.deepEqual(
      [1, 2, 3, 4].map(() => rates.take([few, more])?.name),
      ['few', 'more', 'more', undefined],
    );
    assert.equal(rates.take([few, { name: 'free', per_minute: 0 }])?.name, 'free');
  });

  it('is not forgotten while it is asked for, whatever other grants there were meanwhile', () => {
    const rates = createRates(() => 0);
    const rule = { name: 'kept', per_minute: 1 };
    assert.ok(rates.take([rule]));
    for (let i = 0; i < 300; i++) {
      rates.take([{ name: `other ${i}`, per_minute: 1 }]);
      assert.equal(rates.take([rule]), undefined, `after ${i} others`);
    }
  });
});
