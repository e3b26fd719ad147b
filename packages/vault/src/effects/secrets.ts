/**
 * Secrets that a guest uses and never sees: where it writes `{{secret:NAME}}` in a header or a body, the value is put in
 * when the request leaves for one of the hosts that it was given for. Nothing is ever compared with a value, and no text is
 * cleaned of it: whoever can put a guess into such a text would hear whether it is right. Instead whatever is said of a
 * request is made of what the guest wrote. What a server answers is the server's: one that echoes a secret tells it.
 */

import type { Grants } from '@hauki/protocol';
import { GrantMissing } from '@hauki/protocol';

const OPEN = '{{secret:';
const CLOSE = '}}';
const PLACEHOLDER = /\{\{secret:([A-Za-z_][A-Za-z0-9_]{0,63})\}\}/g;
/** The longest placeholder there is. */
const PLACEHOLDER_BYTES = OPEN.length + 64 + CLOSE.length;

/** Whether it asks for a secret, or may. */
export const asksFor = (given: string | Uint8Array): boolean =>
  typeof given === 'string'
    ? given.includes(OPEN)
    : Buffer.from(given.buffer, given.byteOffset, given.length).includes(OPEN);

export interface Secrets {
  /** Whether the text asks for a secret that may not go to the target (a canonical `host:port`). */
  withheld(text: string, target: string): boolean;
  /** The text with its secrets. Throws GrantMissing where one may not go to the target. */
  fill(text: string, target: string): string;
  /** The same for a body, piece by piece: what may be the beginning of a placeholder waits for the next piece. */
  fillBytes(pieces: AsyncIterable<Uint8Array>, target: string): AsyncGenerator<Uint8Array, void>;
  /** The same for a body that is there. */
  fillWhole(body: Uint8Array, target: string): Uint8Array;
}

/** `vault.grants` is asked each time: they may change. `given`: the values by name. */
export function secretsOf(vault: { readonly grants: Grants }, given: Readonly<Record<string, string>> = {}): Secrets {
  const values = new Map(Object.entries(given));
  const granted = (name: string, target: string): string | undefined =>
    vault.grants.secrets.some((grant) => grant.name === name && grant.to.includes(target))
      ? values.get(name)
      : undefined;
  const fill = (text: string, target: string): string =>
    text.replace(PLACEHOLDER, (_all, name: string) => {
      const value = granted(name, target);
      if (value !== undefined) return value;
      const known = vault.grants.secrets.some((grant) => grant.name === name);
      throw new GrantMissing({ grant: 'secrets', wanted: known ? `${name} to ${target}` : name });
    });

  return {
    fill,
    withheld: (text, target) =>
      [...text.matchAll(PLACEHOLDER)].some(([, name]) => granted(name!, target) === undefined),
    async *fillBytes(pieces, target) {
      let rest: Buffer = Buffer.alloc(0);
      for await (const piece of pieces) {
        const bytes =
          rest.length > 0 ? Buffer.concat([rest, piece]) : Buffer.from(piece.buffer, piece.byteOffset, piece.length);
        const until = bytes.length - unfinished(bytes);
        rest = Buffer.from(bytes.subarray(until));
        if (until > 0) yield filled(bytes.subarray(0, until), target);
      }
      if (rest.length > 0) yield filled(rest, target);
    },
    fillWhole: filled,
  };

  function filled(given: Uint8Array, target: string): Uint8Array {
    const bytes = Buffer.from(given.buffer, given.byteOffset, given.length);
    // Byte for byte, so that what is no text stays what it was.
    return asksFor(bytes)
      ? Buffer.from(
          bytes.toString('latin1').replace(PLACEHOLDER, (all) => Buffer.from(fill(all, target)).toString('latin1')),
          'latin1',
        )
      : bytes;
  }
}

/** How many bytes at the end may be a placeholder that goes on in what comes next. */
function unfinished(bytes: Buffer): number {
  const from = Math.max(0, bytes.length - PLACEHOLDER_BYTES + 1);
  const tail = bytes.toString('latin1', from);
  const open = tail.lastIndexOf(OPEN);
  if (open !== -1 && !tail.includes(CLOSE, open)) return tail.length - open;
  for (let length = Math.min(OPEN.length - 1, tail.length); length > 0; length--)
    if (OPEN.startsWith(tail.slice(-length))) return length;
  return 0;
}
