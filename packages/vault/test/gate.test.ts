/** The gate on real sockets: one handshake in every speech, and nothing without it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { describe, it } from 'node:test';
import {
  ConnectionLost,
  type ErrorClass,
  isError,
  LIMITS,
  NoSuchMethod,
  Overloaded,
  SessionLost,
  TicketForged,
  TicketReplayed,
  type TicketRole,
  TicketUnproven,
  Unauthorised,
} from '@hauki/protocol';
import { Channel, openSession, randomText, redeemTicket, resumeSession, Session, sessionKey } from '@hauki/rpc';
import { secureStream, streamTransport } from '@hauki/rpc/node';
import { until } from '../../../test/support/mesh.ts';
import { openGate } from '../src/guest/gate.ts';
import type { Inside } from '../src/guest/guest.ts';
import { bench, issue, redemptionOf, SELF } from './ticket-support.ts';

const METHODS = ['look', 'role'];

/** A worker behind a gate, and a way to make tickets for it. */
async function open({ tls = false, methods = () => METHODS as string[] | Promise<string[]> } = {}) {
  const { office, caller, redeemer } = await bench();
  const calls: string[] = [];
  const inside: Inside = {
    load: async () => METHODS,
    open(transport, role) {
      new Session({ transport, dispatch: (method, params) => inside.call(method, params, role) });
    },
    async call(method, params, role: TicketRole) {
      calls.push(method);
      if (method === 'look') return (params as unknown[])[0] ?? 'seen';
      if (method === 'role') return role;
      throw new NoSuchMethod({ method, has: METHODS });
    },
    stats: async () => ({}),
    end: async () => {},
  };
  const server = createServer();
  openGate({ server, worker: SELF.worker, redeemer, inside, methods, tls });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const sockets = new Set<Socket>();
  const dial = async (): Promise<Socket> => {
    const socket = connect(port, '127.0.0.1');
    sockets.add(socket);
    socket.on('error', () => {});
    await once(socket, 'connect');
    return socket;
  };
  return {
    caller,
    calls,
    dial,
    port,
    connections: () =>
      new Promise<number>((resolve, reject) =>
        server.getConnections((error, n) => (error ? reject(error) : resolve(n))),
      ),
    async ticket(role: TicketRole = 'owner', by?: string) {
      const issued = await issue(office, caller.thumbprint, { role });
      redeemer.expect({ jti: issued.jti, role, key: issued.key, resume_key: issued.key, ...(by ? { by } : {}) });
      return issued;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      await office.close();
    },
  };
}

const refuses = async (promise: Promise<unknown>, kind: ErrorClass<any>) => {
  const thrown = await promise.then(
    () => assert.fail(`expected ${kind.row.name}, but it resolved`),
    (error) => error,
  );
  assert.ok(isError(thrown, kind), `expected ${kind.row.name}, got ${thrown}`);
};

const session = (stream: Duplex) => new Session({ transport: streamTransport(stream), timeout_ms: 15_000 });

