/** The driver of a version: one that runs its language. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { isError, type NodeInfo, NoNodeFits } from '@hauki/protocol';
import { chooseDriver } from '../src/choose-driver.ts';

const offer = (...runtimes: ('node' | 'python')[]) => ({
  ...{ available: true, level: 'process' as const, isolation: '' },
  ...(runtimes.length > 0 ? { runtimes } : {}),
});
const drivers: NodeInfo['drivers'] = {
  quickjs: offer(),
  lxc: { available: false, reason: 'no LXC', level: 'container', isolation: '' },
  process: offer('node', 'python'),
};
const refused = (pattern: RegExp) => (error: unknown) => isError(error, NoNodeFits) && pattern.test(error.message);

it('takes the first driver that runs the language, or the one before', () => {
  assert.equal(chooseDriver(drivers, 'typescript', undefined, undefined), 'quickjs');
  assert.equal(chooseDriver(drivers, 'javascript', undefined, 'process'), 'process');
  assert.equal(chooseDriver(drivers, 'python', undefined, undefined), 'process');
  assert.equal(chooseDriver(drivers, 'python', undefined, 'quickjs'), 'process');
  assert.equal(chooseDriver(drivers, 'python', undefined, 'lxc'), 'process');
});

it('takes none but the one that is asked for, and says why it does not fit', () => {
  assert.equal(chooseDriver(drivers, 'javascript', 'quickjs', 'process'), 'quickjs');
  assert.throws(() => chooseDriver(drivers, 'python', 'quickjs', undefined), refused(/quickjs, which runs no python/));
  assert.throws(() => chooseDriver(drivers, 'javascript', 'lxc', undefined), refused(/no lxc: no LXC/));
  assert.throws(() => chooseDriver(drivers, 'javascript', 'vm', undefined), refused(/"driver":"vm"/));
  assert.throws(() => chooseDriver({}, 'python', undefined, undefined), refused(/"runtime":"python"/));
});
