/** A node's link: it registers first, and has no more of MeshFS than its workers were granted. */
import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { connect, createServer } from 'node:net';
import { after, before, describe, it } from 'node:test';
import {
  BadInput,
  type CoreForNode,
  type ErrorClass,
  Forbidden,
  GrantMissing,
  isError,
  normaliseGrants,
} from '@hauki/protocol';
import { remote, Session } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { serveLink } from '../src/links.ts';
import { Registry } from '../src/registry.ts';
import { NODE } from '../src/rights.ts';

const refuses = (promise: Promise<unknown>, kind: ErrorClass<any>) =>
  assert.rejects(promise, (error: Error) => isError(error, kind) || assert.fail(`${error.name}: ${error.message}`));

describe('a node’s link', () => {
  const registry = new Registry();
  const asked: string[] = [];
  const server = createServer((socket) =>
    serveLink(socket, {
      registry,
      keys: { keys: [] },
      core_id: 'c',
      principal: NODE,
      log: () => {},
      family: { clone: async (_node, worker) => ({ worker: `${worker}-clone` }) },
      meshfs: {
        write: async ({ pointer }) => ({ pointer: asked.push(pointer) }),
        resolve: async (pointer) => {
          asked.push(pointer);
          return { pointer, content: 'x', media_type: 'text/plain' };
        },
      },
    }),
  );
  before(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
  after(() => server.close());

  const dial = () => {
    const session = new Session({
      transport: streamTransport(connect((server.address() as AddressInfo).port, '127.0.0.1')),
    });
    return { session, core: remote<CoreForNode>(session) };
  };
  const info = (node: string) => ({ node, labels: {}, drivers: {}, memory_mib: 1, cores: 1 });
  const load = { workers: 0, memory_used_mib: 0, cpu: 0 };

  it('does nothing before it has registered, and registers once', async () => {
    const { session, core } = dial();
    await refuses(core.meshfs_resolve('w-a', 'gem-pointer://wiki/a/b'), Forbidden);
    await refuses(
      core.worker_died({ worker: 'w-a', owner: '', cause: 'killed', reason: '', at: 0, lines: [] }),
      BadInput,
    );
    await refuses(core.register({ ...info('Bad Name') }, load, [], []), BadInput);
    await refuses(core.register({ node: 'n' } as never, load, [], []), BadInput);
    await core.register(info('north'), load, [], []);
    await refuses(core.register(info('south'), load, [], []), BadInput);
    assert.deepEqual([...registry.nodes.keys()], ['north']);
    session.close();
  });

  it('reaches the pointers that its own workers were granted, and no others', async () => {
    const { session, core } = dial();
    await core.register(info('east'), load, [], []);
    const grants = normaliseGrants({
      meshfs: { read: ['gem-pointer://wiki/a/'], write: ['gem-pointer://wiki/a/out'] },
    });
    registry.forging.set('w-mine', { worker: 'w-mine', owner: 'admin', node: 'east', grants });
    registry.forging.set('w-other', { worker: 'w-other', owner: 'admin', node: 'west', grants });
    await core.meshfs_resolve('w-mine', 'gem-pointer://wiki/a/b');
    await core.meshfs_write('w-mine', 'gem-pointer://wiki/a/out', 'x');
    assert.deepEqual(asked, ['gem-pointer://wiki/a/b', 'gem-pointer://wiki/a/out']);
    await refuses(core.meshfs_resolve('w-mine', 'gem-pointer://wiki/b/c'), GrantMissing);
    await refuses(core.meshfs_write('w-mine', 'gem-pointer://wiki/a/b', 'x'), GrantMissing);
    await refuses(core.meshfs_resolve('w-other', 'gem-pointer://wiki/a/b'), Forbidden);
    await refuses(core.meshfs_resolve('w-nobody', 'gem-pointer://wiki/a/b'), Forbidden);
    assert.equal(asked.length, 2);
    session.close();
  });
});
