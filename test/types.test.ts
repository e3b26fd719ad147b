/**
 * What TypeScript knows of ghosts: `mesh.clone<T>()` gives T's methods, each with its promise, and nothing else. The
 * compiler is the test (`npm run check` reads this file); here at run time it only has to load.
 */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { Ghost, Mesh, PendingGhost, withOptions } from '@hauki/mesh';

/** True only when the two are the same type. */
type Equal<A, B> = (<X>() => X extends A ? 1 : 2) extends <X>() => X extends B ? 1 : 2 ? true : false;
type Not<T extends boolean> = T extends true ? false : true;
const holds = <_T extends true>(): void => {};

// The tool itself (positive controls).
holds<Equal<string, string>>();
holds<Not<Equal<string, number>>>();
holds<Not<Equal<any, number>>>();
// @ts-expect-error: what is false does not pass.
holds<Equal<string, number>>();

class Scout {
  private seen = 0;
  readonly label = 'scout';
  protected hidden(): number {
    return this.seen;
  }
  look(where: string, times = 1): string[] {
    return Array(times).fill(`${where} ${this.hidden()}`);
  }
  async later(): Promise<number> {
    return 1;
  }
  nothing(): void {}
  maybe(flag?: boolean): string | Promise<number> {
    return flag ? 'now' : Promise.resolve(1);
  }
  many(...all: number[]): Map<string, number> | null {
    return all.length > 0 ? new Map() : null;
  }
  get count(): number {
    return this.seen;
  }
  static shared(): void {}
}

// A ghost has T's methods, each with a promise.
holds<Equal<Ghost<Scout>['look'], (where: string, times?: number) => Promise<string[]>>>();
holds<Equal<Ghost<Scout>['later'], () => Promise<number>>>();
holds<Equal<Ghost<Scout>['nothing'], () => Promise<void>>>();
holds<Equal<ReturnType<Ghost<Scout>['maybe']>, Promise<string | number>>>();
holds<Equal<Parameters<Ghost<Scout>['many']>, number[]>>();
// No fields, getters, statics or what is not public; and it can be disposed of.
holds<
  Equal<
    keyof Ghost<Scout>,
    'look' | 'later' | 'nothing' | 'maybe' | 'many' | typeof Symbol.asyncDispose | typeof Symbol.dispose
  >
>();

// What awaiting gives is a ghost that is no thenable, in every way of awaiting.
holds<Equal<Awaited<PendingGhost<Scout>>, Ghost<Scout>>>();
holds<Equal<Awaited<Ghost<Scout>>, Ghost<Scout>>>();
holds<Equal<'then' extends keyof Ghost<Scout> ? true : false, false>>();
holds<Equal<'then' extends keyof PendingGhost<Scout> ? true : false, true>>();

// A module's type works like a class's, and an interface's, and that of a plain object.
type Values = typeof import('../packages/rpc/src/values.ts');
holds<Equal<Ghost<Values>['encode'], (value: unknown) => Promise<string>>>();
interface Shop {
  buy(what: string): { price: number };
  readonly open: boolean;
}
holds<Equal<keyof Ghost<Shop>, 'buy' | typeof Symbol.asyncDispose | typeof Symbol.dispose>>();
const plain = { add: (a: number, b: number) => a + b, n: 5 };
holds<Equal<Ghost<typeof plain>['add'], (a: number, b: number) => Promise<number>>>();

interface Account {
  deposit(cents: number): Account;
  balance(): number;
}
interface Bank {
  open(): Account;
  teller(): Scout;
  sums(): { all: number; each: number[] };
  list(): { all: number }[];
}

/** Never called: the compiler reads it. */
export async function uses(mesh: Mesh, withTheir: typeof withOptions): Promise<void> {
  const pending = mesh.clone<Scout>('gem-pointer://wiki/workers/scout');
  holds<Equal<typeof pending, PendingGhost<Scout>>>();

  // Called at once, or after awaiting: the same.
  const early = await pending.look('north');
  holds<Equal<typeof early, string[]>>();
  const scout = await pending;
  holds<Equal<typeof scout, Ghost<Scout>>>();
  const twice = await scout.look('south', 2);
  holds<Equal<typeof twice, string[]>>();
  const given = await (async () => scout)();
  holds<Equal<typeof given, Ghost<Scout>>>();
  await using disposed = scout;
  await disposed.later();

  for (const ghost of [pending, scout]) {
    // @ts-expect-error: `where` is a text.
    await ghost.look(5);
    // @ts-expect-error: `where` is missing.
    await ghost.look();
    // @ts-expect-error: there is no third parameter.
    await ghost.look('north', 1, 2);
    // @ts-expect-error: no such method.
    await ghost.fly();
    // @ts-expect-error: a field is not there from afar.
    ghost.label;
    // @ts-expect-error: neither is a getter.
    ghost.count;
    // @ts-expect-error: nor what is protected.
    ghost.hidden();
    // @ts-expect-error: nor what is static.
    ghost.shared();
    // @ts-expect-error: a ghost has no properties to set.
    ghost.look = async () => [];
  }
  // @ts-expect-error: the answer is a promise.
  const wrong: string[] = scout.look('north');
  // @ts-expect-error: a ghost is no promise; only the pending one is.
  scout.then(() => {});
  pending.catch((error: unknown) => error);
  pending.finally(() => {});

  const hurried = withTheir(scout, { timeout_ms: 500 });
  holds<Equal<typeof hurried, Ghost<Scout>>>();
  const hurried_pending = withTheir(pending, { timeout_ms: 500 });
  holds<Equal<typeof hurried_pending, PendingGhost<Scout>>>();
  // @ts-expect-error: no such option.
  withTheir(scout, { timeout: 500 });

  const values = mesh.clone<Values>({ source: '' });
  const text = await values.encode(1);
  holds<Equal<typeof text, string>>();

  // Without a type every method may be called.
  const loose = mesh.clone('gem-pointer://wiki/workers/scout');
  await loose.anything!(1, 'two');

  // What has methods stays where it is, and is let go of.
  const bank = mesh.clone<Bank>({ source: '' });
  using account = await bank.open();
  await using teller = await bank.teller();
  holds<Equal<Awaited<ReturnType<typeof account.balance>>, number>>();
  const total: number = await bank.open().deposit(40).deposit(2).balance();
  // @ts-expect-error: data is not held.
  using sums = await bank.sums();
  // @ts-expect-error: nor is a list of it.
  using list = await bank.list();
  void [teller, total, sums, list];

  const visited = mesh.visit<Scout>('w-1');
  holds<Equal<typeof visited, PendingGhost<Scout>>>();
  await mesh.destruct(scout);
  await mesh.destruct(pending);
  await mesh.destruct('w-1');
  // @ts-expect-error: neither a ghost nor a name.
  await mesh.destruct(5);
  // @ts-expect-error: not where a worker comes from.
  mesh.clone<Scout>(5);
  void wrong;
}

it('the types of ghosts are checked by the compiler, and this module loads', () => {
  assert.equal(typeof uses, 'function');
  assert.equal(typeof Scout, 'function');
});
