/**
 * A guest's `connect`, the secrets that it sends and never has, and what it hands in: over a session to the host's effects
 * and to real servers on loopback. Names are played by a lookup of the test's own; nothing goes beyond loopback.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { createServer as createTcp, connect as dialTcp, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  BadInput,
  ConnectionLost,
  DeadlineExceeded,
  GrantMissing,
  isError,
  LIMITS,
  normaliseGrants,
  Overloaded,
  RemoteError,
} from '@hauki/protocol';
import type { Connected } from '../src/effects/connect.ts';
import { createEffects } from '../src/effects/effects.ts';
import { createNetwork, type Network } from '../src/effects/network.ts';
import { guest, http, listening, refuses, tcp, textOf, until } from './outward-support.ts';

describe('a secret', () => {
  const value = 's3cr3t-v4lue';
  const setUp = async () => {
    const seen: { to: string; headers: IncomingMessage['headers']; body: string }[] = [];
    const other = await http(async (request, response) => {
      seen.push({ to: 'other', headers: request.headers, body: await textOf(request) });
      response.end('other');
    });
    const port = await http(async (request, response) => {
      const { headers } = request;
      seen.push({ to: 'granted', headers, body: await textOf(request) });
      const to = new URL(request.url!, 'http://x').searchParams.get('to');
      const status = request.method === 'PUT' ? 303 : 307;
      if (to) return response.writeHead(status, { location: to.replace('SECRET', value) }).end();
      return response.end('ok');
    });
    const here = `127.0.0.1:${port}`;
    const elsewhere = `127.0.0.1:${other}`;
    const made = guest({ fetch: [here, elsewhere] }, { secrets: { KEY: { value, to: [here] } } });
    return { ...made, seen, here, elsewhere };
  };
  const headers = { authorization: 'Bearer {{secret:KEY}}', 'x-key': '{{secret:KEY}}', 'x-plain': 'stays' };

  it('goes in headers and bodies to where it may, and never comes to the guest', async () => {
    const { fetch, seen, here } = await setUp();
    await fetch(`http://${here}/`, { method: 'POST', headers, body: '{"key":"{{secret:KEY}}"}' });
    assert.equal(seen[0]!.headers.authorization, `Bearer ${value}`);
    assert.deepEqual([seen[0]!.headers['x-key'], seen[0]!.body], [value, `{"key":"${value}"}`]);
    async function* streamed() {
      yield 'a {{sec';
      yield 'ret:KEY}} b';
    }
    await fetch(`http://${here}/`, { method: 'POST', body: streamed() });
    assert.equal(seen[1]!.body, `a ${value} b`);
  });

  it('goes nowhere else: not when asked to, and not along with a redirect', async () => {
    const { fetch, effects, seen, here, elsewhere } = await setUp();
    await refuses(fetch(`http://${elsewhere}/`, { headers }), GrantMissing, new RegExp(`secrets KEY to ${elsewhere}`));
    await refuses(fetch(`http://${elsewhere}/`, { method: 'POST', body: '{{secret:KEY}}' }), GrantMissing);
    await refuses(fetch(`http://${here}/`, { headers: { a: '{{secret:ELSE}}' } }), GrantMissing, /secrets ELSE/);
    assert.equal(seen.length, 0, 'nobody was asked');
    const url = `http://${here}/?to=${encodeURIComponent(`http://${elsewhere}/`)}`;
    assert.equal(await (await fetch(url, { headers })).text(), 'other');
    const { headers: got } = seen.at(-1)!;
    assert.deepEqual([got['x-plain'], got['x-key'], got.authorization], ['stays', undefined, undefined]);
    await refuses(fetch(url, { method: 'POST', body: '{{secret:KEY}}' }), GrantMissing, /secrets KEY to/);
    assert.ok(!JSON.stringify(seen.filter(({ to }) => to === 'other')).includes(value));
    effects.regrant(normaliseGrants({ fetch: [here, elsewhere] }));
    await refuses(fetch(`http://${here}/`, { headers }), GrantMissing, /secrets KEY/);
  });

  it('is in no error about a redirect that has it', async () => {
    const { fetch, here } = await setUp();
    for (const to of [
      'http://SECRET.example/',
      'http://user:SECRET@a.example/',
      'ftp://SECRET/',
      'http://[SECRET',
      'SECRET:x',
    ]) {
      const url = `http://${here}/?to=${encodeURIComponent(to)}`;
      const error: Error = await fetch(url, { headers }).catch((thrown) => thrown);
      assert.ok(error instanceof Error && !(error instanceof RemoteError && error.name === 'TypeError'));
      const said = JSON.stringify([error.message, error, error.stack, error.cause]);
      assert.ok(!said.toLowerCase().includes(value), said);
    }
    // Nor where it was sent in a stream, of which nobody knows beforehand what it holds.
    const body = new Blob(['{{secret:KEY}}']).stream();
    const put = fetch(`http://${here}/?to=${encodeURIComponent('http://SECRET.example/')}`, { method: 'PUT', body });
    await refuses(put, GrantMissing, /fetch where it is redirected to/);
    // A worker that sends none hears where it is redirected to.
    const plain = `http://${here}/?to=${encodeURIComponent('http://plain.example/')}`;
    await refuses(fetch(plain), GrantMissing, /fetch plain\.example:80/);
    await refuses(fetch(plain, { headers }), GrantMissing, /fetch where it is redirected to/);
  });

  it('cannot be guessed: what a worker wrote is told to it the same, whether it is the secret or not', async () => {
    const { fetch, effects, here } = await setUp();
    const to = (url: string) => `http://${here}/?to=${encodeURIComponent(url)}`;
    const said = async (guess: string) => {
      const url = async (response: Promise<Response>) => (await response).url;
      const all = await Promise.allSettled([
        ...[`x:${guess}`, `${guess} is no URL`, `http://${guess}.example/`, `http://a:${guess}@${here}/`].map(fetch),
        fetch(`http://${here}/`, { method: guess }),
        fetch(`http://${here}/`, { headers: { [`${guess} `]: 'x' } }),
        url(fetch(`http://${here}/${guess}`)),
        url(fetch(`http://${here}/${guess}`, { headers })),
        url(fetch(to(`/${guess}`), { headers })),
        ...[`x:${guess}`, `http://${guess}.example/`, `http://[${guess}`].map((url) => fetch(to(url))),
        ...[`x:${guess}`, `http://${guess}.example/`, `http://[${guess}`].map((url) => fetch(to(url), { headers })),
        effects.perform('connect', [`${guess}:1`, []]),
        effects.perform('meshfs.resolve', [`gem-pointer://wiki/${guess}`]),
        effects.perform('volume.read', [guess]),
        effects.perform(guess, []),
      ]);
      return all.map((one) =>
        JSON.stringify([one, String((one as PromiseRejectedResult).reason)]).replaceAll(guess, '#'),
      );
    };
    assert.deepEqual(await said(value), await said('s3cr3t-v4lu3'));
  });

  it('is not said by errors of the connection either', async () => {
    const closed = createServer();
    const port = await listening(closed);
    await new Promise((resolve) => closed.close(resolve));
    const here = `127.0.0.1:${port}`;
    const lines = { value: `${value}\nmore`, to: [here] };
    const { fetch } = guest({ fetch: [here] }, { secrets: { KEY: { value, to: [here] }, LINES: lines } });
    const unfit = /has a character that none may have/;
    for (const [bad, said] of [
      [{}, /fetch failed/],
      [{ 'x-bad': '{{secret:KEY}}\r\nx: y' }, unfit],
      [{ 'x-bad': '{{secret:LINES}}' }, unfit],
    ] as const) {
      const error: Error = await fetch(`http://${here}/`, { headers: { ...headers, ...bad } }).catch(
        (thrown) => thrown,
      );
      assert.match(error.message, said);
      assert.ok(!JSON.stringify([error.message, error, error.stack]).includes(value), error.message);
      assert.ok(!String(error.stack).includes('effects/'), 'nor where the host’s code is');
    }
  });
});

describe('connect', () => {
  /** The effect itself, over a network of the test's own. */
  const connecting = (target: string, network: Network) => {
    const effects = createEffects({
      owner: 'test',
      grants: normaliseGrants({ connect: [target] }),
      meshfs: { resolve: () => assert.fail(), write: () => assert.fail() },
      network,
      log: () => {},
    });
    const perform = (outgoing: unknown) => effects.perform('connect', [target, outgoing]) as Promise<Connected>;
    return { effects, perform };
  };
  const echo = () => tcp((socket) => socket.pipe(socket));
  const read = async (stream: AsyncIterable<Uint8Array>) => {
    let text = '';
    for await (const chunk of stream) text += Buffer.from(chunk).toString();
    return text;
  };

  it('gives a byte stream both ways to what was granted, and to nothing else', async () => {
    const port = await echo();
    const { connect, session, host } = guest({ connect: [`127.0.0.1:${port}`] });
    const connection = await connect(`127.0.0.1:${port}`);
    assert.equal(connection.address, '127.0.0.1');
    await connection.write('hello ');
    await connection.write(Buffer.from('world'));
    connection.end();
    assert.equal(await read(connection.readable), 'hello world');
    await refuses(connect(`localhost:${port}`), GrantMissing, new RegExp(`connect localhost:${port}`));
    await refuses(connect('127.0.0.1:1'), GrantMissing);
    for (const none of ['127.0.0.1', 'http://127.0.0.1:1', '', 5, null])
      await refuses(connect(none as never), BadInput);
    await until('no stream is left', () => session.stats().streams === 0 && host.stats().streams === 0);
  });

  it('goes by name to public and listed addresses only, and where its check has looked', async () => {
    const port = await echo();
    let asked = 0;
    const lookup = async () => [['127.0.0.1', '127.0.0.2'][asked++]!];
    const { connect } = guest({ connect: [`rebinds.example:${port}`, `127.0.0.1:${port}`] }, { lookup });
    const connection = await connect(`rebinds.example:${port}`);
    connection.close();
    assert.equal(asked, 1);
    await refuses(
      connect(`rebinds.example:${port}`),
      GrantMissing,
      /is at 127\.0\.0\.2.*grant connect 127\.0\.0\.2:\d+ too/,
    );
  });

  it('carries much in bounded memory, each side waiting for the other', async () => {
    let received = 0;
    let stalled: Socket | undefined;
    const port = await tcp((socket) => {
      stalled = socket.pause();
      socket.on('data', (chunk) => {
        received += chunk.length;
      });
      socket.on('end', () => socket.end());
      socket.pause();
    });
    const { connect } = guest({ connect: [`127.0.0.1:${port}`] });
    const connection = await connect(`127.0.0.1:${port}`);
    const size = 24 * 1024 * 1024;
    let sent = 0;
    const writing = (async () => {
      for (; sent < size; sent += 1024 * 1024) await connection.write(new Uint8Array(1024 * 1024));
      connection.end();
    })();
    await sleep(200);
    assert.ok(sent < size / 2, `${sent} bytes were taken though nobody reads`);
    stalled!.resume();
    await writing;
    assert.equal(await read(connection.readable), '');
    assert.equal(received, size);
  });

  it('ends on both sides when either ends it', async () => {
    const ended: string[] = [];
    const port = await tcp((socket) => {
      socket.on('close', () => ended.push('server'));
      socket.on('data', (chunk) => chunk.toString() === 'bye' && socket.destroy());
    });
    const { connect } = guest({ connect: [`127.0.0.1:${port}`] });
    const mine = await connect(`127.0.0.1:${port}`);
    mine.close();
    await until('the server hears', () => ended.length === 1);
    await refuses(mine.write('x'), ConnectionLost);
    const theirs = await connect(`127.0.0.1:${port}`);
    await theirs.write('bye');
    await read(theirs.readable).catch(() => {});
    await until('the server has gone', () => ended.length === 2);
    await assert.rejects(async () => {
      for (let i = 0; i < 100; i++) {
        await theirs.write('x');
        await sleep(5);
      }
    });
    const left = await connect(`127.0.0.1:${port}`);
    await left.readable[Symbol.asyncIterator]().return?.();
    await until('the server hears that nobody reads', () => ended.length === 3);
  });

  it('ends with its grant, and with the vault', async () => {
    const port = await echo();
    const target = `127.0.0.1:${port}`;
    const { connect, effects } = guest({ connect: [target], fetch: [target] });
    const first = await connect(target);
    effects.regrant(normaliseGrants({ connect: [target] }));
    await first.write('still');
    const reading = read(first.readable);
    effects.regrant(normaliseGrants({ fetch: [target] }));
    await refuses(reading, GrantMissing, /connect .* was revoked while it lived/);
    await refuses(connect(target), GrantMissing);
    effects.regrant(normaliseGrants({ connect: [target] }));
    const second = await connect(target);
    effects.close();
    await assert.rejects(read(second.readable), /the vault has ended/);
  });

  it('ends where an address is granted no longer, though the name that leads there is', async () => {
    const port = await echo();
    const [name, address] = [`named.example:${port}`, `127.0.0.1:${port}`];
    const { connect, effects } = guest({ connect: [name, address] }, { lookup: async () => ['127.0.0.1'] });
    const reading = read((await connect(name)).readable);
    effects.regrant(normaliseGrants({ connect: [name] }));
    await refuses(reading, GrantMissing, /was revoked while it lived/);
  });

  it('ends where its grant or its vault went while it was being opened, and gives back what it had', async () => {
    const port = await echo();
    const target = `127.0.0.1:${port}`;
    const network = createNetwork({ limit_bytes: 4 * LIMITS.stream_bytes });
    for (const lose of ['regrant', 'close'] as const) {
      const opened: Socket[] = [];
      // Whoever has the network cannot be stopped at once.
      const dial = async () => {
        const socket = dialTcp(port, '127.0.0.1');
        opened.push(socket);
        await once(socket, 'connect');
        effects[lose](normaliseGrants());
        return socket;
      };
      const { effects, perform } = connecting(target, { ...network, dial });
      let left = false;
      const outgoing = {
        next: () => new Promise<never>(() => {}),
        async return() {
          left = true;
          return { done: true as const, value: undefined };
        },
        [Symbol.asyncIterator]() {
          return this;
        },
      };
      const connection = perform(outgoing);
      if (lose === 'regrant') await refuses(connection, GrantMissing, /connect/);
      else await assert.rejects(read((await connection).incoming), /the vault has ended/);
      await until('the socket is closed and what was to be sent is left', () => opened[0]!.closed && left);
      network.holdFor('test')(2 * LIMITS.stream_bytes)();
    }
  });

  it('ends when nothing has moved for long', async () => {
    const port = await echo();
    const socket = dialTcp(port, '127.0.0.1');
    await once(socket, 'connect');
    const { perform } = connecting(`127.0.0.1:${port}`, { ...createNetwork(), dial: async () => socket });
    const { incoming } = await perform((async function* () {})());
    assert.equal(socket.timeout, LIMITS.connection_idle_ms);
    socket.emit('timeout');
    await refuses(read(incoming), DeadlineExceeded);
  });

  it('is bounded in number, and says who did not answer', async () => {
    const port = await echo();
    const closed = createTcp();
    const nobody = await listening(closed);
    await new Promise((resolve) => closed.close(resolve));
    const { connect, session } = guest({ connect: [`127.0.0.1:${port}`, `127.0.0.1:${nobody}`] });
    await refuses(connect(`127.0.0.1:${nobody}`), RemoteError, /connect failed: 127\.0\.0\.1:\d+: ECONNREFUSED/);
    const open = [];
    for (let i = 0; i < LIMITS.connections_out; i++) open.push(await connect(`127.0.0.1:${port}`));
    await refuses(connect(`127.0.0.1:${port}`), Overloaded, /connections of this worker/);
    open[0]!.close();
    await until('its place is free', () => session.stats().streams === 2 * (LIMITS.connections_out - 1));
    (await connect(`127.0.0.1:${port}`)).close();
    for (const one of open) one.close();
    await refuses(
      connect(`127.0.0.1:${port}`, { signal: AbortSignal.abort(new ConnectionLost({ why: 'no' })) }),
      ConnectionLost,
    );
  });

  it('is held up by no more than a node has room for', async () => {
    const port = await echo();
    const network = createNetwork({ limit_bytes: 4 * LIMITS.stream_bytes });
    const { connect } = guest({ connect: [`127.0.0.1:${port}`] }, { network });
    for (let i = 0; i < 2; i++) {
      const open = await connect(`127.0.0.1:${port}`);
      await refuses(connect(`127.0.0.1:${port}`), Overloaded, /bytes that this node holds/);
      open.close();
      await until('there is room again', () => {
        try {
          network.holdFor('test')(2 * LIMITS.stream_bytes)();
          return true;
        } catch {
          return false;
        }
      });
    }
  });

  it('can be made a Duplex, as code for node:net expects', async () => {
    const port = await echo();
    const { connect } = guest({ connect: [`127.0.0.1:${port}`] });
    const connection = await connect(`127.0.0.1:${port}`);
    const duplex = Duplex.from({
      readable: connection.readable,
      writable: async (source: AsyncIterable<Uint8Array>) => {
        for await (const chunk of source) await connection.write(chunk);
        connection.end();
      },
    } as never);
    duplex.end('a line\n');
    assert.equal(await read(duplex), 'a line\n');
  });
});

