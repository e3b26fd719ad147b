/** How a vault ended is told from LXC's own log, as it really looks. */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { type Ending, explainExit } from '../src/drivers/lxc/exit.ts';

const ENDING: Ending = {
  code: 1,
  signal: null,
  kill_reason: undefined,
  started: true,
  oom_text: 'oom_kill_disable 0\nunder_oom 0\noom_kill 0\n',
  lxc_log: '',
  memory_mib: 128,
  log_tail: '',
};
const line = (text: string) =>
  `lxc-start hauki.n.v 20261121173215.156 INFO     error - ../src/lxc/error.c:lxc_error_set_and_log:34 - ${text}\n`;

suite('how a vault ended', () => {
  test('by a signal is told by its name', () => {
    for (const [text, expected] of [
      ['Child <22168> ended on signal Bad system call(31)', /SIGSYS/],
      ['Child <22168> ended on signal Killed(9)', /SIGKILL/],
      ['Child <22168> ended on signal (6)', /by SIGABRT$/],
    ] as const) {
      const exit = explainExit({ ...ENDING, lxc_log: line(text) });
      assert.equal(exit.cause, 'exited');
      assert.match(exit.reason, expected);
    }
  });

  test('by an abort is told as that, though the first process of a container meets its end by another signal', () => {
    const lxc_log = line('Child <5> ended on signal Segmentation fault(11)');
    assert.match(explainExit({ ...ENDING, lxc_log }).reason, /by SIGSEGV$/);
    const log_tail = '\n----- Native stack trace -----\n\n 1: 0x840e50  [/bin/node]\n';
    assert.equal(explainExit({ ...ENDING, lxc_log, log_tail }).reason, 'it aborted (SIGABRT)');
  });

  test('by itself is told by its code', () => {
    assert.match(explainExit({ ...ENDING, lxc_log: line('Child <5> ended on error (7)') }).reason, /code 7/);
    assert.match(explainExit(ENDING).reason, /code 0/);
  });

  test('by a lack of memory is told as that, from the kernel’s counter or from V8’s words', () => {
    const killed = line('Child <5> ended on signal Killed(9)');
    assert.equal(explainExit({ ...ENDING, oom_text: 'oom_kill 1\n', lxc_log: killed }).cause, 'out_of_memory');
    const heap = 'FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory';
    assert.equal(explainExit({ ...ENDING, log_tail: heap }).cause, 'out_of_memory');
    assert.match(explainExit({ ...ENDING, oom_text: undefined, lxc_log: killed }).reason, /not known/);
  });
});
