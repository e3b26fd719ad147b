/**
 * Modules of a kernel that are changed all the time, by one changer each, and asked through the kernel's own port and the
 * core's gateway, while anything is killed. Which version may answer is known at each moment: the one that was acknowledged
 * last, and what a change that nobody answered may have come to.
 */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { type EvolveRequest, fromWire, type JournalEntry, type KernelDoor, type Mesh } from '@hauki/mesh';
import { faultOf } from '../../packages/microkernel/src/journal.ts';
import { digestOf, KILLED, type Load, type World } from './chaos-book.ts';

export interface KernelWorld extends World {
  mesh: Mesh;
  door: KernelDoor;
  /** As the mesh lists it. */
  kernel: string;
  kernel_token: string;
  mesh_token: string;
}

const EVOLVE_MS = 180_000;
const REQUEST_MS = 60_000;
/** A change may also find the kernel too busy to hand a state over, or what should give it dead. */
const CHANGE = [...KILLED, 'EvolveRejected'];
/** Through the core: a kernel that has not come back to it holds nothing that the core knows of. */
const GATEWAY = [...KILLED, 'ModuleUnknown'];

/** A request to a module; rejects with what the answer tells, as a MeshError. */
async function ask(url: string, token: string, method = 'GET'): Promise<{ answer: Response; text: string }> {
  let answer: Response;
  let text: string;
  try {
    answer = await fetch(url, {
      method,
      headers: { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(REQUEST_MS),
    });
    text = await answer.text();
  } catch (error) {
    // What a plain client sees of a killed server.
    if ((error as Error).name === 'TimeoutError') throw error;
    throw fromWire({
      code: -32003,
      message: String(error),
      data: { name: 'ConnectionLost', fields: { why: String(error) } },
    });
  }
  if (answer.ok) return { answer, text };
  throw fromWire(JSON.parse(text).error);
}

/** What may answer: each word for as long as it may. */
class Possible {
  readonly #until = new Map<string, number>();
  readonly sources = new Map<string, string>();
  add = (word: string) => this.#until.set(word, Number.POSITIVE_INFINITY);
  /** From now on this alone. */
  only(word: string): void {
    for (const [other, until] of this.#until)
      if (other !== word) this.#until.set(other, Math.min(until, performance.now()));
    this.add(word);
  }
  was = (word: string, since: number) => (this.#until.get(word) ?? 0) >= since;
  now = () => [...this.#until].filter(([, until]) => until === Number.POSITIVE_INFINITY).map(([word]) => word);
}

/** Changes one module, and asks it. `far`: through the core. */
export function module(
  world: KernelWorld,
  name: string,
  kind: { stateful: boolean; far: boolean; driver: string },
): Load {
  const { book, door, mesh, kernel, random, over } = world;
  const { stateful, far, driver } = kind;
  const may = new Possible();
  const words = new Map<number, string>();
  let adds = 0;
  /** Of the life that answered last. */
  let life = { id: '', n: 0 };
  const bases = new Map<string, Set<number>>();
  let recent: string[] = [];
  /** Since then it may have gone back to an earlier state. */
  let went_back = false;

  const source = (word: string) => `let n = 0, base = 0; const life = crypto.randomUUID(); const seen = {};
    ${stateful ? 'export const dehydrate = () => ({ n }); export const hydrate = (given) => { n = base = given.n; };' : ''}
    export default { routes: ['GET /${word}', 'POST /add/*', 'GET /'], async fetch(request) {
      const id = new URL(request.url).pathname.split('/')[2];
      if (request.method === 'POST') { n++; seen[id] = (seen[id] ?? 0) + 1; }
      return Response.json({ word: '${word}', life, base, n, times: seen[id] ?? 0 });
    } };`;
  const path = `/api/plugins/${name}/`;
  const near = { url: door.url + path, token: world.kernel_token, errors: [...KILLED, 'PluginFailed'] };
  const through = { url: mesh.core + path, token: world.mesh_token, errors: [...GATEWAY, 'PluginFailed'] };

  /** Whether an answer is one that may be, by what was acknowledged before it was asked for. */
  const judge = (began: number, { answer, text }: Awaited<ReturnType<typeof ask>>) => {
    const said = JSON.parse(text) as { word: string; life: string; base: number; n: number; times: number };
    if (!may.was(said.word, began))
      book.fault(`${name}: ${said.word} answered, where it may be ${may.now().join(' or ')}`);
    const { 'x-hauki-digest': digest } = Object.fromEntries(answer.headers);
    if (digest !== digestOf(may.sources.get(said.word) ?? ''))
      book.fault(`${name}: ${said.word} has the digest ${digest}`);
    return said;
  };
  /** One request that counts; one after the other. */
  const add = async ({ url, token, errors }: typeof near) => {
    const began = performance.now();
    const id = `${++adds}`;
    const asked = await book.tried(`${far ? 'far' : 'near'} POST`, REQUEST_MS, errors, () =>
      ask(`${url}add/${id}`, token, 'POST'),
    );
    if (!asked) return;
    const { word, life: by, base, n, times } = judge(began, asked.value);
    if (times !== 1) book.fault(`${name}: the request ${id} ran ${times} times`);
    if (n > adds) book.fault(`${name}: ${n} were counted, of ${adds}`);
    if (by === life.id && n <= life.n) book.fault(`${name}: ${n} were counted after ${life.n}`);
    if (by !== life.id && stateful) {
      const known = [...recent, word].some((one) => bases.get(one)?.has(base));
      if (life.id !== '' && base < life.n && !known && !went_back)
        book.fault(`${name}: ${word} began with ${base}, after ${life.n} had been counted`);
      bases.set(word, (bases.get(word) ?? new Set()).add(base));
      if (recent.at(-1) !== word) recent = [...recent, word].slice(-12);
    }
    if (by !== life.id) went_back = false;
    life = { id: by, n };
  };
  const change = async () => {
    const word = world.name(name);
    const content = source(word);
    may.sources.set(word, content);
    const goes_back = words.size > 2 && random() < 0.25;
    const before = may.now();
    for (const one of goes_back ? words.values() : [word]) may.add(one);
    const request: EvolveRequest = {
      ...{ target_module: `${name}.js`, content, driver, memory_mib: driver === 'quickjs' ? 8 : 64 },
      grants: { random: true },
    };
    // What the core did not hear of it takes back.
    went_back ||= goes_back || far;
    // Where it has gone back to its first version there is none before it.
    const may_be = goes_back ? [...CHANGE, 'BadInput'] : CHANGE;
    const changed = await book.tried(goes_back ? 'rollback' : 'evolve', EVOLVE_MS, may_be, async () => {
      const at = far ? mesh.kernels.door(kernel) : door;
      return goes_back ? at.rollback(name) : at.evolve(request);
    });
    if (!changed) return before;
    const { version, digest } = changed.value;
    if (!goes_back) words.set(version, word);
    // One that nobody was told of may be what it went back to.
    const serving = words.get(version) ?? [...may.sources].find(([, text]) => digestOf(text) === digest)?.[0];
    if (serving === undefined || digestOf(may.sources.get(serving)!) !== digest)
      book.fault(`${name}: version ${version} was told as ${digest}`);
    else may.only(serving);
    return before;
  };
  return {
    what: `module ${name}`,
    async run() {
      const changing = async () => {
        while (!over()) {
          await change();
          await sleep(random() * 1_500);
        }
      };
      const adding = async () => {
        while (!over()) {
          if (may.now().length > 0 && words.size > 0) await add(random() < 0.5 ? near : through);
          await sleep(random() * 120);
        }
      };
      const reading = async (at: typeof near) => {
        while (!over()) {
          const began = performance.now();
          if (words.size > 0) {
            const asked = await book.tried(at === near ? 'GET' : 'gateway GET', REQUEST_MS, at.errors, () =>
              ask(at.url, at.token),
            );
            if (asked) judge(began, asked.value);
          }
          await sleep(random() * 120);
        }
      };
      await Promise.all([changing(), adding(), reading(near), reading(through)]);
    },
    async check() {
      if (words.size === 0) return;
      for (const at of [near, through]) {
        const began = performance.now();
        const { word } = judge(began, await ask(at.url, at.token));
        const view = (await door.status()).modules.find((one) => one.module === name);
        assert.ok(view && view.state === 'serving', `${name} is ${view?.state}`);
        assert.deepEqual(
          view.live.filter(({ draining }) => !draining).map(({ digest, weight }) => [digest, weight]),
          [[digestOf(may.sources.get(word)!), 100]],
        );
        const { paths } = JSON.parse((await ask(`${door.url}/docs/json`, world.kernel_token)).text);
        const own = Object.keys(paths).filter((one) => one.startsWith(path));
        assert.ok(own.includes(`${path}${word}`), `${own}`);
        assert.deepEqual(
          own.filter((one) => /\/\w+-\d+$/.test(one)),
          [`${path}${word}`],
        );
        may.only(word);
      }
    },
  };
}

/** A module that comes and goes, and the journal, of which nothing is ever lost. */
export function journal({ book, door, random, over }: KernelWorld): Load {
  let there: boolean | undefined = false;
  let seen: JournalEntry[] = [];
  const acknowledged: { version: number; digest: string; module: string }[] = [];
  const held = async () => {
    const entries = await door.history();
    assert.equal(faultOf(entries), undefined);
    assert.deepEqual(entries.slice(0, seen.length), seen, 'what the journal has told it tells again');
    for (const { module, version, digest } of acknowledged)
      assert.ok(entries.some((one) => one.module === module && one.version === version && one.digest === digest));
    seen = entries;
  };
  return {
    what: 'journal',
    async run() {
      for (let n = 0; !over(); n++) {
        const content = `export default { fetch: () => new Response('${n}') }`;
        const was = there;
        there = undefined;
        if (was !== true) {
          const evolved = await book.tried('come', EVOLVE_MS, CHANGE, () =>
            door.evolve({ target_module: 'comes.js', content, driver: 'quickjs' }),
          );
          if (evolved) {
            there = true;
            acknowledged.push(evolved.value);
          }
        } else if (await book.tried('go', EVOLVE_MS, [...KILLED, 'ModuleUnknown'], () => door.remove('comes')))
          there = false;
        await book.tried('journal', REQUEST_MS, KILLED, held);
        await sleep(random() * 1_500);
      }
    },
    async check() {
      await held();
      const is = (await door.status()).modules.some((one) => one.module === 'comes');
      if (there !== undefined) assert.equal(is, there, 'a module is there that was removed, or the other way round');
    },
  };
}
