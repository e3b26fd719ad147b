/** What the sender of a version is told that did not come into service. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { EvolveRejected, isError, SourceRejected } from '@hauki/protocol';
import { rejection } from '../src/evolve.ts';

it('what a guest says of its refusal is told where it is a text, and no text is made of anything else', () => {
  const said = rejection(
    'm',
    'load',
    new SourceRejected({ stage: 'parse', reason: 'a dot is missing', log_tail: 'x' }),
  );
  assert.ok(isError(said, EvolveRejected));
  assert.deepEqual(said.fields, { module: 'm', stage: 'parse', why: 'a dot is missing', log: 'x' });
  // Short on the wire and endless when it is written out.
  let shared: unknown = ['x'];
  for (let i = 0; i < 40; i++) shared = [shared, shared];
  const fields = { stage: shared, reason: shared, log_tail: shared } as never;
  const shaped = rejection('m', 'load', Object.assign(new SourceRejected({ stage: 'parse', reason: '' }), { fields }));
  assert.ok(isError(shaped, EvolveRejected));
  assert.deepEqual(shaped.fields, { module: 'm', stage: 'it did not say', why: 'it did not say' });
});
