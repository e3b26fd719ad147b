/** The lines that a worker's console and log write: Node's own console is the model of how they are put together. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { format } from 'node:util';
import { GrantMissing, LIMITS } from '@hauki/protocol';
import { LATE_METHODS, lateConsole } from '../src/guest/console.ts';
import { createConsole } from '../src/guest/context.ts';
import { present } from '../src/guest/present.ts';

/** A console, and what it wrote. */
function written(now = () => 0) {
  const lines: [level: string, text: string][] = [];
  const write_log = (level: string, values: unknown[]) => void lines.push([level, late.format(values)]);
  const late = lateConsole({ write_log, now });
  return { lines, format: late.format, console: createConsole(write_log, () => late) };
}

describe('a line of a console', () => {
  it('is filled in as Node’s is', () => {
    const lines = [
      ['%s is %d, %i, %f', 'a', '5', '5.7', '1.5x'],
      ['%d %i %f', 5n, 5n, '0x10'],
      ['%d %i', 'none', Symbol('x')],
      ['%s %s %s', 1n, undefined, null],
      ['%j %j', { a: [1] }, undefined],
      ['%c styled %%', 'color: red'],
      ['%d%', 5],
      ['%s and %s', 'one'],
      ['%s', 'one', 'two', 3],
      ['100%'],
      ['%%'],
      ['%x %', 1],
      [1, '%s', 'x'],
      ['%s', Symbol('x')],
      ['%d %i %f %s', -0, -0, -0, -0],
      [-0, 0],
    ];
    for (const line of lines) assert.equal(written().format(line), format(...line), JSON.stringify(String(line[0])));
  });

  it('shows what objects hold: maps, sets, cycles, getters unasked, and what refuses to be a text', () => {
    const around: Record<string, unknown> = { n: 1 };
    around.self = around;
    const asked = {
      get x(): never {
        throw new Error('a getter was run');
      },
    };
    const { format } = written();
    assert.equal(format([new Map([[1, 'two']]), new Set([1n])]), 'Map(1) {1 => "two"} Set(1) {1n}');
    assert.equal(format([around, asked]), '{ n: 1, self: [it contains itself] } { x: [a getter] }');
    assert.equal(format(['%o %O', { a: 1 }, [undefined]]), '{ a: 1 } [undefined]');
    assert.match(format(['%j %d', around, Object.create(null)]), /^\{ n: 1.* Object without a prototype \{\}$/);
  });

  it('shows an error with its frames, its properties and its cause', () => {
    const error = Object.assign(new RangeError('too far', { cause: new TypeError('why') }), { code: 'E_FAR' });
    const text = written().format(['failed:', error]);
    assert.match(text, /^failed: RangeError: too far\n +at .*console\.test/);
    assert.match(text, /\{ code: "E_FAR" \}\n\[cause\]: TypeError: why\n +at /);
    assert.match(present(new AggregateError([new Error('one')], 'all'), 10_000), /\[errors\]: \[\[Error: one\]\]$/);
    // As QuickJS has it: frames alone.
    error.stack = '    at run (worker.mjs:1:2)\n    at call (guest.js:1:2)\n';
    assert.match(present(error, 10_000), /^RangeError: too far\n {4}at run \(worker\.mjs:1:2\) \{/);
    error.cause = error;
    assert.match(present(error, 10_000), /\[cause\]: \[it contains itself\]$/);
    const odd = Object.defineProperty(new Error('x'), 'stack', {
      get() {
        throw new Error('no stack');
      },
    });
    assert.match(present(odd, 100), /^\[a value that cannot be shown/);
  });

  it('takes no more work than it has room, however much there is', () => {
    const item = 'x'.repeat(50);
    const deep = (level: number): unknown => (level === 0 ? item : Array.from({ length: 100 }, () => deep(level - 1)));
    let looked = 0;
    const watched = new Proxy(Array.from({ length: 100 }, () => deep(1)) as object[], {
      get(target, key) {
        if (/^\d+$/.test(String(key))) looked++;
        return Reflect.get(target, key);
      },
    });
    const text = present(watched, LIMITS.log_line_chars);
    assert.ok(text.length <= LIMITS.log_line_chars && looked < 3, `${text.length} ${looked}`);
    const many = Array.from({ length: 100_000 }, () => item);
    assert.ok(written().format(many).length < 2 * LIMITS.log_line_chars);
    assert.ok(written().format(['%s'.repeat(100_000), ...many]).length < 200 * LIMITS.log_line_chars);
  });
});

describe('a console', () => {
  it('has the methods of Node’s, none of which throws, with values or without', () => {
    const { console: ours } = written();
    for (const name of [...LATE_METHODS, 'clear', 'log', 'info', 'debug', 'warn', 'error', 'trace']) {
      assert.equal(typeof (console as any)[name], 'function', name);
      for (const given of [[], ['x'], [undefined, Symbol('y')], [false, { a: 1 }]])
        if (given[0] !== undefined || !/count|time/.test(name)) assert.doesNotThrow(() => ours[name]!(...given), name);
    }
  });

  it('counts, asserts, groups and shows', () => {
    const { console: ours, lines } = written();
    for (const label of [undefined, 'x', 'x']) ours.count!(label);
    ours.countReset!('x');
    ours.count!('x');
    ours.assert!(true, 'not said');
    ours.assert!(false, 'said of %s', 'what');
    ours.assert!(false);
    ours.group!('a group');
    ours.groupEnd!();
    ours.dir!({ a: 1 }, { depth: 0 });
    ours.table!([{ a: 1 }]);
    assert.deepEqual(
      lines.map(([level, text]) => `${level} ${text}`),
      [
        ...['info default: 1', 'info x: 1', 'info x: 2', 'info x: 1'],
        ...['error Assertion failed: said of what', 'error Assertion failed'],
        ...['info a group', 'info { a: 1 }', 'info [{ a: 1 }]'],
      ],
    );
  });

  it('tells times where the clock is granted, and else which grant it wants', () => {
    let at = 1;
    const timed = written(() => at);
    timed.console.time!('load');
    at = 2.5;
    timed.console.timeLog!('load', 'half');
    timed.console.timeEnd!('load');
    timed.console.timeEnd!('load');
    assert.deepEqual(timed.lines, [
      ['info', 'load: 1.500ms half'],
      ['info', 'load: 1.500ms'],
      ['warn', "No such label 'load' for console.time()"],
    ]);
    const refused = written(() => {
      throw new GrantMissing({ grant: 'time', wanted: 'performance.now()' });
    });
    refused.console.time!();
    assert.match(refused.lines.join(), /^warn,.*grant.*: time/);
  });
});
