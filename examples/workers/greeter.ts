/** A worker is a class with methods, or exported functions. What it may do in the world, its caller grants. */
import { titled } from './titles.ts';

export default class Greeter {
  #greeted = 0;

  greet(name: string): string {
    this.#greeted++;
    return `Hello, ${titled(name)}!`;
  }

  count(): number {
    return this.#greeted;
  }

  /** Called once when the worker is let go of gently; a destruct does not wait for it. */
  onEnd(reason: string): void {
    console.log(`ending after ${this.#greeted} greetings: ${reason}`);
  }
}
