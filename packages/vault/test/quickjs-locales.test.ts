/** What a quickjs vault has not: it says so, where else it would answer something else than Node without a word. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { runInThisContext } from 'node:vm';
import { type Lab, openLab } from './quickjs-support.ts';

// As in vaults.
process.env.TZ = 'UTC';
const RUN = `export const run = (code) => { try { return (0, eval)(code); } catch (error) { return [error.name, error.message]; } };`;

describe('what depends on locales, in a quickjs vault', () => {
  let lab: Lab;
  before(async () => {
    lab = await openLab('locales');
  });
  after(() => lab[Symbol.asyncDispose]());

  it('is as in Node where it is the same in any case', async () => {
    const worker = await lab.worker(RUN);
    for (const code of [
      "'Straße'.toLocaleUpperCase() + 'ÄB'.toLocaleLowerCase('de') + 'i'.toLocaleUpperCase('en-US')",
      "(1234567).toLocaleString() + ' ' + (-1234.5).toLocaleString('en-US') + ' ' + (0.125).toLocaleString('en')",
      "(12345678901234567890n).toLocaleString('en-US')",
      "[1, 1234.5, 'x'].toLocaleString() + new Float64Array([1e6]).toLocaleString()",
      "['b', 'a'].sort((a, b) => a.localeCompare(b)).join() + 'a'.localeCompare('a')",
      "[0.1 + 0.2, 1234.5678, 999.9995, 1.0005, -0, -0.0004, 1e21, 2 ** 80, 1e-7, 5e-324, NaN, -Infinity].map((n) => n.toLocaleString()).join(' ')",
      "[0n, -1234n, 100n, 10n ** 30n].map((n) => n.toLocaleString()).join(' ')",
      "[0, Date.UTC(2024, 10, 23, 13, 5, 9), Date.UTC(-1, 0, 3), NaN].flatMap((t) => ['', 'Date', 'Time'].map((w) => new Date(t)['toLocale' + w + 'String']())).join()",
      "new Date(0).toLocaleDateString('en-US') + ' ' + new Date(0).toLocaleTimeString('en-US')",
      'typeof Intl + typeof RegExp.prototype',
    ]) {
      const here = code.includes('Intl') ? 'undefinedobject' : runInThisContext(code);
      assert.equal(await worker.call('run', code), here, code);
    }
  });

  it('orders texts as Node does: whatever is ASCII, and letters with their accents', async () => {
    const worker = await lab.worker(RUN);
    const ascii = Array.from({ length: 128 }, (_, code) => String.fromCharCode(code));
    const words = [
      'b',
      'C',
      'a',
      'B',
      'ä',
      'Ab',
      'ab',
      'äb',
      '',
      'a-b',
      'a b',
      'a1',
      'a10',
      'résumé',
      'resume',
      'Résumé',
      'ñ',
      'n',
      'o',
    ];
    for (const all of [ascii, words, ['file10', 'File2', 'file2', '\u0001file2', 'file']]) {
      const code = `(${JSON.stringify(all)}).flatMap((one, i, all) => all.map((other) => one.localeCompare(other))).join()`;
      assert.equal(await worker.call('run', code), runInThisContext(code), all.join());
    }
  });

  it('is refused where it needs Intl, and it is said who has that', async () => {
    const worker = await lab.worker(RUN);
    for (const code of [
      "'a'.localeCompare('B', 'de')",
      "'a'.localeCompare('A', undefined, { sensitivity: 'base' })",
      "'i'.toLocaleUpperCase('tr')",
      "'I'.toLocaleLowerCase(['lt'])",
      "(1234.5).toLocaleString('de-DE')",
      "(5).toLocaleString('en-US', { style: 'currency', currency: 'USD' })",
      '(5n).toLocaleString(undefined, { minimumIntegerDigits: 3 })',
      "[1].toLocaleString('de')",
      "new Uint8Array(1).toLocaleString('de')",
      "new Date(0).toLocaleString('en-US', { timeZone: 'Europe/Berlin' })",
      "new Date(0).toLocaleDateString('de')",
      "new Date(0).toLocaleTimeString([], { hour: '2-digit' })",
    ]) {
      const [name, message] = await worker.call('run', code);
      assert.equal(name, 'TypeError', code);
      assert.match(message, /no Intl in quickjs vaults; lxc and process vaults have it/, code);
    }
  });

  it('and the last match of a regular expression, which nobody keeps, is refused too', async () => {
    const worker = await lab.worker(RUN);
    for (const code of ["/(a)/.test('a') && RegExp.$1", 'RegExp.$9']) {
      const [name, message] = await worker.call('run', code);
      assert.deepEqual([name, /match\(\) or exec\(\)/.test(message)], ['TypeError', true], code);
    }
  });

  it('and modules of Node’s are refused by name, with their line', async () => {
    const rejected = (source: string) =>
      lab.worker(source).then(
        () => assert.fail('it was taken'),
        (error: Error) => error.message,
      );
    const why = await rejected("export const a = 1;\nimport { readFileSync } from 'node:fs';");
    assert.match(why, /"node:fs" is Node's: lxc and process vaults have it.*worker\.mjs:2/);
    assert.match(await rejected("import x from 'left-pad';"), /"left-pad" cannot be imported here\. Bundle it in.*:1/);
  });
});
