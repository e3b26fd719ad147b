/** The handshake as docs/vectors/handshake.json has it: whoever writes a peer checks against the same numbers. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { it } from 'node:test';
import {
  destructText,
  heartbeatText,
  leaseKey,
  mac,
  secretHash,
  sessionKey,
  signatureHolds,
  thumbprint,
  transcript,
} from '../src/handshake.ts';
import { streamTransport } from '../src/transports/stream.ts';

const vector = JSON.parse(readFileSync(new URL('../../../docs/vectors/handshake.json', import.meta.url), 'utf8'));
const { secret, jti, worker_nonce, caller_nonce, worker, epoch } = vector.given;

it('derives the keys of the vector', async () => {
  assert.equal(await sessionKey(secret, jti), vector.keys.session_key);
  assert.equal(await leaseKey(secret, jti), vector.keys.lease_key);
  assert.equal(await secretHash(secret), vector.keys.secret_hash);
});

it('proves and signs as the vector does', async () => {
  const { redemption } = vector;
  const said = transcript('caller', jti, worker_nonce, caller_nonce);
  assert.equal(said, redemption.caller_transcript);
  assert.equal(transcript('worker', jti, worker_nonce, caller_nonce), redemption.worker_transcript);
  assert.equal(await mac(vector.keys.session_key, said), redemption.caller_proof);
  assert.equal(await mac(vector.keys.session_key, redemption.worker_transcript), redemption.worker_proof);
  assert.equal(await thumbprint(redemption.caller_key), redemption.audience);
  assert.equal(await signatureHolds(redemption.caller_key, said, redemption.caller_signature), true);
});

it('beats and destructs as the vector does', async () => {
  assert.equal(heartbeatText(worker, epoch, jti), vector.heartbeat.text);
  assert.equal(await mac(vector.keys.lease_key, vector.heartbeat.text), vector.heartbeat.mac);
  assert.equal(destructText(worker, epoch), vector.destruct.text);
  assert.equal(await mac(vector.keys.lease_key, vector.destruct.text), vector.destruct.mac);
});

it('frames as the vector does', async () => {
  const stream = new PassThrough();
  streamTransport(stream).send(vector.frame.payload);
  const [bytes] = (await stream.take(1).toArray()) as [Buffer];
  assert.equal(bytes.toString('hex'), vector.frame.hex);
});
