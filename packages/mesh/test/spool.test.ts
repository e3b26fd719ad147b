/** The handle of a job: what it waits for, and what it tells of the end. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  ConnectionLost,
  DeadlineExceeded,
  type ErrorClass,
  isError,
  JobCancelled,
  RemoteError,
  toWire,
} from '@hauki/protocol';
import type { CoreClient } from '../src/http.ts';
import { spoolDoor } from '../src/spool.ts';

/** A job whose core says this, one after the other. */
function job(...answers: (object | Error)[]) {
  const asked: string[] = [];
  const core = {
    async request(method: string, path: string) {
      asked.push(`${method} ${path.replace(/wait_ms=\d+/, 'wait')}`);
      const answer = answers[Math.min(asked.length, answers.length) - 1]!;
      if (answer instanceof Error) throw answer;
      return answer;
    },
  } as unknown as CoreClient;
  const door = spoolDoor(core, async () => assert.fail('nothing is spooled'));
  return { handle: door.jobs.get('j-a'), asked };
}
const away = new ConnectionLost({ why: 'the core is away' });
const refused = (promise: Promise<unknown>, kind: ErrorClass<any>) =>
  assert.rejects(promise, (error: Error) => isError(error, kind) || assert.fail(`${error.name}: ${error.message}`));

describe('the result of a job', () => {
  it('is waited for until the job has ended, and is its value, its error, or that it was cancelled', async () => {
    const { handle, asked } = job({ state: 'accepted' }, { state: 'running' }, { state: 'done', result: 5 });
    assert.equal(await handle.result(), 5);
    assert.deepEqual(asked, Array(3).fill('GET /api/v2/omega_spool/j-a?wait'));
    const error = toWire(new RemoteError({ error_name: 'RangeError' }));
    await refused(job({ state: 'failed', error }).handle.result(), RemoteError);
    await refused(job({ state: 'cancelled' }).handle.result(), JobCancelled);
  });

  it('is given up in time, and the job goes on', async () => {
    const { handle, asked } = job({ state: 'running' });
    await refused(handle.result({ timeout_ms: 0 }), DeadlineExceeded);
    assert.equal(asked.length, 1);
  });

  it('waits for a core that is away where it may wait only so long, and else says so', async () => {
    const { handle } = job(away, { state: 'done', result: 5 });
    assert.equal(await handle.result({ timeout_ms: 60_000 }), 5);
    await refused(job(away).handle.result(), ConnectionLost);
    await refused(job(away).handle.result({ timeout_ms: 0 }), ConnectionLost);
  });
});
