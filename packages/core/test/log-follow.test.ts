/** Following a log: to the end of the worker that was followed, and not into another one of its name. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type LogPage, NO_GRANTS } from '@hauki/protocol';
import { followLog, type LogNews } from '../src/log-follow.ts';
import { type RegisteredNode, type RegisteredWorker, Registry } from '../src/registry.ts';

const line = (text: string) => ({ seq: 1, at: 0, level: 'info' as const, text });

describe('a log that is followed', () => {
  // Epochs begin anew where those of a name were forgotten.
  for (const epoch of [1, 2])
    it(`ends with its worker, where another owner has a worker of that name at once, in epoch ${epoch}`, async () => {
      const registry = new Registry();
      const owns = (owner: string, of: number) =>
        registry.workers.set('report', {
          worker: 'report',
          owner,
          epoch: of,
          node: 'north',
          grants: NO_GRANTS,
        } as RegisteredWorker);
      let seq = 0;
      const page = (text: string, epoch: number): LogPage => ({
        epoch,
        missed: 0,
        lines: [{ ...line(text), seq: ++seq }],
      });
      let asked = 0;
      const session = {
        open: true,
        async call() {
          if (++asked === 1) return page('mine', 1);
          // It changes hands while the node is being asked.
          owns('bob', epoch);
          return page('private', epoch);
        },
      };
      registry.nodes.set('north', { session } as unknown as RegisteredNode);
      owns('ada', 1);
      const heard: LogNews[] = [];
      for await (const news of followLog(registry, 'report', 10, () => false)) heard.push(news);
      assert.deepEqual(
        heard.flatMap((news) => ('line' in news ? [news.line.text] : [])),
        ['mine'],
      );
      const [last] = heard.slice(-1);
      assert.ok(last && 'fate' in last && last.fate.owner === 'ada' && /another owner/.test(last.fate.reason));
    });

  it('gives of the last words only those that were not given', async () => {
    const registry = new Registry();
    const words = ['first', 'second', 'third'].map((text, i) => ({ ...line(text), seq: i + 1 }));
    const session = {
      open: true,
      async call() {
        registry.died({ worker: 'report', owner: 'ada', cause: 'exited', reason: '', at: 0, epoch: 1, lines: words });
        return { epoch: 1, missed: 0, lines: words.slice(0, 2) };
      },
    };
    registry.nodes.set('north', { info: { node: 'north' }, load: {}, session } as unknown as RegisteredNode);
    const mine = { worker: 'report', owner: 'ada', epoch: 1, node: 'north', grants: NO_GRANTS };
    registry.workers.set('report', mine as RegisteredWorker);
    const heard: LogNews[] = [];
    for await (const news of followLog(registry, 'report', 10, () => false)) heard.push(news);
    assert.deepEqual(
      heard.map((news) => ('line' in news ? news.line.text : Object.keys(news)[0])),
      ['first', 'second', 'third', 'fate'],
    );
  });
});
