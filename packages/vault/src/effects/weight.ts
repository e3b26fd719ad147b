/** What the arguments of effects take of the agent's memory, and how much of a vault's bytes is worked on at once. */

/** What an object or a list takes besides what is in it, and what each thing in it takes besides itself: as V8 lays them. */
const [OBJECT_BYTES, MEMBER_BYTES] = [48, 8];

/**
 * About what a value takes in memory, `most` at most. What stands in many places, or contains itself, is held once and
 * counts once: so it takes no longer than a look at each thing that there is.
 */
export function weightOf(value: unknown, most: number): number {
  const seen = new Set<object>();
  const left: object[] = [];
  let weight = 0;
  const lay = (value: unknown) => {
    weight += MEMBER_BYTES;
    if (typeof value === 'string') weight += value.length;
    if (typeof value !== 'object' || value === null || seen.has(value)) return;
    seen.add(value);
    weight += OBJECT_BYTES;
    left.push(value);
  };
  lay(value);
  for (let next = left.pop(); next && weight < most; next = left.pop()) {
    if (next instanceof ArrayBuffer || ArrayBuffer.isView(next)) {
      weight += next.byteLength;
      continue;
    }
    const members = membersOf(next);
    for (let i = 0; i < members.length && weight < most; i++) lay(members[i]);
  }
  return Math.min(weight, most);
}

function membersOf(object: object): unknown[] {
  if (Array.isArray(object)) return object;
  if (object instanceof Set) return [...object];
  if (object instanceof Map) return [...object.keys(), ...object.values()];
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
