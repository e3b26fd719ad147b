/** Why a signal was aborted, as it stands in the tag of one that was aborted before it was sent. */
import { describe, ProtocolViolation, Unserialisable } from '@hauki/protocol';
import type { Gives, Takes } from './codec.ts';
import { decodeValue } from './codec-decode.ts';
import { encodeValue } from './codec-encode.ts';

const why = 'the reason of an aborted signal refers to something';
const REFERS_TO_NOTHING: Gives & Takes = {
  frameless: true,
  give() {
    throw new Unserialisable({ why });
  },
  take() {
    throw new ProtocolViolation({ why });
  },
};
const NO_BYTES = new Uint8Array();

/** A reason as JSON; of one that cannot stand in a tag, an error with its words. */
export function toldReason(reason: unknown): unknown {
  for (const form of [reason, new Error(describe(reason))])
    try {
      const { text, bytes } = encodeValue(form, REFERS_TO_NOTHING);
      if (!bytes?.length) return JSON.parse(text);
    } catch {
      // In fewer words, then.
    }
  return null;
}

/** The reason of that; undefined where none was given. Throws ProtocolViolation. */
export const heardReason = (told: unknown): unknown => decodeValue(told, NO_BYTES, REFERS_TO_NOTHING) ?? undefined;
