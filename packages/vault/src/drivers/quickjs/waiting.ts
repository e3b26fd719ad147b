/** What is for a VM that may not be entered now: in order, and within a bound. */
import type { Entry } from './image.ts';
import { HOLD_UP, WAITING } from './limits.ts';

export type Argument = number | string | Uint8Array;
interface Waits {
  entry: Entry;
  args: Argument[];
  size: number;
}

export class Waiting {
  readonly #list: Waits[] = [];
  #bytes = 0;

  /** False when it is more than may wait. */
  add(entry: Entry, args: Argument[]): boolean {
    const size = args.reduce<number>((sum, arg) => sum + (typeof arg === 'number' ? 8 : arg.length), 0);
    this.#bytes += size;
    this.#list.push({ entry, args: args.map((arg) => (arg instanceof Uint8Array ? arg.slice() : arg)), size });
    return this.#list.length <= WAITING.entries && this.#bytes <= WAITING.bytes;
  }

  next(): Waits | undefined {
    const next = this.#list.shift();
    if (next) this.#bytes -= next.size;
    return next;
  }

  /** Who can be held up must be, before it is more than may wait. */
  get are_many(): boolean {
    return this.#list.length > HOLD_UP.entries || this.#bytes > HOLD_UP.bytes;
  }

  clear(): void {
    this.#list.length = 0;
    this.#bytes = 0;
  }
}
