/** A kernel's link: what it says is checked, and its name is its own for as long as it answers. */
import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { connect, createServer } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { BadInput, type CoreForKernel, isError, NameTaken } from '@hauki/protocol';
import { remote, Session, serve } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { Kernels } from '../src/kernels/kernels.ts';
import { serveKernel } from '../src/kernels/link.ts';
import { NODE } from '../src/rights.ts';

describe('a kernel’s link', () => {
  const told: string[] = [];
  const kernels = new Kernels((name) => told.push(name));
  const server = createServer((socket) =>
    serveKernel(socket, { kernels, principal: NODE, core_id: 'c', log: () => {} }),
  );
  const sessions: Session[] = [];
  before(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
  after(() => {
    for (const session of sessions) session.close('over');
    server.close();
  });

  /** Links as a kernel; `answers`: what it says when it is asked what it has. */
  const link = (answers: () => Promise<[]>) => {
    const { port } = server.address() as AddressInfo;
    const session = new Session({
      transport: streamTransport(connect(port, '127.0.0.1')),
      dispatch: serve({ modules: answers }, ['modules']),
    });
    sessions.push(session);
    const register = (kernel = 'Microkernel-7') =>
      remote<CoreForKernel>(session).register({ kernel, url: 'http://127.0.0.1:1', together: true }, []);
    return { session, register };
  };

  it('keeps its name while it answers: another is told so, and changes nothing', async () => {
    const first = link(async () => []);
    await first.register();
    const second = link(async () => []);
    await assert.rejects(
      second.register(),
      (error) => isError(error, NameTaken) && /at http:\/\/127\.0\.0\.1:1, and it answers.*--id/.test(error.message),
    );
    assert.ok(first.session.open);
    assert.deepEqual(told, ['KERNEL_ONLINE']);
    first.session.close('it ends');
    await first.session.closed;
  });

  it('gives its name up to another when it does not answer', async () => {
    const silent = link(() => new Promise<[]>(() => {}));
    while (kernels.get('Microkernel-7')) await new Promise(setImmediate);
    await silent.register();
    await link(async () => []).register();
    await silent.session.closed;
    assert.equal(kernels.list().length, 1);
  });

  it('registers once, also where it asks again before it is answered: none of its names is left behind', async () => {
    const { session, register } = link(async () => []);
    const names = ['Microkernel-8', 'Microkernel-9'];
    const [first, second] = await Promise.allSettled(names.map((name) => register(name)));
    assert.equal(first!.status, 'fulfilled');
    assert.ok(second!.status === 'rejected' && isError(second!.reason, BadInput));
    session.close('it ends');
    while (kernels.get('Microkernel-8')) await new Promise(setImmediate);
    assert.equal(kernels.get('Microkernel-9'), undefined);
  });
});
