/** The node's end of the link to the core: it registers, however much it has to tell. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { describe, it } from 'node:test';
import { LIMITS, type NodeForCore, type ToldFate, type WorkerInfo } from '@hauki/protocol';
import { encode, remote, Session, serve } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import type { Agent } from '../src/agent.ts';
import { Link } from '../src/link.ts';
import { pageOf } from '../src/pages.ts';

const names = (list: { worker: string }[]) => list.map(({ worker }) => worker);
/** Ten of these are more than one message holds. */
const many = (prefix: string) =>
  Array.from({ length: 10 }, (_, i) => ({ worker: `${prefix}${i}`, says: 'ä'.repeat(LIMITS.message_bytes / 16) }));

describe('the link to the core', () => {
  it('registers with more workers and fates than one message holds, each told once, and lists them all', async () => {
    const [living, ended] = [many('w-'), many('e-')];
    const agent = {
      info: () => ({ node: 'n' }),
      load: () => ({ workers: living.length }),
      workers: () => living as unknown as WorkerInfo[],
      takeUnreported: () => ended.splice(0) as unknown as ToldFate[],
      putBack: () => assert.fail('nothing failed'),
      coreLost: () => {},
    } as unknown as Agent;
    const told = { workers: [] as string[], fates: [] as string[] };
    const tell = (workers: WorkerInfo[], fates: ToldFate[]) => {
      told.workers.push(...names(workers));
      told.fates.push(...names(fates));
    };
    let session: Session | undefined;
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
    const server = createServer().on('upgrade', (_request, socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: hauki\r\n\r\n');
      session = new Session({
        transport: streamTransport(socket as Socket),
        dispatch: serve(core, Object.keys(core) as (keyof typeof core)[]),
        literal: encode,
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const core_url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const link = new Link({ core_url, token: 't', log: () => {} });
    try {
      await link.run(agent).first;
      assert.deepEqual(told, { workers: names(living), fates: names(many('e-')) });
      const node = remote<NodeForCore>(session!);
      const listed: string[] = [];
      for (let page = await node.workers(); page.length > 0; page = await node.workers(false, listed.at(-1)!))
        listed.push(...names(page));
      assert.deepEqual(listed, names(living));
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
