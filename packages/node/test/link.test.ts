/** The node's end of the link to the core: it registers, however much it has to tell. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { describe, it } from 'node:test';
import { LIMITS, type NodeForCore, Overloaded, type ToldFate, type WorkerInfo } from '@hauki/protocol';
import { encode, remote, Session, serve } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import type { Agent } from '../src/agent.ts';
import { Link } from '../src/link.ts';
import { pageOf } from '../src/pages.ts';
import { until } from './until.ts';

const names = (list: { worker: string }[]) => list.map(({ worker }) => worker);
/** Ten of these are more than one message holds. */
const many = (prefix: string) =>
  Array.from({ length: 10 }, (_, i) => ({ worker: `${prefix}${i}`, says: 'ä'.repeat(LIMITS.message_bytes / 16) }));

/** A core that takes links; `sessions` has them, the latest last. */
async function listen(core: object) {
  const sessions: Session[] = [];
  const server = createServer().on('upgrade', (_request, socket) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: hauki\r\n\r\n');
    const transport = streamTransport(socket as Socket);
    sessions.push(new Session({ transport, dispatch: serve(core, Object.keys(core) as never[]), literal: encode }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, sessions, core_url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}
describe('the link to the core', () => {
  it('registers with more workers and fates than one message holds, each told once, and lists them all', async () => {
    const [living, ended] = [many('w-'), many('e-')];
    const agent = {
      info: () => ({ node: 'n' }),
      load: () => ({ workers: living.length }),
      workers: () => living as unknown as WorkerInfo[],
      untold: { take: () => ended.splice(0) as unknown as ToldFate[], putBack: () => assert.fail('nothing failed') },
      offered: () => 0,
      coreLost: () => {},
    } as unknown as Agent;
    const told = { workers: [] as string[], fates: [] as string[] };
    const tell = (workers: WorkerInfo[], fates: ToldFate[]) => {
      told.workers.push(...names(workers));
      told.fates.push(...names(fates));
    };
    const core = {
      announce: (node: string, workers: WorkerInfo[], fates: ToldFate[]) => {
        assert.equal(node, 'n');
        tell(workers, fates);
      },
      register: (_info: object, _load: object, workers: WorkerInfo[], fates: ToldFate[]) => {
        tell(workers, fates);
        return { keys: {}, core: 'c' };
      },
      report: () => {},
    };
    const { server, sessions, core_url } = await listen(core);
    const link = new Link({ core_url, token: 't', log: () => {} });
    try {
      await link.run(agent).first;
      assert.deepEqual(told, { workers: names(living), fates: names(many('e-')) });
      const node = remote<NodeForCore>(sessions[0]!);
      const listed: string[] = [];
      for (let page = await node.workers(); page.length > 0; page = await node.workers(false, listed.at(-1)!))
        listed.push(...names(page));
      assert.deepEqual(listed, names(living));
    } finally {
      link.stop();
      server.close();
    }
  });

  it('tells each end until the core has it, whatever fails meanwhile, and says when the core is away', async () => {
    const unreported = [{ worker: 'e-1' }];
    const notes: string[] = [];
    const agent = {
      info: () => ({ node: 'n' }),
      load: () => ({}),
      workers: () => [],
      untold: {
        take: () => unreported.splice(0),
        putBack: (fates: { worker: string }[]) => void unreported.unshift(...fates),
      },
      offered: () => 0,
      coreLost: () => void notes.push('the core is away'),
      address: () => ({ host: '127.0.0.1', port: 1 }),
    } as unknown as Agent;
    const once = new Set<string>();
    const fails = (what: string) => {
      notes.push(what);
      if (once.has(what)) return;
      once.add(what);
      throw new Overloaded({ what, limit: 1 });
    };
    const { server, sessions, core_url } = await listen({
      register(_info: object, _load: object, _workers: [], fates: ToldFate[]) {
        fails(`registers with ${names(fates)}`);
        return { keys: {}, core: 'c' };
      },
      report: () => {},
      worker_died: ({ worker }: ToldFate) => fails(`tells ${worker}`),
    });
    const link = new Link({ core_url, token: 't', log: () => {} });
    try {
      await link.run(agent).first;
      assert.deepEqual(notes.splice(0), ['registers with e-1', 'registers with e-1']);
      unreported.push({ worker: 'e-2' });
      await until(() => notes.length === 2);
      assert.deepEqual(notes.splice(0), ['tells e-2', 'tells e-2']);
      const node = remote<NodeForCore>(sessions.at(-1)!);
      for (const splice of ['../link', '', 'x'.repeat(65)])
        await assert.rejects(node.splice('w-a', splice), /that is not a splice/);
      sessions.at(-1)!.close();
      await until(() => notes.length === 2);
      assert.deepEqual(notes, ['the core is away', 'registers with ']);
    } finally {
      link.stop();
      server.close();
    }
  });

  it('tells what drivers offer where that has changed, until the core has heard it', async () => {
    let offered = 7;
    const agent = {
      info: () => ({ node: 'n', drivers: { lxc: { available: offered > 7 } } }),
      load: () => ({ workers: 0 }),
      workers: () => [],
      untold: { take: () => [] },
      offered: () => offered,
      coreLost: () => {},
    } as unknown as Agent;
    const heard: unknown[] = [];
    const { server, core_url } = await listen({
      register: () => ({ keys: {}, core: 'c' }),
      report(_load: object, ...more: unknown[]) {
        heard.push(more);
        if (heard.filter((one) => (one as []).length > 0).length === 1) throw new Overloaded({ what: 'it', limit: 1 });
      },
    });
    const link = new Link({ core_url, token: 't', log: () => {} });
    try {
      await link.run(agent).first;
      await until(() => heard.length === 1);
      offered++;
      await until(() => heard.length === 4);
      const told = [{ lxc: { available: true } }];
      assert.deepEqual(heard, [[], told, told, []]);
    } finally {
      link.stop();
      server.close();
    }
  });

  it('tells in one part what one part holds, and at least one of what is longer', () => {
    assert.deepEqual(pageOf([1, 2, 3]), [1, 2, 3]);
    assert.deepEqual(pageOf(['aaaa', 'bbbb', 'cccc'], 14), ['aaaa', 'bbbb']);
    assert.deepEqual(pageOf(['a'.repeat(99), 'b'], 14), ['a'.repeat(99)]);
    assert.deepEqual(pageOf([], 14), []);
  });
});
