/**
 * Bad plugins on purpose, and good ones beside them. `REJECTED` must not come past staging, and says at which stage each
 * is found; `CONTAINED` looks well until it is asked, and then harms nobody but itself. Python's are with its guest.
 *
 * It is longer than other files because it is a list: each entry is a few lines of source that belong together, and one
 * who adds an entry looks first whether it is there.
 */
import type { EvolveRequest } from '@hauki/mesh';

/** `vm`: in a QuickJS vault; `node`: in one of Node's, where there is more to try. */
export type Cell = 'vm' | 'node';
type More = Partial<Omit<EvolveRequest, 'target_module' | 'content' | 'driver'>>;

export interface Rejected {
  name: string;
  cells: Cell[];
  source: string;
  /** Where it must be found. */
  stage: RegExp;
  why: RegExp;
  more?: More;
  /** What serves before, and must still serve afterwards. */
  before?: string;
}

export interface Contained {
  name: string;
  cells: Cell[];
  source: string;
  more?: More;
  path?: string;
  /** How a request may end: these statuses, or 0 where its connection is cut. */
  ends: number[];
  /** What the whole answer must have in it. */
  says?: RegExp;
  /** Afterwards it answers `/well`, as a module that was only unlucky. */
  recovers?: boolean;
}

const both: Cell[] = ['vm', 'node'];
const vm: Cell[] = ['vm'];
const node: Cell[] = ['node'];
export const serving = (body: string) => `export default { async fetch(request) { ${body} } };`;
const fine = serving('return new Response("fine");');
/** Does something when it is asked, and answers `/well` well. */
const when = (body: string) =>
  serving(`if (new URL(request.url).pathname === '/well') return new Response('well'); ${body}`);

const STATE = `let n = 1; export default { fetch: () => new Response(String(n)) };`;
const HOOKED = `${STATE} export const dehydrate = () => ({ n }); export const hydrate = (given) => { n = given.n; };`;
/** Exponential for what nearly matches. */
const REGEX_BOMB = `/^(a+)+$/.test('a'.repeat(60) + '!');`;
const DEEP = 'const deep = (n) => deep(n + 1) + 1; deep(0);';
const MICROTASKS = 'const again = () => Promise.resolve().then(again); await again();';
const MEMORY = 'const kept = []; for (;;) kept.push(new Array(100_000).fill(kept.length).map((n) => ({ n })));';
const test = [{ path: '/', expect: { status: 200 } }];

