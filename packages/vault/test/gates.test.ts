/** The gate outside the vault: a Node guest that has fd 4 and nothing else, behind a real gate host. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { AgentForShell } from '@hauki/protocol';
import { Session } from '@hauki/rpc';
import { Gates } from '../src/gates/gates.ts';
import { BRIDGE } from '../src/guest/bridge.ts';
import { writeNodeGuest } from '../src/guest/bundle.ts';
import { type GuestProcess, useGatedGuests } from './gated-guest.ts';

const WORKER = `
  export const add = (a, b) => a + b;
  export const echo = (value) => value;
  export const fill = (n) => new Uint8Array(n);
  export const size = (bytes) => bytes.length;
  export async function* count(n) { for (let i = 0; i < n; i++) yield new Uint8Array(1000).fill(i); }
  export const apply = (f, x) => f(x);
  export const spin = (ms) => { const until = Date.now() + ms; while (Date.now() < until); };
  export const say = (text) => hauki.log(text);
  export const ask = (url) => fetch(url).then((r) => r.text());
`;

describe('a gate outside the vault', () => {
  const guests = useGatedGuests('gate', (folder) => writeNodeGuest(join(folder, 'guest.mjs')));
  const file = join(guests.folder, 'guest.mjs');
  const start = (args: string[], by?: Gates) =>
    guests.start(process.execPath, args, { stderr: 'ignore', ...(by ? { by } : {}) });

  const load = async (guest: GuestProcess, source = WORKER) => {
    const heard: unknown[][] = [];
    const agent: Pick<AgentForShell, 'effect'> = {
      async effect(effect, args) {
        heard.push([effect, ...args]);
        if (effect === 'fetch') return { status: 200, status_text: 'OK', url: args[0], headers: [], text: 'fetched' };
        return undefined;
      },
    };
    return { ...(await guests.load(guest, { source, language: 'javascript', load_timeout_ms: 5_000 }, agent)), heard };
  };

  /** A guest that keeps the bridge's rules as badly as `code` says; it has `say(kind, channel, text)`. */
  const hostile = (code: string) =>
    start([
      '-e',
      `const s = new (require('node:net').Socket)({ fd: 4 });
       const say = (kind, channel, text) => { const t = Buffer.from(text); const h = Buffer.alloc(9);
         h.writeUInt32BE(5 + t.length); h[4] = kind; h.writeUInt32BE(channel, 5); return s.write(Buffer.concat([h, t])); };
       s.on('error', () => process.exit());
       s.on('end', () => process.exit());
       s.once('data', () => { ${code} });`,
    ]);
  const poke = ({ gate }: GuestProcess) => {
    const session = new Session({ transport: gate.control, timeout_ms: 5_000 });
    const setup = { worker: 'w', node: 'n', epoch: 1, source: '', language: 'javascript', load_timeout_ms: 2_000 };
    session
      .call('load', [
        { ...setup, tls: false, keys: { keys: [] }, owner: { jti: 'j', role: 'owner', key: '', resume_key: '' } },
      ])
      .catch(() => {});
  };

  it('lets a ticket’s holder in, and calls, effects and log lines through', async () => {
    const vault = await start([file, 'gate-outside']);
    const { methods, open, heard } = await load(vault);
    assert.ok(methods.includes('add'));
    const { session } = await open();
    assert.equal(await session.call('add', [2, 3]), 5);
    assert.equal(await session.call('ask', ['http://example.test/']), 'fetched');
    await session.call('say', ['hello']);
    await session.call('add', [0, 0]);
    assert.deepEqual(
      heard.map(([effect]) => effect),
      ['fetch', 'log'],
    );
    await assert.rejects(open(), /was redeemed before/);
    vault.gate.close('enough');
    await vault.exited;
  });

  it('carries whole values, callbacks and streams with credit, and literal sessions', async () => {
    const vault = await start([file, 'gate-outside']);
    const { shell, open } = await load(vault);
    const { session } = await open();
    const map = new Map<unknown, unknown>([[1n, new Uint8Array([1, 2])]]);
    assert.deepEqual(await session.call('echo', [map]), map);
    assert.equal(await session.call('apply', [(x: number) => x * 2, 21]), 42);
    let bytes = 0;
    for await (const chunk of (await session.call('count', [2000])) as AsyncIterable<Uint8Array>) bytes += chunk.length;
    assert.equal(bytes, 2_000_000);
    const [info] = await shell.sessions();
    assert.ok(info!.connected && info!.stats!.calls_served! >= 3);
    vault.gate.close('enough');
    const plain = await start([file, 'gate-outside']);
    assert.equal(await (await (await load(plain)).openLiteral()).call('add', [1, 2]), 3);
    plain.gate.close('enough');
  });

  it('holds up callers whose worker does not read, and delivers everything in the end', async () => {
    const vault = await start([file, 'gate-outside']);
    const { session } = await (await load(vault)).open();
    const spun = session.call('spin', [300]);
    const sizes = Array.from({ length: 12 }, () => session.call('size', [new Uint8Array(2_000_000)]));
    await spun;
    assert.deepEqual(new Set(await Promise.all(sizes)), new Set([2_000_000]));
    vault.gate.close('enough');
  });

  it('gives up a caller that does not read, and goes on for the others', async () => {
    const vault = await start([file, 'gate-outside']);
    const { shell, open, visit } = await load(vault);
    const { session, socket } = await open();
    const visitor = await visit();
    socket.pause();
    const given_up = new Promise((resolve) => socket.once('close', resolve));
    for (let i = 0; i < 200; i++) session.call('fill', [1_000_000]).catch(() => {});
    // What it was sent waits outside the vault, and is bounded there.
    let most = 0;
    for (;;) {
      const all = await shell.sessions();
      most = Math.max(most, ...all.map(({ unconfirmed_bytes }) => unconfirmed_bytes));
      if (all.length === 1) break;
      assert.equal(await visitor.call('add', [1, 1]), 2);
    }
    assert.ok(most < 80_000_000, `${most} bytes were held for it`);
    socket.resume();
    await given_up;
    assert.equal(await visitor.call('add', [1, 2]), 3);
    vault.gate.close('enough');
  });

  it('closes its port and ends its guest when it is closed, before it says that it is gone', async () => {
    const vault = await start([file, 'gate-outside']);
    const { open } = await load(vault);
    const { socket } = await open();
    const cut = new Promise((resolve) => socket.once('close', resolve));
    vault.gate.close('enough');
    assert.equal((await vault.gate.gone).reason, 'enough');
    await Promise.all([cut, vault.exited]);
    await assert.rejects(open(), /ECONNREFUSED|Not connected/);
  });

  it('is gone when its guest is', async () => {
    const vault = await start([file, 'gate-outside']);
    await load(vault);
    vault.child.kill('SIGKILL');
    assert.equal((await vault.gate.gone).cause, 'exited');
  });

  it('ends, with its guests, when its host is killed; the next gate gets a new host', async () => {
    const own = new Gates();
    const { gate, exited } = await start([file, 'gate-outside'], own);
    await own.close();
    assert.match((await gate.gone).reason, /the gate host ended/);
    await exited;
  });

  for (const [what, code, pattern] of [
    ['says what is no frame', 's.write(Buffer.alloc(64, 255));', /a frame of 4294967295 bytes/],
    ['opens a channel of its own', `say(${BRIDGE.open}, 7, '{}');`, /a frame of kind 3/],
    [
      'floods its control channel',
      `const m = 'x'.repeat(1e6); const go = () => { while (say(1, 0, m)); s.once('drain', go); }; go();`,
      /flooded|broke|not JSON/,
    ],
    [
      'floods channels that are not there',
      `const go = () => { while (say(1, 9, '')); s.once('drain', go); }; go();`,
      /flooded channels/,
    ],
  ] as const)
    it(`ends a vault whose guest ${what}, and no other`, async () => {
      const neighbour = await start([file, 'gate-outside']);
      const { session } = await (await load(neighbour)).open();
      const vault = await hostile(code);
      poke(vault);
      const { reason } = await vault.gate.gone;
      assert.match(reason, pattern);
      assert.equal(await session.call('add', [1, 1]), 2);
      neighbour.gate.close('enough');
      await vault.exited;
    });
});
