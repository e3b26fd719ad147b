/** Following a log: to the end of the worker that was followed, and not into another one of its name. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type LogPage, NO_GRANTS } from '@hauki/protocol';
import { followLog, type LogNews } from '../src/log-follow.ts';
import { type RegisteredNode, type RegisteredWorker, Registry } from '../src/registry.ts';

const line = (text: string) => ({ seq: 1, at: 0, level: 'info' as const, text });

describe('a log that is followed', () => {
  it('ends with its worker, where another owner has a worker of that name at once', async () => {
    const registry = new Registry();
    const owns = (owner: string, epoch: number) =>
      registry.workers.set('report', {
        worker: 'report',
        owner,
        epoch,
        node: 'north',
        grants: NO_GRANTS,
      } as RegisteredWorker);
    const page = (text: string, epoch: number): LogPage => ({ epoch, missed: 0, lines: [line(text)] });
    let asked = 0;
    const session = {
      open: true,
      async call() {
        if (++asked === 1) return page('mine', 1);
        // It changes hands while the node is being asked.
        owns('bob', 2);
        return page('private', 2);
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
});
