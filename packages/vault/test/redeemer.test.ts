/**
 * The redeemer: each wrong ticket by its own name, one winner for each right one, and nothing altered gets through. Over
 * 400 lines, because there is one case for every way in which a ticket can be wrong.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  type ErrorClass,
  isError,
  LEASE,
  LIMITS,
  Overloaded,
  ProtocolViolation,
  TicketAudience,
  TicketExpired,
  TicketForged,
  TicketMisdirected,
  TicketReplayed,
  TicketUnproven,
} from '@hauki/protocol';
import {
  leaseKey,
  mac,
  macHolds,
  makeCallerKey,
  memoryPair,
  type Redemption,
  randomText,
  redeemTicket,
  Session,
  secretHash,
  sessionKey,
  toBase64url,
  transcript,
} from '@hauki/rpc';
import { CompactSign, calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose';
import { Redeemer } from '../src/guest/redeemer.ts';
import { bench, bodyOf, issue, openOffice, redemptionOf, SELF } from './ticket-support.ts';

const NONCE = 'the-workers-nonce';

const refuses = async (promise: Promise<unknown>, kind: ErrorClass<any>, what = kind.row.name) => {
  try {
    await promise;
  } catch (thrown) {
    assert.ok(isError(thrown, kind), `${what}: expected ${kind.row.name}, got ${thrown}`);
    return thrown;
  }
  assert.fail(`${what}: it was accepted`);
};

const encodeText = (text: string) => toBase64url(new TextEncoder().encode(text));

describe('a ticket that is right', () => {
  it('is redeemed with its role, and the worker proves itself in turn', async () => {
    const { office, caller, redeemer } = await bench();
    for (const role of ['owner', 'visitor'] as const) {
      const { ticket, jti, key } = await issue(office, caller.thumbprint, { role });
      redeemer.expect({ jti, role, key, resume_key: key });
      const redemption = await redemptionOf(ticket.signed, jti, key, caller, NONCE);
      const redeemed = await redeemer.redeem(redemption, NONCE);
      assert.equal(redeemed.ticket.role, role);
      assert.ok(await macHolds(key, transcript('worker', jti, NONCE, redemption.nonce), redeemed.proof));
    }
    await office.close();
  });

  it('offers its key to TLS until it is redeemed', async () => {
    const { office, caller, redeemer } = await bench();
    const { ticket, jti, key } = await issue(office, caller.thumbprint);
    assert.equal(redeemer.pskOf(jti), undefined);
    redeemer.expect({ jti, role: 'owner', key, resume_key: key });
    assert.equal(redeemer.pskOf(jti), key);
    await redeemer.redeem(await redemptionOf(ticket.signed, jti, key, caller, NONCE), NONCE);
    assert.equal(redeemer.pskOf(jti), undefined);
    await office.close();
  });

  it('is redeemed through a session by redeemTicket, which refuses a worker that cannot prove itself', async () => {
    const { office, caller, redeemer } = await bench();
    const { ticket, jti, key } = await issue(office, caller.thumbprint);
    redeemer.expect({ jti, role: 'owner', key, resume_key: key });
    const serveWith = (spoil: (answer: any) => unknown) => {
      const [a, b] = memoryPair();
      new Session({
        transport: b,
        dispatch: async (method, params) => {
          if (method === 'rpc.hello') return { nonce: NONCE };
          const { proof } = await redeemer.redeem((params as Redemption[])[0]!, NONCE);
          return spoil({ worker: SELF.worker, proof, methods: ['look'] });
        },
      });
      return new Session({ transport: a });
    };
    assert.deepEqual(
      await redeemTicket(
        serveWith((answer) => answer),
        ticket,
        caller,
      ),
      ['look'],
    );
    for (const spoil of [
      (answer: any) => ({ ...answer, worker: 'w-other' }),
      (answer: any) => ({ ...answer, proof: toBase64url(new Uint8Array(32)) }),
      (answer: any) => ({ ...answer, proof: undefined }),
      () => null,
    ]) {
      const next = await issue(office, caller.thumbprint);
      redeemer.expect({ jti: next.jti, role: 'owner', key: next.key, resume_key: next.key });
      await refuses(redeemTicket(serveWith(spoil), next.ticket, caller), ProtocolViolation);
    }
    const foreign = await issue(office, caller.thumbprint);
    await refuses(
      redeemTicket(
        serveWith((answer) => answer),
        { ...foreign.ticket, secret: randomText(32) },
        caller,
      ),
      TicketForged,
    );
    await office.close();
  });
});

describe('a ticket that is wrong', () => {
  /** A redeemer with one good ticket, and a check that it still works after whatever was tried. */
  const withGood = async (body: (given: Awaited<ReturnType<typeof setUp>>) => Promise<void>) => {
    const given = await setUp();
    try {
      await body(given);
      // A failed redemption burns nothing.
      const redemption = await redemptionOf(given.ticket.signed, given.jti, given.key, given.caller, NONCE);
      assert.equal((await given.redeemer.redeem(redemption, NONCE)).ticket.role, 'owner');
    } finally {
      await given.office.close();
    }
  };
  const setUp = async () => {
    const { office, caller, redeemer } = await bench();
    const { ticket, jti, key } = await issue(office, caller.thumbprint);
    redeemer.expect({ jti, role: 'owner', key, resume_key: key });
    const redeem = async (signed: unknown, change: Partial<Redemption> = {}, nonce = NONCE) =>
      redeemer.redeem(
        { ...(await redemptionOf(signed as string, jti, key, caller, NONCE)), ...change } as Redemption,
        nonce,
      );
    return { office, caller, redeemer, ticket, jti, key, redeem };
  };

  it('is forged when another key signed it, also under the right key’s name', () =>
    withGood(async ({ office, ticket, redeem }) => {
      const { privateKey, publicKey } = await generateKeyPair('Ed25519', { extractable: true });
      const other = await calculateJwkThumbprint(await exportJWK(publicKey));
      const right = office.keys.keys[0]!.kid!;
      const payload = new TextEncoder().encode(JSON.stringify(bodyOf(ticket.signed)));
      for (const kid of [other, right, undefined]) {
        const header = kid === undefined ? { alg: 'EdDSA' } : { alg: 'EdDSA', kid };
        await refuses(redeem(await new CompactSign(payload).setProtectedHeader(header).sign(privateKey)), TicketForged);
      }
      // Its own public key in the header helps it no more.
      const jwk = await exportJWK(publicKey);
      const header = { alg: 'EdDSA', kid: right, jwk };
      await refuses(redeem(await new CompactSign(payload).setProtectedHeader(header).sign(privateKey)), TicketForged);
    }));

  it('is forged when its payload was altered', () =>
    withGood(async ({ ticket, redeem }) => {
      const [header, , signature] = ticket.signed.split('.');
      const body = bodyOf(ticket.signed);
      for (const change of [
        { role: 'visitor' },
        { exp: body.exp + 3600 },
        { audience: 'x'.repeat(43) },
        { v: 1.0, extra: 1 },
      ])
        await refuses(
          redeem(`${header}.${encodeText(JSON.stringify({ ...body, ...change }))}.${signature}`),
          TicketForged,
          JSON.stringify(change),
        );
    }));

  it('is forged when it is signed by nothing, or by its own public key as a secret', () =>
    withGood(async ({ office, ticket, redeem }) => {
      const payload = ticket.signed.split('.')[1]!;
      for (const alg of ['none', 'None', 'NONE', 'HS256', 'RS256', '']) {
        const header = encodeText(JSON.stringify({ alg, kid: office.keys.keys[0]!.kid }));
        await refuses(redeem(`${header}.${payload}.`), TicketForged, alg);
        await refuses(redeem(`${header}.${payload}.${ticket.signed.split('.')[2]}`), TicketForged, alg);
      }
      const { x, kid } = office.keys.keys[0]!;
      const secret = new TextEncoder().encode(x!);
      const hmac = await new CompactSign(new TextEncoder().encode(JSON.stringify(bodyOf(ticket.signed))))
        .setProtectedHeader({ alg: 'HS256', kid: kid! })
        .sign(secret);
      await refuses(redeem(hmac), TicketForged);
    }));

  it('is forged when it is garbage', () =>
    withGood(async ({ ticket, redeem, redeemer }) => {
      const [header, payload, signature] = ticket.signed.split('.');
      for (const garbage of [
        undefined,
        null,
        5,
        {},
        [],
        '',
        '.',
        '..',
        '...',
        'not a ticket',
        header,
        `${header}.${payload}`,
        `${header}.${payload}.`,
        `.${payload}.${signature}`,
        `${header}..${signature}`,
        `${ticket.signed}.`,
        `${ticket.signed}.${signature}`,
        ` ${ticket.signed}`,
        'x'.repeat(100_000),
      ])
        await refuses(redeem(garbage), TicketForged, String(garbage).slice(0, 60));
      for (const nothing of [undefined, null, 5, 'text', [], {}])
        await refuses(redeemer.redeem(nothing as never, NONCE), TicketForged);
    }));

  it('is forged when its version is another, though the core signed it', async () => {
    const { privateKey, publicKey } = await generateKeyPair('Ed25519', { extractable: true });
    const jwk = await exportJWK(publicKey);
    const redeemer = new Redeemer(SELF, { keys: [{ ...jwk, kid: 'k', alg: 'EdDSA' }] });
    const redeem = async (body: unknown) => {
      const signed = await new CompactSign(new TextEncoder().encode(JSON.stringify(body)))
        .setProtectedHeader({ alg: 'EdDSA', kid: 'k' })
        .sign(privateKey);
      return redeemer.redeem({ ticket: signed } as never, NONCE);
    };
    for (const body of [{ v: 2 }, {}, [], 'text', null, 5])
      await refuses(redeem(body), TicketForged, JSON.stringify(body));
    // Positive control: signed like this, the right version is read.
    await refuses(redeem({ v: 1, worker: 'w-two' }), TicketMisdirected);
  });

  it('expires by its age at the worker, also where the core’s clock and the node’s are years apart', async () => {
    for (const apart_ms of [0, 3 * 365 * 86_400_000, -3 * 365 * 86_400_000]) {
      let now = 5_000;
      const office = await openOffice(() => Date.now() - apart_ms);
      const redeemer = new Redeemer(SELF, office.keys, () => now);
      const caller = await makeCallerKey();
      const { ticket, jti, key } = await issue(office, caller.thumbprint);
      redeemer.expect({ jti, role: 'owner', key, resume_key: key });
      const redemption = await redemptionOf(ticket.signed, jti, key, caller, NONCE);
      now += LEASE.ticket_ms;
      const error = await refuses(redeemer.redeem(redemption, NONCE), TicketExpired);
      const { exp } = bodyOf(ticket.signed);
      assert.equal((error as any).fields.expired_at, new Date(exp * 1000).toISOString());
      // A moment earlier it is good.
      now -= 1;
      assert.equal((await redeemer.redeem(redemption, NONCE)).ticket.role, 'owner');
      await refuses(redeemer.redeem(redemption, NONCE), TicketReplayed);
      await office.close();
    }
  });

  it('has expired, by its date, where it was forgotten or never told of', async () => {
    const office = await openOffice(() => Date.now() - 10 * LEASE.ticket_ms);
    const redeemer = new Redeemer(SELF, office.keys);
    const caller = await makeCallerKey();
    const { ticket, jti, key } = await issue(office, caller.thumbprint);
    await refuses(redeemer.redeem(await redemptionOf(ticket.signed, jti, key, caller, NONCE), NONCE), TicketExpired);
    await office.close();
  });

  it('is replayed when it was redeemed before, on any connection and by any message', () =>
    withGood(async ({ office, caller, redeemer }) => {
      const once = await issue(office, caller.thumbprint);
      redeemer.expect({ jti: once.jti, role: 'owner', key: once.key, resume_key: once.key });
      const redemption = await redemptionOf(once.ticket.signed, once.jti, once.key, caller, NONCE);
      await redeemer.redeem(redemption, NONCE);
      await refuses(redeemer.redeem(redemption, NONCE), TicketReplayed);
      const again = await redemptionOf(once.ticket.signed, once.jti, once.key, caller, 'another-nonce');
      await refuses(redeemer.redeem(again, 'another-nonce'), TicketReplayed);
    }));

  it('has another audience when another key is shown, none, or the right one without its signature', () =>
    withGood(async ({ ticket, jti, key, redeem, redeemer }) => {
      const thief = await makeCallerKey();
      await refuses(redeemer.redeem(await redemptionOf(ticket.signed, jti, key, thief, NONCE), NONCE), TicketAudience);
      const { signature } = await redemptionOf(ticket.signed, jti, key, thief, NONCE);
      for (const bad of [signature, '', 'x', toBase64url(new Uint8Array(64)), undefined, 5, null, {}])
        await refuses(redeem(ticket.signed, { signature: bad as never }), TicketAudience, String(bad));
      for (const bad of [
        undefined,
        null,
        {},
        5,
        { kty: 'RSA', crv: 'Ed25519', x: 'x' },
        { kty: 'OKP', crv: 'X25519', x: 'x' },
        { kty: 'OKP', crv: 'Ed25519' },
        { kty: 'OKP', crv: 'Ed25519', x: 'x'.repeat(1000) },
      ])
        await refuses(redeem(ticket.signed, { key: bad as never }), TicketAudience, JSON.stringify(bad));
    }));

  it('has another audience when what was signed was said to another worker or in another exchange', () =>
    withGood(async ({ ticket, redeem }) => {
      await refuses(redeem(ticket.signed, {}, 'another-nonce-of-the-worker'), TicketAudience);
      await refuses(redeem(ticket.signed, { nonce: 'another-nonce-of-the-caller' }), TicketAudience);
    }));

  it('is misdirected when it names another worker, node or epoch, or is not expected', () =>
    withGood(async ({ office, caller, redeemer }) => {
      for (const named of [{ worker: 'w-two' }, { node: 'node-two' }, { epoch: 2 }, { epoch: 4 }, {}]) {
        const other = await issue(office, caller.thumbprint, named);
        const known = Object.keys(named).length > 0;
        if (known) redeemer.expect({ jti: other.jti, role: 'owner', key: other.key, resume_key: other.key });
        const redemption = await redemptionOf(other.ticket.signed, other.jti, other.key, caller, NONCE);
        await refuses(redeemer.redeem(redemption, NONCE), TicketMisdirected, JSON.stringify(named));
      }
    }));

  it('is unproven when whoever sends it does not hold the secret', () =>
    withGood(async ({ ticket, jti, key, redeem }) => {
      const { secret } = ticket;
      const said = transcript('caller', jti, NONCE, 'n');
      for (const proof of [
        undefined,
        null,
        5,
        '',
        'x',
        'x'.repeat(43),
        await mac(await sessionKey(randomText(32), jti), said),
        await mac(await leaseKey(secret, jti), said),
        await mac(await sessionKey(secret, 'another-jti'), said),
        // The worker's own words cannot be turned against it.
        await mac(key, transcript('worker', jti, NONCE, 'n')),
      ])
        await refuses(redeem(ticket.signed, { proof: proof as never }), TicketUnproven, String(proof));
    }));
});