/** A plain client: sends lines and gives what comes back, one answer for each id. */
function lineClient(socket: Socket) {
  const waiting = new Map<number, (answer: any) => void>();
  let text = '';
  let next = 1;
  socket.on('data', (chunk: Buffer) => {
    text += chunk;
    for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n')) {
      const answer = JSON.parse(text.slice(0, at));
      text = text.slice(at + 1);
      waiting.get(answer.id)?.(answer);
    }
  });
  return {
    ask(method: string, params: unknown[] = []): Promise<any> {
      const id = next++;
      const answer = new Promise((resolve) => waiting.set(id, resolve));
      socket.write(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`);
      return answer;
    },
  };
}

/** All that a connection says until it is closed. Fails when it stays open. */
async function untilClosed(socket: Socket, timeout_ms = 15_000): Promise<string> {
  let heard = '';
  socket.on('data', (chunk) => {
    heard += chunk;
  });
  if (!socket.closed)
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('the connection stayed open')), timeout_ms);
      socket.on('close', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  return heard;
}

describe('the gate', () => {
  it('admits frames that redeem a ticket, each with its role', async () => {
    const gate = await open();
    for (const role of ['owner', 'visitor'] as const) {
      const { ticket } = await gate.ticket(role);
      const client = session(await gate.dial());
      assert.deepEqual(await redeemTicket(client, ticket, gate.caller), METHODS);
      assert.equal(await client.call('look', [{ deep: ['päätös'] }]).then((v: any) => v.deep[0]), 'päätös');
      assert.equal(await client.call('role'), role);
      await refuses(client.call('nothing'), NoSuchMethod);
      client.close();
    }
    await gate.close();
  });

  it('admits JSON lines that make the same two calls', async () => {
    const gate = await open();
    const { ticket, jti, key } = await gate.ticket('visitor');
    const client = lineClient(await gate.dial());
    const { nonce } = (await client.ask('rpc.hello')).result;
    const redemption = await redemptionOf(ticket.signed, jti, key, gate.caller, nonce);
    const { result } = await client.ask('rpc.redeem', [redemption]);
    assert.equal(result.worker, SELF.worker);
    assert.deepEqual(result.methods, METHODS);
    assert.equal((await client.ask('role')).result, 'visitor');
    assert.equal((await client.ask('look', ['x'])).result, 'x');
    assert.equal((await client.ask('nothing')).error.code, NoSuchMethod.row.code);
    await gate.close();
  });

  it('gives every connection a nonce of its own', async () => {
    const gate = await open();
    const nonces = new Set<string>();
    for (let i = 0; i < 5; i++) {
      const client = session(await gate.dial());
      nonces.add(((await client.call('rpc.hello')) as { nonce: string }).nonce);
      client.close();
    }
    assert.equal(nonces.size, 5);
    // What was proved on one connection is worth nothing on another.
    const { ticket, jti, key } = await gate.ticket();
    const redemption = await redemptionOf(ticket.signed, jti, key, gate.caller, [...nonces][0]!);
    const client = session(await gate.dial());
    await assert.rejects(client.call('rpc.redeem', [redemption]), /another key/);
    await gate.close();
  });

  it('lets nobody call who has not redeemed, in frames or in lines', async () => {
    const gate = await open();
    const framed = session(await gate.dial());
    await refuses(framed.call('look', ['x']), Unauthorised);
    const lines = lineClient(await gate.dial());
    await lines.ask('rpc.hello');
    for (const method of ['look', 'role', 'rpc.methods', 'rpc.destruct', 'rpc.heartbeat', '__proto__'])
      assert.equal((await lines.ask(method)).error.code, Unauthorised.row.code);
    const socket = await gate.dial();
    socket.write('[{"jsonrpc":"2.0","id":1,"method":"rpc.hello"},{"jsonrpc":"2.0","id":2,"method":"look"}]\n');
    const [text] = await once(socket, 'data');
    assert.ok(JSON.parse(String(text)).some((answer: any) => answer.error?.code === Unauthorised.row.code));
    assert.deepEqual(gate.calls, []);
    await gate.close();
  });

  it('lets in who came before the worker was loaded when it is, and burns no ticket of who left before', async () => {
    const { promise: loaded, resolve } = Promise.withResolvers<string[]>();
    const gate = await open({ methods: () => loaded });
    const ticket = (await gate.ticket()).ticket;
    const left = session(await gate.dial());
    const gone = redeemTicket(left, ticket, gate.caller).catch(() => 'gone');
    const socket = await gate.dial();
    const stays = session(socket);
    assert.ok(await stays.call('rpc.hello'));
    left.close();
    assert.equal(await gone, 'gone');
    // Closed on both sides, so that its redemption cannot be the one that wins.
    await until('one connection is left', async () => (await gate.connections()) === 1);
    const admitted = redeemTicket(stays, ticket, gate.caller);
    resolve(METHODS);
    assert.deepEqual(await admitted, METHODS);
    await gate.close();
  });

  it('tells what is wrong with a ticket, closes, and takes the right one on a new connection', async () => {
    const gate = await open();
    const issued = await gate.ticket();
    const { ticket, jti } = issued;
    const wrong = async (kind: ErrorClass<any>, signed: string, key: string) => {
      const socket = await gate.dial();
      const client = session(socket);
      const { nonce } = (await client.call('rpc.hello')) as { nonce: string };
      const redemption = await redemptionOf(signed, jti, key, gate.caller, nonce);
      await refuses(client.call('rpc.redeem', [redemption]), kind);
      await client.closed;
    };
    await wrong(TicketForged, `${ticket.signed.slice(0, -20)}AAAAAAAAAAAAAAAAAAAA`, issued.key);
    await wrong(TicketUnproven, ticket.signed, await sessionKey(randomText(32), jti));
    const client = session(await gate.dial());
    assert.deepEqual(await redeemTicket(client, ticket, gate.caller), METHODS);
    await refuses(redeemTicket(session(await gate.dial()), ticket, gate.caller), TicketReplayed);
    assert.equal(await client.call('look'), 'seen');
    await gate.close();
  });

  it('answers HTTP with 426 and where to go', async () => {
    const gate = await open();
    const response = await fetch(`http://127.0.0.1:${gate.port}/`, { method: 'POST', body: '{}' });
    assert.equal(response.status, 426);
    assert.match(await response.text(), /relay: \/api\/v2\/ephemeral/);
    await gate.close();
  });

  it('keeps no room for a client that it has answered with 426', async () => {
    const gate = await open();
    const socket = await gate.dial();
    socket.write('POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}');
    assert.match(await untilClosed(socket), /^HTTP\/1\.1 426 /);
    // Well before the time in which a connection must redeem.
    const last = Date.now() + LIMITS.handshake_ms / 2;
    while ((await gate.connections()) > 0 && Date.now() < last) await new Promise((resolve) => setTimeout(resolve, 10));
    const left = await gate.connections();
    await gate.close();
    assert.equal(left, 0);
  });

  it('closes what speaks nothing that it knows, and goes on', async () => {
    const gate = await open();
    const heads = [[0x01], [0xff, 0xfe, 0x00], [0x80, 0x80], [0x7f, 0x45, 0x4c, 0x46], [0x00, 0xff, 0xff, 0xff, 1]];
    for (const head of [...heads, [0x00, 0, 0, 1, 7], [0x16, 0x03, 0x01, 0x00, 0x02, 0xff, 0xff]]) {
      const socket = await gate.dial();
      socket.write(Buffer.from(head));
      socket.write(crypto.getRandomValues(new Uint8Array(200)));
      await untilClosed(socket);
    }
    for (const [text, code] of [
      ['null', -32600],
      ['[]', -32012],
      ['{"method":5}', -32012],
      ['not json', -32700],
    ] as const) {
      const socket = await gate.dial();
      const head = Buffer.alloc(5, 1);
      head.writeUInt32BE(text.length + 1);
      socket.write(Buffer.concat([head, Buffer.from(text)]));
      assert.match(await untilClosed(socket), new RegExp(`"code":${code},`), text);
    }
    const { ticket } = await gate.ticket();
    const client = session(await gate.dial());
    assert.deepEqual(await redeemTicket(client, ticket, gate.caller), METHODS);
    assert.deepEqual(gate.calls, []);
    await gate.close();
  });

  it('cuts a message before redemption that is longer than a handshake needs, and takes it afterwards', async () => {
    const gate = await open();
    const early = session(await gate.dial());
    await assert.rejects(early.call('rpc.redeem', ['x'.repeat(LIMITS.handshake_bytes)]));
    assert.match(await early.closed, /./);
    const { ticket } = await gate.ticket();
    const client = session(await gate.dial());
    await redeemTicket(client, ticket, gate.caller);
    const long = 'x'.repeat(LIMITS.handshake_bytes * 4);
    assert.equal(await client.call('look', [long]), long);
    await gate.close();
  });

  it('cuts a line before redemption that is longer than a handshake needs', async () => {
    const gate = await open();
    const socket = await gate.dial();
    let cut = false;
    socket.on('close', () => {
      cut = true;
    });
    socket.write('{"jsonrpc":"2.0","id":1,"method":"rpc.redeem","params":["');
    const piece = Buffer.alloc(16 * 1024, 'x');
    let sent = 0;
    // Far beyond the handshake's limit, far below a message's; stops when it is cut.
    while (!cut && sent < LIMITS.handshake_bytes * 32) {
      socket.write(piece);
      sent += piece.length;
      await new Promise((resolve) => setImmediate(resolve));
    }
    for (let i = 0; i < 3000 && !cut; i++) await new Promise((resolve) => setTimeout(resolve, 5));
    const was_cut = cut;
    await gate.close();
    assert.ok(was_cut, `${sent} bytes were taken from a connection that has not redeemed`);
  });

  it('takes a bounded number of strangers: the oldest gives way, and a ticket’s holder still comes in', async () => {
    const gate = await open();
    const { ticket } = await gate.ticket();
    const strangers: Socket[] = [];
    for (let i = 0; i <= LIMITS.strangers; i++) strangers.push(await gate.dial());
    await untilClosed(strangers[0]!);
    const client = session(await gate.dial());
    assert.deepEqual(await redeemTicket(client, ticket, gate.caller), METHODS);
    // Once redeemed it is no stranger: a further flood does not touch it.
    for (let i = 0; i <= LIMITS.strangers; i++) strangers.push(await gate.dial());
    assert.equal(await client.call('look', ['still here']), 'still here');
    await gate.close();
  });

  it('takes a bounded number of connections in all, and refuses the next, whose ticket stays good', async () => {
    const gate = await open();
    const sessions: Session[] = [];
    for (let i = 0; i < LIMITS.connections; i++) {
      const { ticket } = await gate.ticket();
      const channel = new Channel();
      await openSession(streamTransport(await gate.dial()), channel, ticket, gate.caller);
      sessions.push(new Session({ transport: channel }));
    }
    const further = await gate.ticket();
    await refuses(redeemTicket(session(await gate.dial()), further.ticket, gate.caller), Overloaded);
    assert.ok(sessions.every((s) => s.open));
    sessions[0]!.close();
    let admitted = false;
    for (let i = 0; i < 100 && !admitted; i++) {
      const next = session(await gate.dial());
      admitted = await redeemTicket(next, further.ticket, gate.caller).then(
        () => true,
        () => false,
      );
      if (!admitted) await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.ok(admitted, 'there was no room again');
    await gate.close();
  });

  it('has room for its owner and for sessions that go on, however many visitors there are and however many dial', async () => {
    const gate = await open();
    for (let i = 0; i < LIMITS.visitors; i++) {
      const { ticket } = await gate.ticket('visitor');
      await redeemTicket(session(await gate.dial()), ticket, gate.caller);
    }
    const one_more = await gate.ticket('visitor');
    await refuses(redeemTicket(session(await gate.dial()), one_more.ticket, gate.caller), Overloaded);
    for (let i = 0; i < LIMITS.connections - LIMITS.visitors; i++) await gate.dial();
    const { ticket } = await gate.ticket('owner');
    const owner = session(await gate.dial());
    assert.deepEqual(await redeemTicket(owner, ticket, gate.caller), METHODS);
    assert.equal(await owner.call('look', ['in']), 'in');
    await gate.close();
  });
});