export const REJECTED: Rejected[] = [
  { name: 'loops for ever as it loads', cells: both, source: `for (;;); ${fine}`, stage: /^load$/, why: /load|return/ },
  {
    name: 'queues microtasks for ever as it loads',
    cells: both,
    source: `${MICROTASKS} ${fine}`,
    stage: /^load$/,
    why: /load|return/,
  },
  {
    name: 'waits for ever as it loads',
    cells: vm,
    source: `await new Promise(() => {}); ${fine}`,
    stage: /^load$/,
    why: /load/,
  },
  {
    name: 'waits as it loads for a thenable that never settles',
    cells: node,
    source: `await { then() {} }; ${fine}`,
    stage: /^load$/,
    why: /load/,
  },
  {
    name: 'takes all memory as it loads',
    cells: both,
    source: `${MEMORY} ${fine}`,
    stage: /^load$/,
    why: /memory|heap/i,
  },
  {
    name: 'calls itself without end as it loads',
    cells: both,
    source: `${DEEP} ${fine}`,
    stage: /^load$/,
    why: /stack/i,
  },
  { name: 'has a regex bomb as it loads', cells: vm, source: `${REGEX_BOMB} ${fine}`, stage: /^load$/, why: /./ },
  { name: 'has a syntax error', cells: both, source: 'export default {\n  fetch( }', stage: /^parse$/, why: /./ },
  {
    name: 'has a syntax error in TypeScript',
    cells: both,
    source: 'export default { fetch(request: ): Response { return new Response() } };',
    more: { language: 'typescript' },
    stage: /^parse$/,
    why: /./,
  },
  {
    name: 'is no JavaScript at all',
    cells: vm,
    source: '#!/bin/sh\nrm -rf /\n',
    stage: /^(?:parse|load|exports)$/,
    why: /./,
  },
  {
    name: 'throws after it has exported all it should',
    cells: both,
    source: `${fine} await 0; throw new Error('too late');`,
    stage: /^load$/,
    why: /too late/,
  },
  {
    name: 'throws what cannot be shown',
    cells: both,
    source: `${fine} throw { toString() { throw 1 }, get name() { throw 2 }, get message() { throw 3 } };`,
    stage: /^load$/,
    why: /./,
  },
  { name: 'throws nothing', cells: vm, source: `${fine} throw undefined;`, stage: /^load$/, why: /./ },
  {
    name: 'hands its state over and takes none',
    cells: both,
    source: `${STATE} export const dehydrate = () => ({ n });`,
    stage: /^exports$/,
    why: /go together/,
  },
  {
    name: 'takes a state by what is no function',
    cells: vm,
    source: HOOKED.replace('(given) => { n = given.n; }', "'n'"),
    stage: /^exports$/,
    why: /go together/,
  },
  {
    name: 'comes after one whose state holds a function',
    cells: both,
    before: HOOKED.replace('({ n })', '({ n, again: () => n })'),
    source: HOOKED,
    stage: /^swap$/,
    why: /dehydrate failed: its state holds a function/,
  },
  { name: 'exports nothing', cells: both, source: 'const a = 1;', stage: /^exports$/, why: /default export/ },
  { name: 'exports null', cells: both, source: 'export default null;', stage: /^exports$/, why: /default export/ },
  { name: 'exports a text', cells: vm, source: `export default 'fetch';`, stage: /^exports$/, why: /default export/ },
  {
    name: 'exports a fetch that is no function',
    cells: both,
    source: 'export default { fetch: { call() {} } };',
    stage: /^exports$/,
    why: /default export/,
  },
  {
    name: 'exports a promise of what it should export',
    cells: vm,
    source: 'export default Promise.resolve({ fetch: () => new Response() });',
    stage: /^exports$/,
    why: /default export/,
  },
  {
    name: 'exports a class that throws',
    cells: both,
    source: `export default class { constructor() { throw new Error('not born'); } fetch() {} }`,
    stage: /^load$/,
    why: /not born/,
  },
  {
    name: 'exports a class whose constructor never returns',
    cells: vm,
    source: 'export default class { constructor() { for (;;); } fetch() {} }',
    stage: /^load$/,
    why: /./,
  },
  {
    name: 'exports a Proxy whose every trap throws',
    cells: both,
    source: `export default new Proxy({}, { get() { throw new Error('trap') }, has() { throw 1 }, getPrototypeOf() { throw 1 } });`,
    stage: /^load$/,
    why: /trap/,
  },
  {
    name: 'has a getter that throws in the place of fetch',
    cells: both,
    source: `export default { get fetch() { throw new Error('gotcha'); } };`,
    stage: /^load$/,
    why: /gotcha/,
  },
  {
    name: 'has routes that throw when they are read',
    cells: both,
    source: `${fine} export const routes = [{ get method() { throw new Error('no route'); } }];`,
    stage: /^routes$/,
    why: /no route/,
  },
  {
    name: 'reads its routes for ever',
    cells: vm,
    source: `export default { get routes() { for (;;); }, fetch: () => new Response() };`,
    stage: /^routes$/,
    why: /./,
  },
  {
    name: 'has no routes',
    cells: vm,
    source: `${fine} export const routes = [];`,
    stage: /^routes$/,
    why: /no routes/,
  },
  ...['GET /../../status', 'GET _neighbour/x', 'GET //x/%2e%2e/y', 'CONNECT /x', '__proto__ /x', 'GET /a\nb'].map(
    (route) => ({
      name: `names a route that would lie elsewhere: ${JSON.stringify(route)}`,
      cells: vm,
      source: `${fine} export const routes = [${JSON.stringify(route)}];`,
      stage: /^routes$/,
      why: /is no route/,
    }),
  ),
  {
    name: 'imports what is not there',
    cells: both,
    source: `import x from './neighbour.js'; ${fine}`,
    stage: /^(?:import|load)$/,
    why: /neighbour/,
  },
  {
    name: 'imports Node’s file system into a VM',
    cells: vm,
    source: `import fs from 'node:fs'; ${fine}`,
    stage: /^(?:import|load)$/,
    why: /node:fs/,
  },
  {
    name: 'imports from the network',
    cells: both,
    source: `import x from 'https://127.0.0.1:1/x.js'; ${fine}`,
    stage: /^(?:import|load)$/,
    why: /./,
  },
  {
    name: 'replaces what it is called by',
    cells: both,
    source: `Promise.prototype.then = () => { for (;;); }; globalThis.Response = class {}; JSON.parse = () => { throw 1; };
      ${fine}`,
    stage: /^(?:load|routes)$/,
    why: /./,
  },
  {
    name: 'fails the test that was posted with it',
    cells: both,
    source: fine,
    more: { tests: [{ path: '/', expect: { text: 'other' } }] },
    stage: /^tests$/,
    why: /no "other" in it/,
  },
  {
    name: 'answers its test with what is no Response',
    cells: both,
    source: serving('return { status: 200, headers: new Headers(), body: "like one" };'),
    more: { tests: test },
    stage: /^tests$/,
    why: /must return a Response/,
  },
  {
    name: 'loops for ever in its test',
    cells: both,
    source: serving('for (; request.url.endsWith("/ever"); ); return new Response("x");'),
    more: { tests: ['/', '/ever', '/after'].map((path) => ({ path, expect: {} })) },
    stage: /^tests$/,
    // No other test is told to have failed.
    why: /stage tests: GET \/ever: it did not end within (its time: [^;]*|10000 ms, and answered nothing else since)\. Nothing was changed/,
  },
  {
    name: 'answers its test with a body that never ends',
    cells: node,
    source: serving('return new Response(new ReadableStream({ pull() { return new Promise(() => {}) } }));'),
    more: { tests: test },
    stage: /^tests$/,
    why: /GET \/: it did not end within 10000 ms/,
  },
  {
    name: 'gives a test a thenable that never settles',
    cells: vm,
    source: 'export default { fetch: () => ({ then() {} }) };',
    more: { tests: test },
    stage: /^tests$/,
    why: /GET \/: it did not end within 10000 ms/,
  },
  { name: 'ends its process as it loads', cells: node, source: `process.exit(0); ${fine}`, stage: /^load$/, why: /./ },
  {
    name: 'aborts its process as it loads',
    cells: node,
    source: `process.abort(); ${fine}`,
    stage: /^load$/,
    why: /./,
  },
  {
    name: 'ends its process a moment after it has loaded',
    cells: node,
    source: `${fine} setImmediate(() => process.exit(0));`,
    stage: /^(?:load|routes|swap)$/,
    why: /./,
  },
  {
    name: 'squats a port as it loads',
    cells: node,
    source: `import net from 'node:net'; const server = net.createServer();
      await new Promise((resolve, reject) => server.once('error', reject).listen(8881, '0.0.0.0', resolve)); ${fine}`,
    stage: /^(?:import|load)$/,
    why: /./,
  },
  {
    name: 'hangs as it hydrates',
    cells: both,
    before: HOOKED,
    source: HOOKED.replace('n = given.n', 'return new Promise(() => {})'),
    stage: /^swap$/,
    why: /hydrate failed/,
  },
  {
    name: 'loops as it hydrates',
    cells: vm,
    before: HOOKED,
    source: HOOKED.replace('n = given.n', 'for (;;)'),
    stage: /^swap$/,
    why: /hydrate failed/,
  },
  {
    name: 'throws as it hydrates',
    cells: both,
    before: HOOKED,
    source: HOOKED.replace('n = given.n', `throw new Error('indigestible')`),
    stage: /^swap$/,
    why: /hydrate failed/,
  },
  {
    name: 'ends its process as it hydrates',
    cells: node,
    before: HOOKED,
    source: HOOKED.replace('n = given.n', 'process.exit(1)'),
    stage: /^swap$/,
    why: /hydrate failed: its vault ended: /,
  },
  {
    name: 'comes after one that hangs as it dehydrates',
    cells: vm,
    before: HOOKED.replace('({ n })', 'new Promise(() => {})'),
    source: HOOKED,
    stage: /^swap$/,
    why: /dehydrate failed/,
  },
  {
    name: 'comes after one with a huge state',
    cells: both,
    before: HOOKED.replace('({ n })', `'x'.repeat(5 * 1024 * 1024)`),
    source: HOOKED,
    stage: /^swap$/,
    // A VM may run out of its own memory first.
    why: /state has \d+ bytes|dehydrate failed/,
  },
  {
    name: 'comes after one whose state cannot be carried',
    cells: both,
    before: HOOKED.replace('({ n })', '({ get n() { throw new Error("poisoned"); } })'),
    source: HOOKED,
    stage: /^swap$/,
    why: /dehydrate failed/,
  },
];