describe('the keys of a ticket', () => {
  it('are three that tell nothing of each other', async () => {
    const secret = randomText(32);
    const keys = [await sessionKey(secret, 'a'), await leaseKey(secret, 'a'), await sessionKey(secret, 'b'), secret];
    assert.equal(new Set(keys).size, 4);
    for (const key of keys) assert.match(key, /^[A-Za-z0-9_-]{43}$/);
    assert.notEqual(await secretHash(secret), await secretHash(randomText(32)));
    assert.equal(await sessionKey(secret, 'a'), keys[0]);
  });
});

const RACES = 10_000;
const CHUNK = 100;

describe('tickets that nobody redeems', () => {
  it('are kept in bounded number, void no other token’s and not the owner’s, and make room when they are redeemed', async () => {
    const { office, caller, redeemer } = await bench();
    const waits = (jti: string) => redeemer.pskOf(jti) !== undefined;
    const expect = (jti: string, by?: string, role: 'owner' | 'visitor' = 'visitor') =>
      redeemer.expect({ jti, role, key: 'k', resume_key: 'r', ...(by ? { by } : {}) });
    const { ticket, jti, key } = await issue(office, caller.thumbprint, { role: 'visitor' });
    redeemer.expect({ jti, role: 'visitor', key, resume_key: key, by: 'bob' });
    expect('owner', undefined, 'owner');
    const flood = Array.from({ length: 2 * LIMITS.tickets_waiting }, (_, i) => `ada-${i}`);
    for (const one of flood) expect(one, 'ada');
    const kept = flood.filter(waits);
    assert.equal(kept.length, LIMITS.tickets_waiting / 2 - 1, 'half of what others have not');
    assert.deepEqual(kept, flood.slice(-kept.length), 'the newest');
    const admins = Array.from({ length: 2 * LIMITS.tickets_waiting }, (_, i) => `admin-${i}`);
    for (const one of admins) expect(one);
    const last = admins.find(waits)!;
    assert.deepEqual([kept.every(waits), waits(jti), waits('owner')], [true, true, true]);
    // Of another token there is none that could make room.
    assert.throws(
      () => expect('eve', 'eve'),
      (error) => isError(error, Overloaded),
    );
    await redeemer.redeem(await redemptionOf(ticket.signed, jti, key, caller, NONCE), NONCE);
    expect('admin-last');
    assert.ok(waits(last), 'one that is redeemed has made room');
    expect('admin-more');
    assert.ok(!waits(last), 'and there is none besides');
    await office.close();
  });
});