describe('places at the gate', () => {
  type Gate = Awaited<ReturnType<typeof open>>;
  /** Visitors of one sharer, as many as are let in. */
  const fill = async (gate: Gate, by: string, enter: (gate: Gate, by: string) => Promise<unknown>, most = 1_000) => {
    let entered = 0;
    for (; entered < most; entered++)
      try {
        await enter(gate, by);
      } catch (error) {
        assert.ok(isError(error, Overloaded), String(error));
        break;
      }
    return entered;
  };
  const inFrames = async (gate: Gate, by?: string) => {
    const { ticket } = await gate.ticket('visitor', by);
    await redeemTicket(session(await gate.dial()), ticket, gate.caller);
  };
  const inLines = async (gate: Gate, by?: string) => {
    const { ticket, jti, key } = await gate.ticket('visitor', by);
    const client = lineClient(await gate.dial());
    const { nonce } = (await client.ask('rpc.hello')).result;
    const answer = await client.ask('rpc.redeem', [await redemptionOf(ticket.signed, jti, key, gate.caller, nonce)]);
    if (answer.error) throw new Overloaded({ what: answer.error.message, limit: 0 });
  };
  /** A session that can be cut and gone on with. */
  const visit = async (gate: Gate, by?: string) => {
    const { ticket, jti, key } = await gate.ticket('visitor', by);
    const channel = new Channel();
    let socket = await gate.dial();
    await openSession(streamTransport(socket), channel, ticket, gate.caller);
    const calls = new Session({ transport: channel });
    return {
      calls,
      cut: () => socket.destroy(),
      async resume() {
        socket = await gate.dial();
        await resumeSession(streamTransport(socket), channel, jti, key);
      },
      /** Goes on over further connections, as fast as it can. */
      socket: () => socket,
    };
  };

  for (const [speech, enter] of [
    ['frames', inFrames],
    ['lines', inLines],
  ] as const)
    it(`are half of them at most one token’s, whose visitors speak ${speech}, and others find some`, async () => {
      const gate = await open();
      assert.equal(await fill(gate, 'ada', enter), LIMITS.visitors / 2);
      assert.equal(await fill(gate, 'bob', enter), LIMITS.visitors / 4);
      for (const by of ['c', 'd', 'e', 'f', 'g', 'h']) await fill(gate, by, enter);
      // The core, at whose door everybody else stands, and an admin have no sharer.
      await enter(gate, undefined as never);
      await gate.close();
    });

  it('stay those of sessions that were cut, whoever comes meanwhile', async () => {
    const gate = await open();
    const cut = await visit(gate, 'ada');
    assert.equal(await fill(gate, 'ada', inFrames), LIMITS.visitors / 2 - 1);
    // Now a half is more than ada could have again.
    assert.equal(await fill(gate, 'bob', inFrames), LIMITS.visitors / 4);
    cut.cut();
    await until('it is cut', async () => (await gate.connections()) === (LIMITS.visitors * 3) / 4 - 1);
    await refuses(inFrames(gate, 'bob'), Overloaded);
    await cut.resume();
    assert.equal(await cut.calls.call('look', ['back']), 'back');
    await gate.close();
  });

  it('are given up by a session that was cut to a caller of the same token who is there', async () => {
    const gate = await open();
    const cut = await visit(gate, 'ada');
    await fill(gate, 'ada', inFrames);
    cut.cut();
    await until('it is cut', async () => (await gate.connections()) === LIMITS.visitors / 2 - 1);
    await inFrames(gate, 'ada');
    await refuses(cut.resume(), SessionLost);
    await refuses(inFrames(gate, 'ada'), Overloaded);
    await gate.close();
  });

  it('are free again when sessions end, and whoever redeemed in vain', async () => {
    const gate = await open();
    const visitors = [];
    for (let i = 0; i < LIMITS.visitors / 2; i++) visitors.push(await visit(gate, 'ada'));
    await refuses(inFrames(gate, 'ada'), Overloaded);
    for (const { calls } of visitors) calls.close();
    await until('they are gone', async () => (await gate.connections()) === 0);
    // Who leaves between its redemption and its first word has a session too, which gives way.
    for (let i = 0; i < LIMITS.visitors / 2; i++) {
      const { ticket } = await gate.ticket('visitor', 'ada');
      const socket = await gate.dial();
      await redeemTicket(session(socket), ticket, gate.caller);
      socket.destroy();
    }
    await until('they are gone too', async () => (await gate.connections()) === 0);
    assert.equal(await fill(gate, 'ada', inLines), LIMITS.visitors / 2);
    await gate.close();
  });

  it('are one for each session, however often it goes on over another connection', async () => {
    const gate = await open();
    const one = await visit(gate, 'ada');
    const held: Socket[] = [];
    for (let i = 0; i < 3 * LIMITS.strangers; i++) {
      held.push(one.socket());
      // What it had before stays open on its side.
      one.socket().end = () => one.socket();
      await one.resume();
    }
    assert.ok((await gate.connections()) <= LIMITS.strangers + 1);
    assert.equal(await one.calls.call('look', ['on']), 'on');
    assert.equal(await fill(gate, 'ada', inFrames), LIMITS.visitors / 2 - 1);
    await gate.close();
  });
});

