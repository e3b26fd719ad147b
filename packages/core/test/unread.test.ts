/** What is told of source that its sender may not read. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isError, Overloaded, SourceRejected } from '@hauki/protocol';
import { withoutSource } from '../src/unread.ts';

describe('the refusal of source that its sender may not read', () => {
  it('tells the place and nothing of the source, nor of what was logged', () => {
    for (const [reason, place] of [
      ['SyntaxError: invalid syntax (at worker.py:3: DB_PASSWORD: hunter2)', /\(at worker\.py:3\)$/],
      ['hunter2 is not defined', /may read it$/],
    ] as const) {
      const refused = new SourceRejected({ stage: 'parse', reason, log_tail: 'DB_PASSWORD: hunter2', worker: 'w-a' });
      const told = withoutSource(refused);
      assert.ok(isError(told, SourceRejected));
      assert.match(told.fields.reason, place);
      assert.doesNotMatch(JSON.stringify(told) + told.message, /hunter2/);
      assert.equal(told.fields.worker, 'w-a');
    }
  });

  it('leaves what says nothing of the source as it is', () => {
    for (const error of [
      new SourceRejected({ stage: 'exports', reason: 'it has no worker' }),
      new Overloaded({ what: 'x', limit: 1 }),
      new Error('another'),
    ])
      assert.equal(withoutSource(error), error);
  });
});
