/** What people see of it: nothing that steers their terminal, and help that is true. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fromWire, NotText, RemoteError, SourceRejected, VaultFailed, WorkerPaused } from '@hauki/mesh';
import { ghost } from '@hauki/rpc';
import { Command } from 'commander';
import { TURN_MS } from '../../../packages/vault/src/drivers/quickjs/limits.ts';
import { lifeCommands } from '../src/commands/life.ts';
import { EXIT, fold, foldPage, printable, report, shown, table } from '../src/output.ts';

describe('what is shown', () => {
  it('has no character in it that moves the cursor, colours, or turns the direction of others', () => {
    for (const steering of [0x07, 0x1b, 0x0d, 0x7f, 0x9b, 0x61c, 0x200e, 0x200f, 0x202a, 0x202e, 0x2066, 0x2069]) {
      const said = `exe${String.fromCharCode(steering)}gpj.`;
      assert.equal(printable(said), 'exegpj.', `U+${steering.toString(16)}`);
    }
    const said = 'ä\n\tשלום 👩‍🚀 – “…”\u2029';
    assert.equal(printable(said), said);
  });

  it('is the value that came, whatever it is: JSON where that says all of it', () => {
    assert.equal(shown('a "text"'), 'a "text"');
    assert.equal(shown({ a: [1, null] }), '{\n  "a": [\n    1,\n    null\n  ]\n}');
    for (const [value, text] of [
      [undefined, 'undefined'],
      [5n, '5n'],
      [new Map([['a', 1]]), "Map(1) { 'a' => 1 }"],
      [[Number.NaN, -0, Number.POSITIVE_INFINITY], '[ NaN, -0, Infinity ]'],
      [new Uint8Array([1, 2]), 'Uint8Array(2) [ 1, 2 ]'],
      [{ a: undefined, at: new Date(0) }, '{ a: undefined, at: 1970-01-01T00:00:00.000Z }'],
      [/x/g, '/x/g'],
    ])
      assert.equal(shown(value), text);
  });

  it('has an end also where a value is shared so often that it would have none', () => {
    let shared: unknown = 'end';
    for (let i = 0; i < 40; i++) shared = [shared, shared];
    assert.match(shown(shared), /^\[\n? *\[/);
    const cyclic: unknown[] = [];
    cyclic.push(cyclic);
    assert.match(shown(cyclic), /Circular/);
  });

  it('has the frames of what a worker threw, and none of our own where that has none', (t) => {
    const said: string[] = [];
    t.mock.method(console, 'error', (text: string) => void said.push(text));
    const remote_stack = 'RangeError: no\n    at work (worker.mjs:1:2)';
    for (const fields of [{ error_name: 'string' }, { error_name: 'RangeError', remote_stack }]) {
      const error = new RemoteError(fields);
      error.stack = remote_stack;
      assert.equal(report(error, false), EXIT.failed);
    }
    assert.deepEqual(
      said.filter((text) => text.includes(' at ')),
      ['    at work (worker.mjs:1:2)'],
    );
  });

  it('has the cause, the errors and the properties of what a worker threw', (t) => {
    const said: string[] = [];
    t.mock.method(console, 'error', (text: string) => void said.push(text));
    const error = new RemoteError({ error_name: 'ApiError' }, 'ApiError: not loaded');
    error.cause = Object.assign(new AggregateError([new Error('mirror 1 down')], 'not loaded'), {
      status: 404,
      cause: new SyntaxError('no JSON'),
    });
    report(error, false);
    report(error, true);
    const json = JSON.parse(said.pop()!).error.thrown;
    for (const text of [said.join('\n'), json])
      for (const part of [/mirror 1 down/, /status: 404/, /cause\]?: SyntaxError: no JSON/]) assert.match(text, part);
  });

  it('says a message of several lines once, before the worker’s frames', (t) => {
    const said: string[] = [];
    t.mock.method(console, 'error', (text: string) => void said.push(text));
    const error_name = 'AssertionError';
    const wire = {
      message: `${error_name}: not equal:\n\n+ 1\n- 2`,
      data: {
        name: 'RemoteError',
        fields: { error_name, remote_stack: 'AssertionError: not equal:\n\n+ 1\n- 2\n    at check (worker.mjs:1:2)' },
      },
    };
    report(fromWire(wire), false);
    assert.equal(said.join('\n'), 'hauki: AssertionError: not equal:\n\n+ 1\n- 2\n    at check (worker.mjs:1:2)');
  });

  it('names the command that tells more where there is one, and none where it would tell nothing', (t) => {
    const said = (error: Error) => {
      const { mock } = t.mock.method(console, 'error', () => {});
      report(error, false);
      mock.restore();
      return mock.calls.map(({ arguments: [line] }) => String(line)).join('\n');
    };
    assert.match(said(new SourceRejected({ stage: 'load', reason: 'no', worker: 'w-1' })), /^More: hauki why w-1$/m);
    assert.match(said(new VaultFailed({ driver: 'lxc', reason: 'no', worker: 'w-1' })), /^More: hauki why w-1$/m);
    assert.doesNotMatch(said(new WorkerPaused({ worker: 'w-1', since: 'now' })), /hauki why/);
    const binary = new NotText({ pointer: 'gem-pointer://data/film', media_type: 'video/mp4' });
    assert.match(said(binary), /^As a file: hauki fs cp gem-pointer:\/\/data\/film FILE$/m);
  });

  it('shows a remote object by its name', () => {
    const away = ghost({ label: 'reference 1', call: async () => 1, dispose: async () => {} });
    assert.equal(shown(away), '[Ghost reference 1]');
  });

  it('says of exec how long an expression may compute in a quickjs vault', () => {
    const program = new Command();
    let help = '';
    lifeCommands(program);
    program.commands
      .find((command) => command.name() === 'exec')!
      .configureOutput({
        writeOut(text) {
          help += text;
        },
      })
      .outputHelp();
    assert.match(help, new RegExp(`a quickjs worker ends when it\\s+computes for ${TURN_MS.default / 1000} s`));
  });
});

describe('a narrow terminal', () => {
  const rows = [
    ['WORKER', 'NODE', 'OWNER', 'LABELS', 'MEMORY', 'ENDS IN'],
    ['w-1wrml9c2bhpc', 'vm-4d542e', 'admin', '', '716.0 KiB of 32', '60 min, at most 24 h'],
    ['w-2', 'a-node-of-a-long-name', 'admin/ci-c68184e4fe27', '', '1.2 MiB of 128', 'lasts'],
  ];
  const wide = rows.map((row) => row.slice(1));

  it('shows what does not fit of a row below it, each cell behind its head, and loses none', () => {
    for (const columns of [100, 80, 60, 40]) {
      const lines = table(rows, columns).split('\n');
      for (const line of lines) assert.ok(line.length <= columns, `${columns}: ${line}`);
      const words = lines.join(' ').replaceAll(/\s+/g, ' ');
      for (const cell of rows.flat().filter((one) => one !== '' && one !== 'LABELS'))
        assert.ok(words.includes(cell), cell);
    }
    assert.deepEqual(table(rows, 60).split('\n'), [
      'WORKER          NODE                   OWNER',
      'w-1wrml9c2bhpc  vm-4d542e              admin',
      '  MEMORY 716.0 KiB of 32  ENDS IN 60 min, at most 24 h',
      'w-2             a-node-of-a-long-name  admin/ci-c68184e4fe27',
      '  MEMORY 1.2 MiB of 128  ENDS IN lasts',
    ]);
  });

  it('folds a last column that has room for some words where it stands', () => {
    const said = 'the kernel ended it at its limit, or its JavaScript heap was full';
    assert.deepEqual(
      table(
        [
          ['CAUSE', 'MEANING'],
          ['out_of_memory', said],
        ],
        50,
      ).split('\n'),
      [
        'CAUSE          MEANING',
        'out_of_memory  the kernel ended it at its limit,',
        '               or its JavaScript heap was full',
      ],
    );
  });

  it('leaves a table that fits, and one in a pipe, as it is', () => {
    const all = table(wide, Number.POSITIVE_INFINITY);
    assert.equal(all.split('\n').length, 3);
    assert.match(all, /^NODE +OWNER +LABELS +MEMORY +ENDS IN$/m);
    assert.equal(table(wide, Math.max(...all.split('\n').map((line) => line.length))), all);
    // Tests have no terminal.
    assert.equal(table(wide), all);
  });

  it('breaks lines at their spaces alone', () => {
    assert.equal(fold('one two three', 2, 8), 'one two\n  three');
    assert.equal(fold('a-word-that-is-too-long for it', 1, 10), 'a-word-that-is-too-long\n for it');
    assert.equal(fold('    indented', 4, 6), '    indented');
  });

  it('folds the sentences of a help page and not its commands, which are copied', () => {
    const command = `  hauki evolve app.ts --name ${'x'.repeat(60)} --json`;
    const meaning = 'what it is for, in more words than there is room for in one line of it all';
    assert.deepEqual(
      foldPage(`${meaning}. ${meaning},\nand more\n${command}\n  HAUKI_URL  ${meaning}`, 80).split('\n'),
      [
        'what it is for, in more words than there is room for in one line of it all. what',
        'it is for, in more words than there is room for in one line of it all, and more',
        command,
        '  HAUKI_URL  what it is for, in more words than there is room for in one line of',
        '             it all',
      ],
    );
  });
});