export const CONTAINED: Contained[] = [
  {
    name: 'loops for ever at its first request',
    cells: both,
    source: when('for (;;);'),
    ends: [500, 502, 504],
    recovers: true,
  },
  { name: 'queues microtasks for ever', cells: both, source: when(MICROTASKS), ends: [500, 502, 504], recovers: true },
  { name: 'has a regex bomb', cells: vm, source: when(REGEX_BOMB), ends: [500, 502, 504], recovers: true },
  { name: 'takes all memory at a request', cells: both, source: when(MEMORY), ends: [500, 502], recovers: true },
  { name: 'calls itself without end', cells: both, source: when(DEEP), ends: [500], says: /stack/i, recovers: true },
  {
    name: 'never settles',
    cells: vm,
    source: when('await new Promise(() => {});'),
    ends: [502, 504],
    says: /DeadlineExceeded|OutcomeUnknown/,
    recovers: true,
  },
  {
    name: 'answers with a thenable that never settles',
    cells: node,
    source: when('return { then() {} };'),
    ends: [502, 504],
    says: /DeadlineExceeded|OutcomeUnknown/,
    recovers: true,
  },
  {
    name: 'throws what cannot be shown',
    cells: both,
    source: when(`throw { get message() { throw 1; }, toString() { throw 2; }, get name() { throw 3; } };`),
    ends: [500, 502],
    recovers: true,
  },
  { name: 'throws nothing', cells: both, source: when('throw undefined;'), ends: [500], recovers: true },
  {
    name: 'throws later, when nobody waits',
    cells: both,
    source: when(
      `setTimeout(() => { throw new Error('late'); }, 0); await new Promise((r) => setTimeout(r, 20)); return new Response('before');`,
    ),
    ends: [200, 500, 502],
    recovers: true,
  },
  {
    name: 'leaves a rejected promise behind',
    cells: both,
    source: when(`void Promise.reject(new Error('nobody waits')); return new Response('left');`),
    ends: [200],
    recovers: true,
  },
  {
    name: 'answers with what only looks like a Response',
    cells: both,
    source: when('return Object.create(Response.prototype);'),
    ends: [500, 502],
    recovers: true,
  },
  {
    name: 'answers with a Response whose status is none',
    cells: both,
    source: when('const r = new Response("x"); Object.defineProperty(r, "status", { value: 99_999 }); return r;'),
    ends: [200, 500, 502],
    recovers: true,
  },
  {
    name: 'answers with the status 100',
    cells: node,
    source: when('const r = new Response("x"); Object.defineProperty(r, "status", { value: 100 }); return r;'),
    ends: [200, 500, 502],
    recovers: true,
  },
  {
    name: 'answers with 500 headers',
    cells: both,
    source: when(
      'const h = new Headers(); for (let i = 0; i < 500; i++) h.append("x-" + i, "y"); return new Response("x", { headers: h });',
    ),
    ends: [500, 502],
    says: /too many headers/,
    recovers: true,
  },
  {
    name: 'answers with a header of 64 kilobytes',
    cells: both,
    source: when('return new Response("x", { headers: { "x-large": "y".repeat(64 * 1024) } });'),
    ends: [500, 502],
    says: /headers/,
    recovers: true,
  },
  {
    name: 'puts a line break into a header',
    cells: both,
    source: when('return new Response("x", { headers: { "x-a": "b\\r\\nx-injected: 1\\r\\n\\r\\nsmuggled" } });'),
    ends: [500, 502],
    recovers: true,
  },
  {
    name: 'puts a line break into a header’s name',
    cells: node,
    source: when('return new Response("x", { headers: { "x-a: b\\r\\nx-injected": "1" } });'),
    ends: [500, 502],
    recovers: true,
  },
  {
    name: 'says another length than its body has',
    cells: both,
    source: when(
      'return new Response("fair", { headers: { "content-length": "1", "transfer-encoding": "chunked" } });',
    ),
    ends: [200],
    says: /^fair$/,
    recovers: true,
  },
  {
    name: 'streams less than it said',
    cells: both,
    source: when(
      'return new Response(new ReadableStream({ start(c) { c.enqueue(new Uint8Array(3)); c.close(); } }), { headers: { "content-length": "1000000" } });',
    ),
    ends: [0],
    recovers: true,
  },
  {
    name: 'streams what are no chunks',
    cells: both,
    source: when('return new Response(new ReadableStream({ start(c) { c.enqueue({ not: "bytes" }); c.close(); } }));'),
    ends: [0, 500, 502],
    recovers: true,
  },
  {
    name: 'breaks off its body',
    cells: both,
    source: when(
      'return new Response(new ReadableStream({ pull(c) { if (this.n) throw new Error("off"); this.n = 1; c.enqueue(new Uint8Array(9)); } }));',
    ),
    ends: [0, 500, 502],
    recovers: true,
  },
  {
    name: 'kills its own process at a request',
    cells: node,
    source: when('process.kill(process.pid, "SIGKILL"); return new Response("x");'),
    // In an LXC vault it is the first process, which no signal of its own kills.
    ends: [200, 502],
    recovers: true,
  },
  {
    name: 'exits at a request',
    cells: node,
    source: when('process.exit(0);'),
    ends: [502],
    recovers: true,
  },
  {
    name: 'aborts its process at a request',
    cells: node,
    source: when('process.abort();'),
    ends: [502],
    recovers: true,
  },
  {
    name: 'squats a port at a request',
    cells: node,
    source: when(
      'const net = await import("node:net"); const s = net.createServer(); await new Promise((y, n) => s.once("error", n).listen(0, "127.0.0.1", y)); return new Response("squatted", { status: 201 });',
    ),
    ends: [500, 502],
    recovers: true,
  },
  {
    name: 'writes into every descriptor it finds',
    cells: node,
    source: when(
      'const fs = await import("node:fs"); for (let fd = 3; fd < 64; fd++) try { fs.writeSync(fd, "GET /api/status HTTP/1.1\\r\\n\\r\\n".repeat(100)); } catch {} return new Response("wrote");',
    ),
    ends: [200, 500, 502],
    recovers: true,
  },
  {
    name: 'closes every descriptor it finds',
    cells: node,
    source: when(
      'const fs = await import("node:fs"); for (let fd = 3; fd < 64; fd++) try { fs.closeSync(fd); } catch {} return new Response("closed");',
    ),
    ends: [200, 500, 502, 504],
  },
  {
    name: 'floods its log',
    cells: both,
    source: when('for (let i = 0; i < 20_000; i++) console.log("x".repeat(100) + i); return new Response("told");'),
    ends: [200, 500, 502],
    recovers: true,
  },
  {
    name: 'floods its log with one line',
    cells: both,
    source: when('console.error("x".repeat(8 * 1024 * 1024)); return new Response("told");'),
    ends: [200, 500, 502],
    recovers: true,
  },
  {
    name: 'floods its caller with one answer',
    cells: both,
    source: when('return new Response("x".repeat(200 * 1024 * 1024));'),
    more: { memory_mib: 512 },
    ends: [500, 502],
    recovers: true,
  },
  {
    name: 'pollutes the prototypes of its world',
    cells: both,
    source: `for (const proto of [Object.prototype, Array.prototype, Function.prototype])
        for (const name of ['polluted', 'status', 'headers', 'code', 'then2']) proto[name] = 'polluted';
      ${when('return Response.json(JSON.parse(\'{"__proto__": {"polluted": 1}}\'), { status: 202 });')}`,
    ends: [202, 500, 502],
  },
];

