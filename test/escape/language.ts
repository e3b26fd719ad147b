/**
 * Attempts against the language: out of the VM by what the host hands in, and at the caller by what a worker answers.
 * The control hands the same code the same things by `node:vm`, whose contexts share the host's objects.
 */
import vm from 'node:vm';
import type { DriverName } from '../support/mesh.ts';
import { type Attempt, judged, type Outcome } from './table.ts';
import type { World } from './world.ts';

/** Only where code shares an engine with its host is there something to climb along. */
const VM = { quickjs: 'messages, no shared objects' };
const ALL: Partial<Record<DriverName, string>> = {
  quickjs: 'results are data',
  lxc: 'results are data',
  process: 'results are data',
};

/** Whether a global object is one of the host. */
const IS_HOST = `const isHost = (g) => { try { return !!g && !!(g.process ?? g.require ?? g.Deno) } catch { return false } };`;

const CLIMBS: [string, string][] = [
  [
    'Function constructor chain',
    `for (const thing of [hauki.log, hauki.fetch, hauki.meshfs.resolve, hauki.meshfs, hauki, console.log])
       if (isHost(thing.constructor.constructor('return this')())) return 'OPEN';
     return 'its own globals only'`,
  ],
  [
    'Promise constructor chain',
    `const promise = hauki.meshfs.resolve('gem-pointer://wiki/none'); promise.catch(() => {});
     return isHost(promise.constructor.constructor('return this')()) ? 'OPEN' : 'its own globals only'`,
  ],
  [
    'async and generator constructor chains',
    `const made = hauki.fetch('http://192.0.2.1/'); made.catch(() => {});
     for (const make of [hauki.fetch.constructor, hauki.log.constructor, made.then.constructor]) {
       const result = await make('return this')();
       if (isHost(result)) return 'OPEN';
     } return 'its own globals only'`,
  ],
  [
    'constructor chain of an error of the host',
    `try { await hauki.meshfs.resolve(Symbol('not a pointer')); } catch (error) {
       return isHost(error.constructor.constructor('return this')()) ? 'OPEN' : 'its own globals only';
     } return 'no error came'`,
  ],
  [
    'prepareStackTrace',
    `let found = 'no frames of the host';
     Error.prepareStackTrace = (_, frames) => {
       for (const frame of frames) for (const thing of [frame.getThis?.(), frame.getFunction?.()])
         if (thing && isHost(thing.constructor.constructor('return this')())) found = 'OPEN';
     };
     void new Error('look').stack; delete Error.prepareStackTrace; return found`,
  ],
];

/** As naive hosts do it: functions of the host, in a context of node:vm; called from a function in sloppy mode. */
function inNodeVm(body: string): Promise<Outcome> {
  return judged('\0', async () => {
    const hauki = {
      log() {},
      fetch: async () => ({}),
      meshfs: {
        resolve: async (pointer: unknown) => {
          if (typeof pointer !== 'string') throw new TypeError('not a pointer');
          return {};
        },
      },
    };
    const context = vm.createContext({ hauki, console: { log: () => {} } });
    const attempt = vm.runInContext(`(async () => { ${IS_HOST} ${body}\n})`, context);
    return await new Function('attempt', 'return attempt()')(attempt);
  });
}

/** A result of a worker, and what it does to whoever takes it as it is. */
const POLLUTING = '{"__proto__":{"polluted":"yes"},"constructor":{"prototype":{"polluted":"yes"}}}';

const RESULTS: { name: string; body: string; naive(): unknown }[] = [
  {
    name: 'prototype pollution across the bridge',
    body: `return JSON.parse(${JSON.stringify(POLLUTING)})`,
    naive: () =>
      vm.runInNewContext(`
        const merge = (into, from) => { for (const key in from) {
          if (typeof from[key] === 'object') merge(into[key] ??= {}, from[key]); else into[key] = from[key]; } return into };
        merge({}, JSON.parse(${JSON.stringify(POLLUTING)}));
        ({}).polluted === 'yes' ? 'OPEN' : 'not polluted'`),
  },
  {
    name: 'a hostile getter in a result',
    body: `return { get x() { globalThis.haukiEscapeTouched = true; throw new Error('from the getter'); } }`,
    naive: () =>
      vm.runInNewContext(
        `let touched = 'not run'; const result = { get x() { touched = 'OPEN'; } }; void result.x; touched`,
      ),
  },
  {
    name: 'a hostile Proxy in a result',
    body: `return new Proxy({}, { get: () => { throw new Error('trap') }, ownKeys: () => { throw new Error('trap') } })`,
    naive: () =>
      vm.runInNewContext(
        `let touched = 'not run'; const result = new Proxy({}, { get() { touched = 'OPEN'; } }); void result.x; touched`,
      ),
  },
];

/** Takes a result apart as a caller would, and tells what it did to this process. */
function takeApart(result: unknown): string {
  const before = Object.getOwnPropertyNames(Object.prototype).length;
  JSON.stringify(result);
  structuredClone(result);
  const walk = (value: unknown): boolean =>
    typeof value === 'object' &&
    value !== null &&
    Object.values(Object.getOwnPropertyDescriptors(value)).some((one) => one.get !== undefined || walk(one.value));
  if (walk(result)) return 'OPEN: a getter came over';
  if (({} as { polluted?: unknown }).polluted !== undefined) return 'OPEN: polluted';
  if ('haukiEscapeTouched' in globalThis) return 'OPEN: its code ran here';
  return Object.getOwnPropertyNames(Object.prototype).length === before ? 'data only' : 'OPEN: a property was added';
}

export function languageAttempts(world: World): Attempt[] {
  const source = (body: string) => `${IS_HOST}\nexport const attempt = async () => { ${body}\n};`;
  return [
    ...CLIMBS.map(
      ([name, body]): Attempt => ({
        name,
        by: VM,
        run: (driver) => judged('\0', () => world.ask(driver, source(body), world.facts)),
        control: { what: 'the same in node:vm', run: () => inNodeVm(body) },
      }),
    ),
    ...RESULTS.map(
      ({ name, body, naive }): Attempt => ({
        name,
        by: ALL,
        run: (driver) => judged('\0', async () => takeApart(await world.ask(driver, source(body), world.facts))),
        control: { what: 'taken as it is', run: () => judged('\0', async () => naive()) },
      }),
    ),
  ];
}
