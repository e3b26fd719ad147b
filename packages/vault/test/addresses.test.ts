/** Which addresses are public: no spelling of one that is not passes, and none that is is held back. */
import assert from 'node:assert/strict';
import { BlockList, isIP } from 'node:net';
import { describe, it } from 'node:test';
import { canonicalTarget, GrantMissing, isError, RemoteError } from '@hauki/protocol';
import fc from 'fast-check';
import { closedRange, namesOf } from '../src/effects/addresses.ts';
import { createNetwork, partsOf, routeTo } from '../src/effects/network.ts';

/** First address and bits of what is not public, told apart from the list that is tested. */
const CLOSED_4: [string, number][] = [
  ...([
    ['0.0.0.0', 8],
    ['10.0.0.0', 8],
    ['100.64.0.0', 10],
    ['127.0.0.0', 8],
    ['169.254.0.0', 16],
  ] as const),
  ...([
    ['172.16.0.0', 12],
    ['192.0.0.0', 24],
    ['192.0.2.0', 24],
    ['192.88.99.0', 24],
    ['192.168.0.0', 16],
  ] as const),
  ...([
    ['198.18.0.0', 15],
    ['198.51.100.0', 24],
    ['203.0.113.0', 24],
    ['168.63.129.16', 32],
    ['224.0.0.0', 3],
  ] as const),
] as [string, number][];
const closed_4 = new BlockList();
for (const [first, bits] of CLOSED_4) closed_4.addSubnet(first, bits, 'ipv4');
const CLOSED_6 = ['::', '::1', 'fe80::1', 'fec0::1', 'fc00::', 'fdff:ffff::1', 'fd00:ec2::254', 'ff02::1', 'ff0e::1'];
const MORE_6 = [
  '2001:db8::1',
  '2001::1',
  '2001:10::1',
  '2002:7f00:1::',
  '3fff::1',
  '100::1',
  '64:ff9b:1::1',
  '::2',
  '5f00::1',
];

