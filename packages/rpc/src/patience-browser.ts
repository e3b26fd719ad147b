/** What pages have in place of `patience.ts`: nothing waits, and a peer that has too much to read is cut off. */
import type { ServerPowers } from './server.ts';

export class Patience {
  readonly full = false;
  readonly #powers: ServerPowers;

  constructor(powers: ServerPowers) {
    this.#powers = powers;
  }

  whenRead(_urgent: boolean, run: () => void): void {
    run();
  }

  lets(_chars: number): boolean {
    return !this.#powers.wire.refusal();
  }
}
