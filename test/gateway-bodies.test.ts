/** Bodies that stream through the core's gateway: what one module may have of a link, and what is left when it is full. */
import assert from 'node:assert/strict';
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { before, describe, it } from 'node:test';
import { connectKernel, LIMITS } from '@hauki/mesh';
import { useJoinedKernels } from './support/kernel.ts';
import { until, useMesh } from './support/mesh.ts';

/** Bodies of one module (docs/kernels.md). */
const OF_ONE = 96;

describe('bodies that stream through the gateway', () => {
  const used = useMesh({ nodes: [] });
  const { all: kernels, start } = useJoinedKernels(used, 'b');
  before(async () => {
    await start(0);
    const content = `export default { async fetch(request) {
      if (request.method === 'POST') for await (const chunk of request.body) void chunk;
      return new Response(new ReadableStream({ start: (all) => all.enqueue(new TextEncoder().encode('begun')) }));
    } };`;
    for (const target_module of ['greedy', 'modest']) await used.mesh.kernels.evolve({ target_module, content });
  });
  const underWay = async () => {
    const { url, token } = kernels[0]!;
    const { modules } = await connectKernel({ url, token }).status();
    return modules.map(({ live }) => live.reduce((sum, { in_flight }) => sum + in_flight, 0));
  };
  /** A request whose answer has begun, or whose body has. */
  const begin = (module: string, method: string) => {
    const headers = { authorization: `Bearer ${used.local.token}` };
    const sent = request(`${used.local.url}/api/plugins/${module}/`, { method, headers, agent: false });
    const answer = new Promise<IncomingMessage>((resolve) => sent.on('response', resolve));
    sent.on('error', () => {});
    if (method === 'POST') sent.write('begun');
    else sent.end();
    return { sent, status: answer.then(({ statusCode }) => statusCode) };
  };
  const leaveAll = async (all: { sent: ClientRequest }[]) => {
    for (const { sent } of all) sent.destroy();
    await until('nothing is under way', async () => String(await underWay()) === '0,0');
  };

  it('are not all of one module, neither answers nor uploads', async () => {
    for (const method of ['GET', 'POST']) {
      const all = Array.from({ length: OF_ONE }, () => begin('greedy', method));
      await until('all are under way', async () => (await underWay())[0] === OF_ONE);
      if (method === 'GET') await Promise.all(all.map(({ status }) => status));
      const [more, other] = [begin('greedy', method), begin('modest', method)];
      assert.equal(await more.status, 429);
      other.sent.end();
      assert.equal(await other.status, 200);
      await leaveAll([...all, more, other]);
    }
  });

  it('leave nothing under way where the link has no room for one more', async () => {
    const all = Array.from({ length: OF_ONE }, () => begin('greedy', 'GET'));
    await Promise.all(all.map(({ status }) => status));
    const others = Array.from({ length: LIMITS.streams - OF_ONE + 8 }, () => begin('modest', 'GET'));
    const refused = (await Promise.all(others.map(({ status }) => status))).filter((status) => status === 429);
    assert.equal(refused.length, 8);
    await leaveAll([...all, ...others]);
  });
});
