/** Tickets as the core signs them: by their schema, under a key that only the core has and that survives restarts. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import {
  BadInput,
  isError,
  normaliseGrants,
  TICKET_BODY_SCHEMA,
  TICKET_SCHEMA,
  type TicketBody,
} from '@hauki/protocol';
import { makeCallerKey, randomText, readTicketBody, secretHash } from '@hauki/rpc';
import { calculateJwkThumbprint, compactVerify, createLocalJWKSet } from 'jose';
import { Compile } from 'typebox/schema';
import { openTicketOffice } from '../src/tickets.ts';

const folders: string[] = [];
const folder = () => {
  const made = mkdtempSync(join(tmpdir(), 'hauki-office-'));
  folders.push(made);
  return made;
};
after(() => {
  for (const made of folders) rmSync(made, { recursive: true, force: true });
});

const bodyFits = (value: unknown): boolean => Compile(TICKET_BODY_SCHEMA as never).Check(value);
const ticketFits = (value: unknown): boolean => Compile(TICKET_SCHEMA as never).Check(value);

const subject = {
  worker: 'w-abc',
  node: 'node-1',
  epoch: 1,
  driver: 'lxc',
  isolation: 'container' as const,
  direct: { host: '127.0.0.1', port: 4000, tls: false },
  lease: { heartbeat_ms: 5000, lease_ms: 30_000 },
  grants: normaliseGrants(
    {
      fetch: ['example.org:443', { to: '[::1]:80', methods: ['GET'], per_minute: 60 }],
      connect: ['irc.example:6697'],
      meshfs: { read: ['gem-pointer://wiki/a/'] },
      volume: 'notes',
      clone: 3,
      time: true,
    },
    { KEY: { value: 'hush-hush', to: ['example.org:443'] } },
  ),
};

async function signed(now = Date.now()) {
  const office = await openTicketOffice(folder(), 60_000, () => now);
  const caller = await makeCallerKey();
  const part = { jti: randomText(16), role: 'owner' as const, secret: randomText(32) };
  const ticket = await office.sign(subject, part, caller.thumbprint);
  return { office, caller, part, ticket, body: readTicketBody<TicketBody>(ticket.signed) };
}

describe('a ticket of the core', () => {
  it('says what it was made of, and is valid by both schemas', async () => {
    const now = 1_790_000_000_400;
    const { caller, part, ticket, body } = await signed(now);
    assert.deepEqual(body, {
      v: 1,
      jti: part.jti,
      role: 'owner',
      worker: subject.worker,
      node: subject.node,
      epoch: subject.epoch,
      driver: subject.driver,
      isolation: subject.isolation,
      lease: subject.lease,
      grants: subject.grants,
      audience: caller.thumbprint,
      routes: { direct: subject.direct, relay: { path: '/api/v2/ephemeral/w-abc' } },
      iat: 1_790_000_000,
      exp: 1_790_000_060,
      secret_hash: await secretHash(part.secret),
    });
    assert.ok(bodyFits(body));
    assert.ok(ticketFits(ticket));
    assert.equal(ticket.secret, part.secret);
    assert.ok(!ticket.signed.includes(part.secret) && !JSON.stringify(body).includes(part.secret));
  });

  it('is verified by the published keys, which tell nothing private', async () => {
    const { office, ticket } = await signed();
    const { protectedHeader } = await compactVerify(ticket.signed, createLocalJWKSet(office.keys as never));
    assert.equal(protectedHeader.alg, 'EdDSA');
    assert.equal(protectedHeader.kid, office.keys.keys[0]!.kid);
    const [key] = office.keys.keys;
    assert.deepEqual(Object.keys(key!).sort(), ['alg', 'crv', 'kid', 'kty', 'use', 'x']);
    assert.equal(await calculateJwkThumbprint(key!), key!.kid);
    const other = await signed();
    await assert.rejects(compactVerify(ticket.signed, createLocalJWKSet(other.office.keys as never)));
  });

  it('is not valid with a member more, a member less or a member of another kind', async () => {
    const { body, ticket } = await signed();
    const changed = (change: (copy: any) => void) => {
      const copy = structuredClone(body);
      change(copy);
      return copy;
    };
    assert.ok(bodyFits(changed(() => {})));
    for (const name of Object.keys(body)) assert.ok(!bodyFits(changed((b) => delete b[name])), `without ${name}`);
    const wrong: Record<string, (b: any) => void> = {
      'a member more': (b) => (b.extra = 1),
      'a member more in routes': (b) => (b.routes.extra = {}),
      'a member more in the direct route': (b) => (b.routes.direct.extra = 1),
      'a member more in the relay': (b) => (b.routes.relay.extra = 1),
      'a member more in the lease': (b) => (b.lease.extra = 1),
      'a member more in the grants': (b) => (b.grants.everything = true),
      'a kind of grant less': (b) => delete b.grants.time,
      'a secret’s value': (b) => (b.grants.secrets[0].value = 'hush-hush'),
      'a volume without a quota': (b) => delete b.grants.volume.quota_mib,
      'clones without number': (b) => (b.grants.clone.live = Number.POSITIVE_INFINITY),
      'a connection to no port': (b) => (b.grants.connect = ['irc.example']),
      'no isolation that we know': (b) => (b.isolation = 'strong'),
      'a member more in the grants of MeshFS': (b) => (b.grants.meshfs.remove = []),
      'another version': (b) => (b.v = 2),
      'another role': (b) => (b.role = 'admin'),
      'a short id': (b) => (b.jti = 'x'),
      'a long audience': (b) => (b.audience += 'x'),
      'an audience of other letters': (b) => (b.audience = `${b.audience.slice(1)}+`),
      'an epoch of 0': (b) => (b.epoch = 0),
      'half an epoch': (b) => (b.epoch = 1.5),
      'a worker with a path in it': (b) => (b.worker = '../x'),
      'another driver': (b) => (b.driver = 'podman'),
      'another isolation': (b) => (b.isolation = 'strong'),
      'no port': (b) => (b.routes.direct.port = 0),
      'a port too high': (b) => (b.routes.direct.port = 65_536),
      'a text for a truth': (b) => (b.routes.direct.tls = 'yes'),
      'a relay elsewhere': (b) => (b.routes.relay.path = 'https://evil.example/'),
      'a lease of nothing': (b) => (b.lease.lease_ms = 0),
      'grants that are no texts': (b) => (b.grants.fetch = [5]),
      'too many grants': (b) => (b.grants.fetch = Array(65).fill(b.grants.fetch[0])),
      'a time before time': (b) => (b.iat = -1),
      'a text for a time': (b) => (b.exp = '2026'),
      'a short hash': (b) => (b.secret_hash = 'x'),
    };
    for (const [what, change] of Object.entries(wrong)) assert.ok(!bodyFits(changed(change)), what);
    for (const other of [null, 5, 'text', [], {}]) assert.ok(!bodyFits(other));

    assert.ok(ticketFits({ ...ticket }));
    for (const other of [
      { ...ticket, extra: 1 },
      { signed: ticket.signed },
      { secret: ticket.secret },
      { ...ticket, secret: `${ticket.secret}x` },
      { ...ticket, signed: ticket.signed.replace('.', '') },
      { ...ticket, signed: `${ticket.signed}.x` },
      { ...ticket, signed: `${ticket.signed}=` },
    ])
      assert.ok(!ticketFits(other), JSON.stringify(other));
  });
});

describe('the signing key', () => {
  it('is kept for the owner alone, and is the same after a restart', async () => {
    const dir = folder();
    const office = await openTicketOffice(dir, 60_000);
    assert.deepEqual(readdirSync(dir), ['signing-key.json']);
    assert.equal(statSync(join(dir, 'signing-key.json')).mode & 0o777, 0o600);
    const stored = readFileSync(join(dir, 'signing-key.json'), 'utf8');
    const again = await openTicketOffice(dir, 60_000);
    assert.deepEqual(again.keys, office.keys);
    assert.equal(readFileSync(join(dir, 'signing-key.json'), 'utf8'), stored);
    const part = { jti: randomText(16), role: 'owner' as const, secret: randomText(32) };
    const ticket = await again.sign(subject, part, 'x'.repeat(43));
    await compactVerify(ticket.signed, createLocalJWKSet(office.keys as never));
  });

  it('that is damaged is refused, named, with what to do, and left as it is', async () => {
    const dir = folder();
    const file = join(dir, 'signing-key.json');
    await openTicketOffice(dir, 60_000);
    const whole = readFileSync(file, 'utf8');
    const jwk = JSON.parse(whole);
    for (const text of [
      '',
      '{"kty":"OKP"',
      'null',
      '{}',
      JSON.stringify({ ...jwk, d: undefined }),
      JSON.stringify({ ...jwk, d: jwk.d.slice(1) }),
      JSON.stringify({ ...jwk, crv: 'X25519' }),
    ]) {
      writeFileSync(file, text);
      await assert.rejects(
        openTicketOffice(dir, 60_000),
        (thrown) => isError(thrown, BadInput) && thrown.message.startsWith(`${file}: it is damaged`),
      );
      assert.equal(readFileSync(file, 'utf8'), text);
    }
    writeFileSync(file, whole);
    await openTicketOffice(dir, 60_000);
  });
});
