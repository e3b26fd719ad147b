/**
 * Secrets that a guest uses and never sees: where it writes `{{secret:NAME}}` in a header or a body, the value is put in
 * when the request leaves for one of the hosts that it was given for. It is taken out of whatever is said about that
 * request. What a server answers is the server's: one that echoes a secret tells it.
 */

import type { Grants } from '@hauki/protocol';
import { GrantMissing } from '@hauki/protocol';

const OPEN = '{{secret:';
const CLOSE = '}}';
const PLACEHOLDER = /\{\{secret:([A-Za-z_][A-Za-z0-9_]{0,63})\}\}/g;
/** The longest placeholder there is. */
const PLACEHOLDER_BYTES = OPEN.length + 64 + CLOSE.length;

export interface Secrets {
  /** Whether the text asks for a secret that may not go to the target (a canonical `host:port`). */
  withheld(text: string, target: string): boolean;
  /** The text with its secrets. Throws GrantMissing where one may not go to the target. */
  fill(text: string, target: string): string;
  /** The same for a body, piece by piece: what may be the beginning of a placeholder waits for the next piece. */
  fillBytes(pieces: AsyncIterable<Uint8Array>, target: string): AsyncGenerator<Uint8Array, void>;
  /** The same for a body that is there. */
  fillWhole(body: Uint8Array, target: string): Uint8Array;
  /** The text without the values. */
  clean(text: string): string;
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
  const written = [...values].flatMap(([name, value]) => formsOf(value).map((form) => [form, name] as const));
  // The longest first: one may stand in another.
  written.sort(([a], [b]) => b.length - a.length);
  const names = new Map(written.map(([form, name]) => [form.toLowerCase(), name]));
  const anywhere = written.length > 0 ? new RegExp(written.map(([form]) => RegExp.escape(form)).join('|'), 'gi') : /$^/;

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
    clean: (text) => text.replace(anywhere, (form) => `${OPEN}${names.get(form.toLowerCase()) ?? '?'}${CLOSE}`),
  };

  function filled(given: Uint8Array, target: string): Uint8Array {
    const bytes = Buffer.from(given.buffer, given.byteOffset, given.length);
    // Byte for byte, so that what is no text stays what it was.
    return bytes.includes(OPEN)
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

/** How a value may come back in a message: as it is, in a URL, in JSON, in base64. */
function formsOf(value: string): string[] {
  const plain = [value, encodeURIComponent(value.toWellFormed()), JSON.stringify(value).slice(1, -1)];
  const bytes = Buffer.from(value);
  return [...new Set([...plain, bytes.toString('base64'), bytes.toString('base64url')])];
}