/** What must come through, in each cell. */
export const GOOD: { name: string; source: string; more?: More; says: string }[] = [
  { name: 'an object with fetch', source: fine, says: 'fine' },
  { name: 'a function', source: 'export default () => new Response("called");', says: 'called' },
  {
    name: 'a class',
    source: 'export default class { #word = "made"; fetch() { return new Response(this.#word); } }',
    says: 'made',
  },
  {
    name: 'TypeScript',
    source: 'const word: string = "typed"; export default { fetch: (_: Request): Response => new Response(word) };',
    more: { language: 'typescript' },
    says: 'typed',
  },
  {
    name: 'a module that waits as it loads',
    source: `const word = await new Promise((r) => setTimeout(r, 20, 'waited')); export default { fetch: () => new Response(word) };`,
    says: 'waited',
  },
  {
    name: 'a module with routes as Hono lists them',
    source: `export default { routes: [{ method: 'GET', path: '/users/:id{[0-9]+}' }, { method: 'ALL', path: '*' }], fetch: () => new Response('routed') };`,
    says: 'routed',
  },
  {
    name: 'a module that passes its tests',
    source: serving('return Response.json({ a: [1] }, { headers: { "x-a": "b" } });'),
    more: { tests: [{ path: '/', expect: { json: { a: [1] }, headers: { 'x-a': 'b' } } }] },
    says: '{"a":[1]}',
  },
  { name: 'a module with a state', source: HOOKED, says: '1' },
  {
    name: 'a body in pieces',
    source: serving(
      `return new Response(new ReadableStream({ start(c) { for (const t of ['a', 'b']) c.enqueue(new TextEncoder().encode(t)); c.close(); } }));`,
    ),
    says: 'ab',
  },
  {
    name: 'a large answer',
    source: serving('return new Response("y".repeat(1024 * 1024));'),
    says: 'y'.repeat(1024 * 1024),
  },
];
