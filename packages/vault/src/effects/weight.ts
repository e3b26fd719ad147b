/** What the arguments of effects take of the agent's memory, and how much of a vault's bytes is worked on at once. */

/** What an object or a list takes besides what is in it, and what each thing in it takes besides itself: as V8 lays them. */
const [OBJECT_BYTES, MEMBER_BYTES] = [48, 8];

/**
 * About what a value takes in memory, `most` at most: no more of it is looked at then, and what contains itself, or
 * stands in many places, is no special case.
 */
export function weightOf(value: unknown, most: number): number {
  let weight = 0;
  for (const left = [value]; left.length > 0 && weight < most; ) {
    const next = left.pop();
    weight += MEMBER_BYTES;
    if (typeof next === 'string') weight += next.length;
    else if (typeof next === 'object' && next !== null) weight += OBJECT_BYTES + bytesWithin(next, left, most);
  }
  return Math.min(weight, most);
}

/** Of bytes how many there are. What an object consists of is laid with what is still to be looked at. */
function bytesWithin(object: object, left: unknown[], most: number): number {
  if (object instanceof ArrayBuffer || ArrayBuffer.isView(object)) return object.byteLength;
  const members = object instanceof Map ? [...object.keys(), ...object.values()] : membersOf(object);
  // What is too much by its number alone need not be laid.
  if (members.length * MEMBER_BYTES > most) return most;
  for (const member of members) left.push(member);
  return 0;
}

function membersOf(object: object): unknown[] {
  if (Array.isArray(object)) return object;
  if (object instanceof Set) return [...object];
  return object instanceof Error ? [object.cause, ...Object.values(object)] : Object.values(object);
}

/** Lets work in, in its order, as long as there is room for its bytes; one alone may have as many as it likes. */
export function roomInTurn(limit_bytes: number): <T>(bytes: number, work: () => Promise<T>) => Promise<T> {
  let under_way = 0;
  const waiting: { bytes: number; begin: () => void }[] = [];
  const go = () => {
    for (
      let [first] = waiting;
      first && (under_way === 0 || under_way + first.bytes <= limit_bytes);
      [first] = waiting
    ) {
      waiting.shift();
      under_way += first.bytes;
      first.begin();
    }
  };
  return async (bytes, work) => {
    await new Promise<void>((begin) => {
      waiting.push({ bytes, begin });
      go();
    });
    try {
      return await work();
    } finally {
      under_way -= bytes;
      go();
    }
  };
}
