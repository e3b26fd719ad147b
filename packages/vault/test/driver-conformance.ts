/**
 * What every driver must do, whatever it is made of. A test file calls `driverConformance` with its driver; nothing here
 * knows which one it is. A skip needs a reason, and in CI there is none.
 */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import {
  type AgentForShell,
  isError,
  NO_GRANTS,
  runtimeOf,
  type Setup,
  type ShellForAgent,
  SourceRejected,
} from '@hauki/protocol';
import { makeCallerKey, redeemTicket, remote, Session, serve } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import type { Driver, Vault } from '../src/driver.ts';
import { HASHES, SOURCES } from './driver-sources.ts';
import { issue, type Office, openOffice } from './ticket-support.ts';

export interface Conformance {
  skip: string | false;
  make(): Promise<Driver>;
  memory_mib: number;
  /** What the workers are written in; JavaScript where it is left out. */
  language?: 'javascript' | 'python';
  /** Asserts that nothing on this machine carries the vault's name. */
  nothingLeft(vault_id: string): void;
}

const answers = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });

export function driverConformance(name: string, options: Conformance): void {
  const { skip, make, memory_mib, nothingLeft, language = 'javascript' } = options;
  const sources = SOURCES[language];
  const runtime = runtimeOf(language);
  describe(`${name} as a driver`, { skip }, () => {
    let driver: Driver;
    let office: Office;
    let serial = 0;
    const effects: unknown[][] = [];
    before(async () => {
      office = await openOffice();
      driver = await make();
      assert.deepEqual((await driver.probe()).available, true);
    });
    after(async () => {
      await driver?.close();
      await office?.close();
    });

    const start = (owner = 'somebody') =>
      driver.start({ id: `${name}-${process.pid}-${serial++}`, owner, listen_host: '127.0.0.1', memory_mib, runtime });

    const setup = async (vault: Vault, source: string, more: Partial<Setup> = {}) => {
      const agent: Pick<AgentForShell, 'effect'> = {
        async effect(effect, args) {
          effects.push([vault.id, effect, ...args]);
          if (effect === 'fetch') return { status: 200, status_text: 'OK', url: args[0], headers: [], text: 'fetched' };
          if (effect === 'meshfs.resolve') return { pointer: args[0], content: 'a document', media_type: 'text/plain' };
          return undefined;
        },
      };
      const shell = remote<ShellForAgent>(
        new Session({ transport: vault.control, dispatch: serve(agent, ['effect']), timeout_ms: 20_000 }),
      );
      const caller = await makeCallerKey();
      const { ticket, jti, key } = await issue(office, caller.thumbprint, { worker: vault.id, node: 'n', epoch: 1 });
      const methods = await shell.load({
        worker: vault.id,
        node: 'n',
        epoch: 1,
        source,
        language,
        load_timeout_ms: 20_000,
        tls: false,
        keys: office.keys,
        owner: { jti, role: 'owner', key, resume_key: key },
        ...more,
      });
      const open = async () => {
        const socket = connect(vault.port, '127.0.0.1');
        const session = new Session({ transport: streamTransport(socket), timeout_ms: 20_000 });
        await redeemTicket(session, ticket, caller);
        return session;
      };
      return { shell, methods, open };
    };

    it('starts a vault that loads a worker, and lets the ticket’s holder call it', async () => {
      const vault = await start();
      const { methods, open } = await setup(vault, sources.worker);
      assert.deepEqual(methods.toSorted(), ['add', 'ask', 'boom', 'count', 'powers', 'read', 'say', 'wait']);
      const session = await open();
      assert.equal(await session.call('add', [2, 3]), 5);
      assert.equal(await session.call('wait', [5]), 'waited');
      await assert.rejects(session.call('boom'), sources.error);
      await assert.rejects(open(), /was redeemed before/);
      await vault.kill('enough');
    });

    it('gives the worker its effects, decided outside, and no other power', async () => {
      const vault = await start();
      const session = await (await setup(vault, sources.worker)).open();
      assert.equal(await session.call('ask', ['http://example.test/']), 'fetched');
      assert.equal(await session.call('read', ['gem-pointer://wiki/a/b']), 'a document');
      await session.call('say', ['hello']);
      const mine = () => effects.filter(([id]) => id === vault.id);
      for (let i = 0; i < 800 && mine().filter(([, effect]) => effect === 'log').length < 2; i++)
        await new Promise((resolve) => setTimeout(resolve, 20));
      assert.deepEqual(
        mine().map(([, effect]) => effect),
        ['fetch', 'meshfs.resolve', 'log', 'log'],
      );
      await vault.kill('enough');
    });

    it('takes each of its languages, and says where a source does not parse', async () => {
      const vault = await start();
      const { open } = await setup(vault, sources.twice.source, { language: sources.twice.language });
      assert.equal(await (await open()).call('twice', [21]), 42);
      await vault.kill('enough');
      const broken = await start();
      await assert.rejects(setup(broken, sources.broken), (error: Error) => {
        assert.ok(isError(error, SourceRejected));
        return sources.broken_at.test(error.message);
      });
      await broken.kill('enough');
    });

    // Only JavaScript has such.
    const javascript = language === 'javascript' ? it : () => {};
    javascript('refuses a module that would be taken for a promise at once, and says why', async () => {
      for (const source of [
        'export const add = (a, b) => a + b; export function then() {}',
        'const f = () => {}; export { f as then };',
        'export const th\\u0065n = () => {};',
      ]) {
        const vault = await start();
        await assert.rejects(setup(vault, source), (error: Error) => {
          assert.ok(isError(error, SourceRejected), String(error));
          return /exports a function "then"/.test(error.message);
        });
        await vault.kill('enough');
      }
      // What is no function is nobody's promise, and `then` within a module is its own affair.
      const vault = await start();
      const { open } = await setup(
        vault,
        'export const then = 1; export const two = () => Promise.resolve(1).then((n) => n + 1);',
      );
      assert.equal(await (await open()).call('two', []), 2);
      await vault.kill('enough');
    });

    it('keeps vaults apart: one worker’s state and globals are not another’s', async () => {
      const [one, other] = [await start(), await start()];
      const sessions = await Promise.all([one, other].map(async (vault) => (await setup(vault, sources.leak)).open()));
      for (const session of sessions) assert.equal(await session.call('seen'), 1);
      assert.notEqual(one.port, other.port);
      await Promise.all([one.kill('enough'), other.kill('enough')]);
    });

    if (language === 'javascript')
      it('logs what is thrown where nobody waits, and goes on', async () => {
        const vault = await start();
        const source = `export const later = () => new Promise((done) => {
          setTimeout(() => { throw new Error('astray'); }, 1);
          queueMicrotask(() => { throw new Error('beside'); });
          setTimeout(done, 20, 'gone on');
        });`;
        const session = await (await setup(vault, source)).open();
        assert.equal(await session.call('later'), 'gone on');
        // Each with the line of the worker's that threw it.
        const said = (text: string) =>
          effects.some(
            ([id, , , line]) => id === vault.id && line?.toString().match(`uncaught.*${text}\n.*worker.mjs:`),
          );
        const all = () => said('astray') && said('beside');
        for (let i = 0; i < 800 && !all(); i++) await new Promise((resolve) => setTimeout(resolve, 20));
        assert.ok(all(), JSON.stringify(effects.slice(-5)));
        assert.equal(await session.call('later'), 'gone on');
        await vault.kill('enough');
      });

    if (language === 'javascript')
      it('logs rejections that nobody heard, and none that was heard in time', async () => {
        const vault = await start();
        const source = `const fail = async (text) => { throw new Error(text); };
          export const leave = () => { fail('unheard'); };
          export const hear = async () => { const one = fail('heard'); await Promise.resolve(); await one.catch(() => {}); };
          export const odd = () => { Promise.reject({ get message() { throw 1; }, toJSON() { throw 2; } }); };`;
        const session = await (await setup(vault, source)).open();
        const said = (pattern: RegExp) =>
          effects.filter(([id, , level, text]) => id === vault.id && level === 'error' && pattern.test(String(text)));
        for (const method of ['hear', 'odd', 'leave']) await session.call(method);
        for (let i = 0; i < 800 && said(/unheard/).length === 0; i++)
          await new Promise((resolve) => setTimeout(resolve, 20));
        assert.deepEqual(
          said(/./).map(([, , , text]) => String(text).split('\n', 1)[0]),
          [
            'unhandled rejection: { message: [a getter], toJSON: [function toJSON] }',
            'unhandled rejection: Error: unheard',
          ],
        );
        await vault.kill('enough');
      });

    if (language === 'javascript')
      it('hashes and signs by crypto.subtle, and refuses by the standard’s errors', async () => {
        const vault = await start();
        const { open } = await setup(vault, sources.hashes, { grants: { ...NO_GRANTS, random: true } });
        const session = await open();
        // FIPS 180-4, and the second test cases of RFC 2202 and RFC 4231.
        for (const [hash, digest, alg, mac] of HASHES) {
          assert.equal(await session.call('digest', [hash, 'abc']), digest);
          const jwk = { kty: 'oct', k: 'SmVmZQ', alg, ext: true, key_ops: ['sign', 'verify'] };
          const told = await session.call('hmac', [hash, 'Jefe', 'what do ya want for nothing?']);
          assert.deepEqual(told, [mac, jwk, true, false]);
        }
        for (const [what, error] of Object.entries({
          algorithm: 'NotSupportedError',
          data: 'TypeError',
          empty: 'DataError',
          length: 'DataError',
          jwk: 'DataError',
          usages: 'SyntaxError',
          kept: 'InvalidAccessError',
          fake: 'TypeError',
        }))
          assert.equal(await session.call('attempt', [what]), error, what);
        const algorithm = { name: 'HMAC', hash: { name: 'SHA-256' }, length: 512 };
        assert.deepEqual(await session.call('attempt', ['generated']), [
          true,
          'secret',
          algorithm,
          ['sign', 'verify'],
          64,
        ]);
        await vault.kill('enough');
      });

    it('runs the end hook when asked to', async () => {
      const vault = await start();
      const { shell } = await setup(vault, sources.worker);
      await shell.end('time is up');
      assert.ok(effects.some(([id, , , text]) => id === vault.id && text === 'ended: time is up'));
      await vault.kill('enough');
    });

    it('kills at once and leaves nothing, also a vault that never loaded anything or never returns', async () => {
      const idle = await start();
      await idle.kill('enough');
      await idle.kill('twice is harmless');
      const spinning = await start();
      const session = await (await setup(spinning, sources.spin)).open();
      session.call('spin').catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 100));
      await spinning.kill('enough');
      for (const vault of [idle, spinning]) {
        assert.equal((await vault.exited).cause, 'killed');
        assert.equal(await answers(vault.port), false);
        nothingLeft(vault.id);
      }
    });

    it('ends a vault that takes too much memory, and says so; its neighbours go on', async () => {
      const [vault, neighbour] = [await start(), await start('somebody else')];
      const session = await (await setup(vault, sources.bomb)).open();
      const well = await (await setup(neighbour, sources.worker)).open();
      const thrown = session.call('grow').catch((error: Error) => error.message);
      const exit = vault.exited.then(({ reason }) => reason);
      // QuickJS throws inside and lives, Node dies: both must say memory.
      assert.match(
        String(await Promise.race([exit, thrown.then((t) => (/memory/i.test(String(t)) ? t : exit))])),
        /memory|heap/i,
      );
      assert.equal(await well.call('add', [1, 1]), 2);
      await Promise.all([vault.kill('enough'), neighbour.kill('enough')]);
    });

    it('starts and ends twenty vaults at once', async () => {
      const vaults = await Promise.all(Array.from({ length: 20 }, () => start()));
      assert.equal(new Set(vaults.map((v) => v.port)).size, 20);
      await Promise.all(vaults.map((vault) => vault.kill('enough')));
      for (const vault of vaults) nothingLeft(vault.id);
    });

    it('ends every vault when it is closed, and starts none afterwards', async () => {
      const own = await make();
      const vault = await own.start({
        id: `${name}-${process.pid}-closing`,
        owner: 'o',
        listen_host: '127.0.0.1',
        memory_mib,
      });
      await own.close();
      await vault.exited;
      assert.equal(await answers(vault.port), false);
      await assert.rejects(own.start({ id: 'late', owner: 'o', listen_host: '127.0.0.1', memory_mib }));
      nothingLeft(vault.id);
    });
  });
}