describe('what a guest hands in', () => {
  it('is let go of where its effect is refused', async () => {
    const { session, host, fetch, connect } = guest({ fetch: ['127.0.0.1:1'] });
    async function* endless() {
      for (;;) yield new Uint8Array(1_000);
    }
    for (let i = 0; i < 10; i++) {
      await refuses(fetch('http://127.0.0.1:2/', { method: 'POST', body: endless() }), GrantMissing);
      await assert.rejects(fetch('http://127.0.0.1:1/', { method: 'POST', body: endless() }), /ECONNREFUSED/);
      await refuses(fetch('nonsense', { method: 'POST', body: endless() }), BadInput);
      await refuses(connect('127.0.0.1:2'), GrantMissing);
      await assert.rejects(session.call('effect', ['nothing', [{ body: endless() }, endless()]]), /Method not found/);
    }
    await until('no stream is left', () => session.stats().streams === 0 && host.stats().streams === 0);
  });

  it('is let go of at once where its effect is refused, not when it is collected', async () => {
    const { effects } = guest({ fetch: ['127.0.0.1:1'] });
    let left = 0;
    const stream = new ReadableStream({ cancel: () => void left++ });
    const items = {
      next: () => new Promise<never>(() => {}),
      async return() {
        left++;
        return { done: true as const, value: undefined };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
    const tries: [string, ...unknown[]][] = [
      ['fetch', 'http://127.0.0.1:2/', { method: 'POST', body: items }],
      ['fetch', 'nonsense', { method: 'POST', body: items }],
      ['connect', '127.0.0.1:2', items],
      ['nothing', items],
      ['nothing', stream],
    ];
    for (const [name, ...args] of tries) {
      left = 0;
      await assert.rejects(effects.perform(name, args));
      assert.equal(left, 1, name);
    }
  });

  it('may be anything, and is refused in words', async () => {
    const { session } = guest({ fetch: ['127.0.0.1:1'], connect: ['127.0.0.1:1'] });
    const odd = [
      undefined,
      null,
      5,
      'x',
      [],
      {},
      new Map(),
      () => 1,
      { body: 5 },
      [[]],
      new Uint8Array(3),
      Symbol.iterator.toString(),
    ];
    for (const name of ['fetch', 'connect', 'meshfs.resolve', 'meshfs.write', 'constructor', '__proto__', 5, null, {}])
      for (const args of [...odd, ...odd.map((one) => [one]), ...odd.map((one) => ['http://127.0.0.1:1/', one])])
        if (name !== 'fetch' || !Array.isArray(args) || args[0] !== 'http://127.0.0.1:1/')
          await assert.rejects(
            session.call('effect', [name, args]),
            (error: Error) => !/TypeError|Cannot/.test(error.message),
          );
  });

  it('is bounded for each worker before it waits', async () => {
    const port = await http(() => {});
    const { fetch, effects } = guest({ fetch: [`127.0.0.1:${port}`] });
    const body = new Uint8Array(6 * 1024 * 1024);
    const all = Array.from({ length: 8 }, () => fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body }));
    const outcomes = all.map((one) =>
      one.then(
        () => 'done',
        (error) => (isError(error, Overloaded) ? 'refused' : 'ended'),
      ),
    );
    await Promise.race(outcomes);
    effects.close();
    const counted = await Promise.all(outcomes);
    assert.ok(counted.filter((o) => o === 'refused').length >= 3, counted.join());
  });
});