describe('redeemed by several at once', () => {
  it(`has exactly one winner in each of ${RACES} races`, async (t) => {
    const { office, caller, redeemer } = await bench();
    const started = performance.now();
    let replayed = 0;
    for (let done = 0; done < RACES; done += CHUNK)
      await Promise.all(
        Array.from({ length: CHUNK }, async (_, i) => {
          const { ticket, jti, key } = await issue(office, caller.thumbprint);
          redeemer.expect({ jti, role: 'owner', key, resume_key: key });
          const racers = i % 10 === 0 ? 3 : 2;
          const redemptions = await Promise.all(
            Array.from({ length: racers }, (_, at) => redemptionOf(ticket.signed, jti, key, caller, `nonce ${at}`)),
          );
          const outcomes = await Promise.allSettled(redemptions.map((r, at) => redeemer.redeem(r, `nonce ${at}`)));
          const losers = outcomes.filter((o) => o.status === 'rejected');
          assert.equal(losers.length, racers - 1);
          for (const { reason } of losers) assert.ok(isError(reason, TicketReplayed), String(reason));
          replayed += losers.length;
        }),
      );
    assert.ok(replayed >= RACES);
    t.diagnostic(`${RACES} races, ${replayed} losers, ${Math.round(performance.now() - started)} ms`);
    await office.close();
  });
});

