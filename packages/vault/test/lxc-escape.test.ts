/**
 * The escape suite: what a captured guest would try, by raw system calls, on the handed-in socket and around it.
 * The same attempts without the filter must succeed where they can, or this suite would prove nothing.
 */
import assert from 'node:assert/strict';
import { type AddressInfo, connect, createServer } from 'node:net';
import { suite, test } from 'node:test';
import { bench, skip } from './lxc/harness.ts';
import { no_perl, perlTrial } from './lxc/perl.ts';

const EPERM = '1';
const ENOSYS = '38';
/** Calls that must seem not to exist, so that libraries fall back instead of failing. */
const ABSENT = new Set(['clone3', 'io_uring_setup', 'sysinfo']);
/** Where the secret of a service on the host's loopback would be read. */
const BANNERS = ['accepted-banner', 'accepted-fastopen-banner', 'listener-fastopen-banner', 'listener-banner'];
/** Lines that are not the outcome of one call. */
const TELLING = /^(accepted|done|.*-banner|listener-moved)$/;

async function attempts(without_seccomp: boolean): Promise<Map<string, string>> {
  const service = createServer((socket) => socket.on('error', () => {}).end('SECRET of the host\n'));
  await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
  const port = (service.address() as AddressInfo).port;
  const b = bench(perlTrial('./escape.pl', [port], without_seccomp));
  try {
    const { vault } = await b.start();
    const callers = [1, 2].map(() => connect(vault.port, '127.0.0.1').on('error', () => {}));
    const exit = await vault.exited;
    for (const caller of callers) caller.destroy();
    const found = new Map(exit.log_tail.split('\n').map((line) => line.split(' ') as [string, string]));
    assert.ok(found.has('done'), `the probe did not finish: ${exit.reason}\n${exit.log_tail}`);
    assert.equal(found.get('accepted'), 'yes');
    // Calls of another architecture end the caller, where the filter does not know them.
    if (/SIGSYS/.test(exit.reason)) found.set('x32-socket', 'killed');
    return found;
  } finally {
    service.close();
    await b.end();
  }
}

suite('what a captured guest tries', { skip: skip || no_perl }, () => {
  test('is all refused, on the listening socket, on accepted ones, and around them', async () => {
    const found = await attempts(false);
    let calls = 0;
    for (const [name, outcome] of found) {
      if (TELLING.test(name) || name === '') continue;
      calls++;
      if (name === 'x32-socket') assert.ok(['killed', EPERM, ENOSYS].includes(outcome), `${name} answered ${outcome}`);
      else assert.equal(outcome, ABSENT.has(name) ? ENOSYS : EPERM, `${name} answered ${outcome}`);
    }
    assert.ok(found.has('x32-socket'));
    assert.ok(calls > 50, `only ${calls} calls were tried`);
    for (const name of BANNERS) {
      assert.equal(found.get(name), 'unread', name);
    }
    assert.equal(found.get('listener-moved'), 'no');
  });

  test('works without the filter, so the filter is what refuses it', async () => {
    const found = await attempts(true);
    for (const name of BANNERS) assert.equal(found.get(name), 'READ', name);
    for (const name of [
      'listener-bind',
      'listener-siocgifconf',
      'socket-inet',
      'clone-fork',
      'fcntl-notify',
      'flock',
      'sysinfo',
    ]) {
      assert.equal(found.get(name), 'OPEN', name);
    }
    assert.equal(found.get('listener-moved'), 'OPEN');
  });
});
