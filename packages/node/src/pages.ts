/** Lists that one message may not hold, in parts that it does. */
import { LIMITS } from '@hauki/protocol';

/** Of a part, as JSON: half of a message, so that an item of any legal size fits beside what stands around it. */
export const PAGE_BYTES = LIMITS.message_bytes / 2;

/** The first items that one part holds; at least one, where there is one. */
export function pageOf<T>(items: readonly T[], most_bytes: number = PAGE_BYTES): T[] {
  let bytes = 0;
  const end = items.findIndex((item, i) => {
    bytes += Buffer.byteLength(JSON.stringify(item)) + 1;
    return bytes > most_bytes && i > 0;
  });
  return items.slice(0, end < 0 ? items.length : end);
}