const FORGERIES = 100_000;

describe('forged or altered', () => {
  it(`none of ${FORGERIES} tickets is accepted, and the genuine one works afterwards`, async (t) => {
    // The clock stands still: a slow machine takes longer than the genuine ticket is good for.
    const began = Date.now();
    const { office, caller, redeemer } = await bench(() => began);
    const stranger = await openOffice();
    const { ticket, jti, key } = await issue(office, caller.thumbprint);
    redeemer.expect({ jti, role: 'owner', key, resume_key: key });
    const good = await redemptionOf(ticket.signed, jti, key, caller, NONCE);
    const genuine = ticket.signed;
    const [header, payload, signature] = genuine.split('.') as [string, string, string];
    const body = bodyOf(genuine);
    const other = (await issue(office, caller.thumbprint, { worker: 'w-two' })).ticket.signed.split('.');
    const foreign = (await issue(stranger, caller.thumbprint)).ticket.signed.split('.');

    // A generator with a fixed seed, so that a failure can be repeated.
    let state = 0x2545f491;
    const random = (below: number) => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return (state >>> 0) % below;
    };
    const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    const names = Object.keys(body) as (keyof typeof body)[];
    const kinds: (() => string)[] = [
      // One character, anywhere, is another of the alphabet.
      () => {
        const at = random(genuine.length);
        return genuine.slice(0, at) + ALPHABET[random(64)] + genuine.slice(at + 1);
      },
      // One character is anything at all.
      () => {
        const at = random(genuine.length);
        return genuine.slice(0, at) + String.fromCharCode(random(0x250)) + genuine.slice(at + 1);
      },
      // Something is put in, white space and padding too.
      () => {
        const at = random(genuine.length + 1);
        return genuine.slice(0, at) + [' ', '\n', '=', '.', 'A', '\t', '-'][random(7)] + genuine.slice(at);
      },
      // Cut short, or with a piece taken out.
      () => genuine.slice(0, random(genuine.length)),
      () => {
        const at = random(genuine.length);
        return genuine.slice(0, at) + genuine.slice(at + 1 + random(20));
      },
      // Parts of several tickets put together.
      () => {
        const from = (at: number) => [[header, payload, signature], other, foreign][random(3)]![at]!;
        return [from(0), from(1), from(2)].join('.');
      },
      // The signature's last bits, which an encoder never sets.
      () => genuine.slice(0, -1) + ALPHABET[random(64)],
      // A member of the body is another, or gone, or added; encoded as it should be.
      () => {
        const changed: any = structuredClone(body);
        const name = names[random(names.length)]!;
        const draw = random(4);
        if (draw === 0) delete changed[name];
        else if (draw === 1) changed[`extra${random(1000)}`] = random(1000);
        else if (typeof changed[name] === 'number') changed[name] += 1 + random(100_000);
        else if (typeof changed[name] === 'string') changed[name] += ALPHABET[random(64)];
        else changed[name] = random(1000);
        return `${header}.${encodeText(JSON.stringify(changed))}.${signature}`;
      },
      // The same body, spelled in another way.
      () => `${header}.${encodeText(JSON.stringify(body, null, 1 + random(9)))}.${signature}`,
      // Another header.
      () => {
        const alg = ['none', 'HS256', 'EdDSA', 'Ed25519', 'ES256', 'RS256'][random(6)];
        const altered = { alg, kid: random(2) ? office.keys.keys[0]!.kid : 'x', n: random(1000) };
        return `${encodeText(JSON.stringify(altered))}.${payload}.${signature}`;
      },
      // A signature of random bytes.
      () => `${header}.${payload}.${toBase64url(crypto.getRandomValues(new Uint8Array(64)))}`,
    ];

    const started = performance.now();
    const accepted: string[] = [];
    const wrong_error = new Map<string, number>();
    let tried = 0;
    const attempt = async () => {
      let altered: string;
      do altered = kinds[tried % kinds.length]!();
      while (altered === genuine || altered === other.join('.'));
      tried++;
      try {
        await redeemer.redeem({ ...good, ticket: altered }, NONCE);
        accepted.push(altered);
        // So that the next that gets through is seen too.
        redeemer.expect({ jti, role: 'owner', key, resume_key: key });
      } catch (thrown) {
        // Once one got through, the ticket counts as redeemed: whatever gets as far as that was verified.
        if (isError(thrown, TicketForged)) return;
        if (isError(thrown, TicketReplayed)) accepted.push(altered);
        else wrong_error.set(String(thrown), 1);
      }
    };
    while (tried < FORGERIES) await Promise.all(Array.from({ length: Math.min(500, FORGERIES - tried) }, attempt));
    t.diagnostic(`${tried} tickets in ${Math.round(performance.now() - started)} ms; ${accepted.length} accepted`);
    assert.equal(tried, FORGERIES);
    const shown = [...new Set(accepted)].slice(0, 5).map((text) => JSON.stringify(text.slice(-100)));
    assert.equal(
      accepted.length,
      0,
      `accepted ${accepted.length}; genuine ends ${signature.slice(-12)}; e.g. ${shown.join('\n')}`,
    );
    assert.deepEqual([...wrong_error.keys()], []);
    assert.equal((await redeemer.redeem(good, NONCE)).ticket.role, 'owner');
    await Promise.all([office.close(), stranger.close()]);
  });
});
