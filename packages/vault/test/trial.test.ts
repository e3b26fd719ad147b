/** Trials of what a machine can do. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { twice } from '../src/drivers/trial.ts';

it('a trial that fails is run once more, and what fails twice does not work', async () => {
  const run = (...outcomes: (Error | undefined)[]) => {
    let runs = 0;
    const done = twice(async () => {
      const outcome = outcomes[runs++];
      if (outcome) throw outcome;
    });
    return done.then(
      () => runs,
      (error) => [runs, error],
    );
  };
  const killed = new Error('it was killed');
  const broken = new Error('there is no such thing');
  assert.equal(await run(undefined), 1);
  assert.equal(await run(killed, undefined), 2);
  assert.deepEqual(await run(killed, broken), [2, broken]);
});
