/** Names of headers: what is asked of each for every message, known for those that come again and again. */
import { HEADER_NAME } from '@hauki/protocol';

/** What speaks of one connection, and stays on it (RFC 9110, 7.6.1). */
const HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
]);

/** What is done with a header of an answer, by its name. */
export type NameKind = 'sent' | 'date' | 'length' | 'hop' | 'none';

/** Whether a header stays on its connection; its name in lower case. */
export const isHop = (name: string): boolean => HOP.has(name);

/** Names that are remembered: those of applications are few; others are looked at each time. */
const REMEMBERED = 512;
const known = new Map<string, NameKind>();

/** The kind of a header's name in any letter case; `none`: it cannot be one. */
export function kindOfName(name: string): NameKind {
  const remembered = known.get(name);
  if (remembered !== undefined) return remembered;
  const lower = name.toLowerCase();
  const kind = !HEADER_NAME.test(name)
    ? 'none'
    : lower === 'date'
      ? 'date'
      : lower === 'content-length'
        ? 'length'
        : isHop(lower)
          ? 'hop'
          : 'sent';
  if (known.size < REMEMBERED && name.length <= 64) known.set(name, kind);
  return kind;
}
