/** The driver of a version: one that runs its language. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { isError, type NodeInfo, NoNodeFits } from '@hauki/protocol';
import { chooseDriver, usualMemory_mib } from '../src/choose-driver.ts';

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
  assert.equal(chooseDriver(drivers, 'typescript', {}, undefined), 'quickjs');
  assert.equal(chooseDriver(drivers, 'javascript', {}, 'process'), 'process');
  assert.equal(chooseDriver(drivers, 'python', {}, undefined), 'process');
  assert.equal(chooseDriver(drivers, 'python', {}, 'quickjs'), 'process');
  assert.equal(chooseDriver(drivers, 'python', {}, 'lxc'), 'process');
});

it('takes none but the one that is asked for, and says why it does not fit', () => {
  assert.equal(chooseDriver(drivers, 'javascript', { driver: 'quickjs' }, 'process'), 'quickjs');
  assert.throws(
    () => chooseDriver(drivers, 'python', { driver: 'quickjs' }, undefined),
    refused(/quickjs, which runs no python/),
  );
  assert.throws(() => chooseDriver(drivers, 'javascript', { driver: 'lxc' }, undefined), refused(/no lxc: no LXC/));
  assert.throws(() => chooseDriver(drivers, 'javascript', { driver: 'vm' }, undefined), refused(/"driver":"vm"/));
  assert.throws(() => chooseDriver({}, 'python', {}, undefined), refused(/"runtime":"python"/));
});

it('takes none that holds less strongly than is demanded, also where it is asked for by name', () => {
  const { process: child, ...rest } = drivers;
  const contained = {
    ...rest,
    process: { ...child!, level: 'none' as const },
    quickjs: { ...offer(), level: 'vm' as const },
  };
  assert.equal(chooseDriver(contained, 'javascript', { min_isolation: 'vm' }, 'process'), 'quickjs');
  assert.equal(chooseDriver(contained, 'python', {}, undefined), 'process');
  const weak = refused(/process, which is of isolation none, less than process/);
  assert.throws(() => chooseDriver(contained, 'python', { min_isolation: 'process' }, undefined), weak);
  assert.throws(
    () => chooseDriver(contained, 'python', { driver: 'process', min_isolation: 'process' }, undefined),
    weak,
  );
  assert.throws(
    () => chooseDriver(contained, 'javascript', { min_isolation: 'container' }, undefined),
    refused(/quickjs, which is of isolation vm, less than container/),
  );
});

it('gives a version half as much memory where the kernel has little, so that the next one fits beside it', () => {
  assert.deepEqual([usualMemory_mib('process', 160), usualMemory_mib('process', 4096)], [64, 128]);
  assert.deepEqual([usualMemory_mib('quickjs', 160), usualMemory_mib('quickjs', 4096)], [32, 32]);
});
