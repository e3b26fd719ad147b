/**
 * Clients that have opened a WebSocket and not said who they are yet: a browser's WebSocket sends no header of its own, and
 * a token has no place in a URL, where logs would keep it. So the first message is text, `{"token": "…"}`.
 *
 * What always holds: of those who have not said it there are few; the oldest gives way to another.
 */
import { LIMITS, Unauthorised } from '@hauki/protocol';

/** Closed to make room for another stranger: "try again later" (IANA's registry of close codes). */
const TRY_AGAIN = 1013;

interface Stranger {
  close(code: number, reason: string): void;
}

export class Strangers {
  /** The oldest first. */
  readonly #all = new Set<Stranger>();

  /** The token that a client's first message brings. Rejects with Unauthorised, or as `first` does. */
  async token(client: Stranger, first: () => Promise<string>): Promise<string> {
    this.#all.add(client);
    if (this.#all.size > LIMITS.strangers)
      for (const oldest of this.#all) {
        this.#all.delete(oldest);
        oldest.close(TRY_AGAIN, 'others want in');
        break;
      }
    try {
      const { token } = JSON.parse(await first()) ?? {};
      if (typeof token === 'string' && /^[\x21-\x7e]{1,256}$/.test(token)) return token;
      throw new SyntaxError();
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      throw new Unauthorised({ why: 'The first message is to be {"token": "…"}. `hauki token` prints it' });
    } finally {
      this.#all.delete(client);
    }
  }
}
