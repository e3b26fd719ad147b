/** More than data: objects that stay in the vault, callbacks, streams both ways, and calls on results not there yet. */
import { connect, withOptions } from '@hauki/mesh';

const source = `
  class Account {
    #cents = 0;
    deposit(cents) { this.#cents += cents; return this; }
    balance() { return this.#cents; }
  }
  export const open = () => new Account();
  export const each = async (words, say) => { for (const word of words) await say(word.toUpperCase()); };
  export async function* count(to) { for (let i = 1; i <= to; i++) yield i; }
  export const sum = async (numbers) => { let all = 0; for await (const n of numbers) all += n; return all; };
  export const wait = () => new Promise((done) => hauki.call.signal.addEventListener('abort', done));`;

interface Bank {
  open(): { deposit(cents: number): ReturnType<Bank['open']>; balance(): number };
  each(words: string[], say: (word: string) => void): void;
  count(to: number): AsyncIterable<number>;
  sum(numbers: AsyncIterable<number>): number;
  wait(): void;
}

await using mesh = await connect();
const bank = mesh.clone<Bank>({ source });

// Four calls, one round trip: each goes on the result of the one before.
console.log('balance', await bank.open().deposit(40).deposit(2).balance());

await bank.each(['called', 'back'], (word) => console.log(word));

for await (const n of await bank.count(3)) console.log('streamed', n);
console.log('sum', await bank.sum(await bank.count(10)));

const signal = AbortSignal.timeout(50);
await withOptions(bank, { signal })
  .wait()
  .catch((error: Error) => console.log(error.name));
