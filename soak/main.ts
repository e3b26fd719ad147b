/**
 * `npm run soak -- NAME [arguments]`: runs one soak, a long test against a random schedule, to its end or its first fault.
 * What a run in full length has shown is kept in bench/results/, beside the benchmarks.
 */
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { keepResult } from '../bench/harness.ts';

/** What a soak comes to that has met no fault. */
export interface Soaked {
  /** What was done, in numbers. */
  report: object;
  /** What always held, in words. */
  shown: string;
  /** Where it was done in several parts: how long all of them took. */
  took_s?: number;
  /** Whether it was the soak in full length; where it is left out, a soak is that if it got no arguments. */
  whole?: boolean;
}

const folder = fileURLToPath(new URL('.', import.meta.url));
const names = readdirSync(folder)
  .filter((file) => file.endsWith('.ts') && file !== 'main.ts')
  .map((file) => file.slice(0, -'.ts'.length));
const [name, ...args] = process.argv.slice(2);
if (name === undefined || !names.includes(name)) {
  console.error(`Usage: npm run soak -- NAME [arguments], where NAME is one of: ${names.join(', ')}`);
  process.exit(2);
}
const { run } = (await import(`./${name}.ts`)) as { run(args: string[]): Promise<Soaked> };
const began = performance.now();
const soaked = await run(args);
const { report, shown, took_s = Math.round((performance.now() - began) / 1000), whole = args.length === 0 } = soaked;
const result = { took_s, report, shown };
console.log(JSON.stringify(result, undefined, 2));
if (whole) keepResult(`soak-${name}`, result);