describe('the gate in TLS', () => {
  const secured = async (gate: Awaited<ReturnType<typeof open>>, jti: string, key: string) =>
    secureStream(await gate.dial(), jti, key, 15_000);

  for (const tls of [true, false])
    it(`admits a connection keyed by its ticket, where TLS is ${tls ? 'required' : 'offered'}`, async () => {
      const gate = await open({ tls });
      const { ticket, jti, key } = await gate.ticket();
      const stream = await secured(gate, jti, key);
      assert.match(stream.getCipher().name, /^ECDHE-PSK/);
      const client = session(stream);
      assert.deepEqual(await redeemTicket(client, ticket, gate.caller), METHODS);
      const long = 'ä'.repeat(200_000);
      assert.equal(await client.call('look', [long]), long);
      client.close();
      await gate.close();
    });

  it('speaks JSON lines inside TLS too', async () => {
    const gate = await open({ tls: true });
    const { ticket, jti, key } = await gate.ticket();
    const client = lineClient((await secured(gate, jti, key)) as unknown as Socket);
    const { nonce } = (await client.ask('rpc.hello')).result;
    await client.ask('rpc.redeem', [await redemptionOf(ticket.signed, jti, key, gate.caller, nonce)]);
    assert.equal((await client.ask('look', ['x'])).result, 'x');
    await gate.close();
  });

  it('refuses plain frames, lines and HTTP where TLS is required', async () => {
    const gate = await open({ tls: true });
    await assert.rejects(session(await gate.dial()).call('rpc.hello'));
    for (const text of ['{"jsonrpc":"2.0","id":1,"method":"rpc.hello"}\n', 'GET / HTTP/1.1\r\nhost: x\r\n\r\n']) {
      const socket = await gate.dial();
      socket.write(text);
      assert.equal(await untilClosed(socket), '');
    }
    assert.deepEqual(gate.calls, []);
    await gate.close();
  });

  it('refuses another key, and a ticket that is unknown or used up', async () => {
    const gate = await open({ tls: true });
    const { ticket, jti, key } = await gate.ticket();
    await refuses(secured(gate, jti, await sessionKey(randomText(32), jti)), ConnectionLost);
    await refuses(secured(gate, 'unknown', key), ConnectionLost);
    const client = session(await secured(gate, jti, key));
    await redeemTicket(client, ticket, gate.caller);
    assert.equal(await client.call('look'), 'seen');
    // Used up: and who calls in literal JSON has no session to come back to.
    await refuses(secured(gate, jti, key), ConnectionLost);
    await gate.close();
  });
});
