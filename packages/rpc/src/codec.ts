/**
 * Values on the wire of Mesh-RPC. Plain JSON travels as it is (literal); what JSON cannot say is tagged
 * (`{"$": [kind, …]}`), bytes travel beside the text, and what does something goes by reference. Either the same value
 * arrives, or an error says why not. docs/protocol.md has the tags, docs/vectors/values.json examples of each.
 */

/** What encoding asks of its session for values that go by reference. */
export interface Gives {
  /**
   * Called for what goes by reference: functions, objects with a `kindOf`, and what `claims` claims. Gives the tag's
   * list to write, e.g. `['mine', 4, 'function']`, or throws Unserialisable or Overloaded.
   */
  give(value: object): unknown[];
  /** Asked for functions and everything that is no plain object, before anything else touches it: whether to `give` it. */
  claims?(value: object): boolean;
  /** Called when encoding fails after `give` was called: nothing of this message will be sent. */
  undo?(): void;
  /** Errors go without their frames: files and lines here are no business of the other side's. */
  readonly frameless?: boolean;
}

/** The same for decoding. */
export interface Takes {
  /** The value for a tag 'mine', 'yours' or 'result' that came in. Throws ProtocolViolation. */
  take(tag: unknown[]): unknown;
}

export interface Encoded {
  /** JSON text of the value. */
  text: string;
  /** The attachments, to be laid end to end; undefined: the text is literal. */
  bytes: Uint8Array[] | undefined;
}

/** Members of an error that have their own place, so that its other properties cannot stand in for them. */
export const ERROR_MEMBERS: readonly string[] = ['name', 'message', 'stack', 'cause', 'errors'];

/** Sets an own property, also one called `__proto__`; hidden as `message` is on errors where it is not `enumerable`. */
export function put(object: object, key: string | number, value: unknown, enumerable = true): void {
  if (enumerable && key !== '__proto__') (object as Record<string | number, unknown>)[key] = value;
  else Object.defineProperty(object, key, { value, writable: true, enumerable, configurable: true });
}