const number = (text: string) => text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
const dotted = (value: number) => [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join('.');
const closedAddress = fc
  .tuple(fc.constantFrom(...CLOSED_4), fc.nat(0xffffffff))
  .map(([[first, bits], more]) => dotted((number(first) | (bits === 32 ? 0 : more & (0xffffffff >>> bits))) >>> 0));

/** All ways in which a URL may write an IPv4 address. */
const spelled = (address: string) => {
  const value = number(address);
  const bytes = address.split('.').map(Number);
  const [a, b, c] = bytes as [number, number, number];
  const part = (n: number) =>
    fc.constantFrom(
      String(n),
      `0x${n.toString(16)}`,
      `0X${n.toString(16).toUpperCase()}`,
      `0${n.toString(8)}`,
      `0x000${n.toString(16)}`,
    );
  const dots = (...numbers: number[]) => fc.tuple(...numbers.map(part)).map((parts) => parts.join('.'));
  const hex = (n: number) => n.toString(16).padStart(4, '0');
  const [high, low] = [hex(value >>> 16), hex(value & 0xffff)];
  const four = fc
    .oneof(dots(...bytes), dots(a, b, value & 0xffff), dots(a, value & 0xffffff), dots(value), dots(a, b, c, bytes[3]!))
    .chain((text) => fc.constantFrom(text, `${text}.`));
  const six = fc.constantFrom(
    `[::ffff:${address}]`,
    `[::FFFF:${high}:${low}]`,
    `[0:0:0:0:0:ffff:${high}:${low}]`,
    `[0000:0000:0000:0000:0000:ffff:${address}]`,
    `[64:ff9b::${high}:${low}]`,
  );
  return fc.oneof(four, six);
};

const signal = new AbortController().signal;
const asking = (lookup: (host: string) => Promise<string[]>, listed: string[] = []) => ({
  ...{
    network: createNetwork({ lookup }),
    asker: { owner: 'ada', family: 1 },
    grant: 'fetch' as const,
    listed,
    signal,
  },
});

describe('an address that is not public', () => {
  it('passes in no spelling', () => {
    fc.assert(
      fc.property(
        closedAddress.chain((address) => fc.tuple(fc.constant(address), spelled(address))),
        ([address, host]) => {
          assert.ok(closed_4.check(address), address);
          const target = canonicalTarget(`${host}:80`);
          assert.ok(target !== undefined, `${host} is understood as clients understand it`);
          const parts = partsOf(target);
          assert.ok(isIP(parts.host) > 0, `${host} is no name: ${target}`);
          assert.notEqual(closedRange(parts.host), undefined, `${host} is ${target}`);
        },
      ),
      { numRuns: 3_000 },
    );
  });

  it('is said by its kind', () => {
    for (const [address, kind] of [
      ['127.0.0.1', 'loopback'],
      ['::1', 'loopback'],
      ['::ffff:127.0.0.1', 'loopback'],
      ['169.254.169.254', 'link-local'],
      ['fd00:ec2::254', 'unique local'],
      ['100.100.100.200', 'carrier-grade NAT'],
      ['168.63.129.16', 'cloud metadata'],
      ['255.255.255.255', 'reserved'],
      ['fe80::1%eth0', 'link-local'],
      ['localhost', 'no address'],
      ['', 'no address'],
    ] as const)
      assert.equal(closedRange(address), kind, address);
    for (const address of [...CLOSED_6, ...MORE_6]) assert.notEqual(closedRange(address), undefined, address);
  });

  it('is refused where a name leads to it, with words that say how it could be granted', async () => {
    await fc.assert(
      fc.asyncProperty(closedAddress, fc.boolean(), async (address, mapped) => {
        const answer = mapped ? `::ffff:${address}` : address;
        const refusal = await routeTo(
          'inner.example:8080',
          asking(async () => [answer]),
        ).catch((error) => error);
        assert.ok(isError(refusal, GrantMissing), String(refusal));
        assert.deepEqual(refusal.fields, { grant: 'fetch', wanted: `${address}:8080` });
        assert.ok(
          refusal.message.includes(`inner.example:8080 is at ${answer}`) &&
            refusal.message.includes(`${address}:8080 too`),
        );
        // Listed by address and port, it may be gone to; with another port it may not.
        const listed = asking(async () => [answer], ['inner.example:8080', `${address}:8080`]);
        assert.equal((await routeTo('inner.example:8080', listed)).host, 'inner.example');
        const other = asking(async () => [answer], ['inner.example:8080', `${address}:8081`]);
        await assert.rejects(routeTo('inner.example:8080', other), (e) => isError(e, GrantMissing));
      }),
      { numRuns: 200 },
    );
  });
});

describe('a public address', () => {
  it('is not held back', () => {
    fc.assert(
      fc.property(fc.nat(0xffffffff).map(dotted), (address) => {
        assert.equal(closedRange(address) === undefined, !closed_4.check(address), address);
        assert.equal(closedRange(`::ffff:${address}`) === undefined, !closed_4.check(address), `::ffff:${address}`);
      }),
      { numRuns: 3_000 },
    );
    for (const address of [
      '2606:4700:4700::1111',
      '2a00::1',
      '2400:cb00::1',
      '2620:fe::fe',
      '2001:4860:4860::8888',
      '64:ff9b::808:808',
    ])
      assert.equal(closedRange(address), undefined, address);
  });

  it('is the only one that is gone to, where a name has others too', async () => {
    const route = await routeTo(
      'mixed.example:443',
      asking(async () => ['10.0.0.1', '93.184.216.34', '::1']),
    );
    const all = await new Promise((resolve) =>
      route.lookup('other.example', { all: true }, (_e, found) => resolve(found)),
    );
    assert.deepEqual(all, [{ address: '93.184.216.34', family: 4 }]);
    const one = await new Promise((resolve) => route.lookup('other.example', {}, (_e, found) => resolve(found)));
    assert.equal(one, '93.184.216.34');
  });

  it('is asked for once, and what is no name says so', async () => {
    let asked = 0;
    await assert.rejects(
      routeTo(
        'nowhere.example:80',
        asking(async () => {
          asked++;
          throw Object.assign(new Error('getaddrinfo'), { code: 'ENOTFOUND' });
        }),
      ),
      (error) => isError(error, RemoteError) && /nowhere\.example: ENOTFOUND/.test(error.message),
    );
    assert.equal(asked, 1);
    await assert.rejects(
      routeTo(
        'empty.example:80',
        asking(async () => []),
      ),
      /ENODATA/,
    );
    // An address needs no name server.
    const never = asking(() => assert.fail(), ['[::1]:80']);
    assert.deepEqual((await routeTo('[::1]:80', never)).host, '::1');
  });

  it('is named as grants name it', () => {
    assert.deepEqual(namesOf('10.0.0.1', 80), ['10.0.0.1:80']);
    assert.deepEqual(namesOf('::1', 80), ['[::1]:80']);
    assert.deepEqual(namesOf('::ffff:10.0.0.1', 80), ['[::ffff:a00:1]:80', '10.0.0.1:80']);
    assert.deepEqual(namesOf('fe80::1%eth0', 80), ['[fe80::1]:80']);
  });
});
