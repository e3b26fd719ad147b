/**
 * Text that holds nothing but JSON, written and read in fewer steps than by copying and parsing all of it: most calls and
 * answers are no more than a few numbers and words. Pages do without (`plain-text-browser.ts`); `#plain-text` chooses.
 *
 * What always holds: what comes out is what the long way gives, or undefined, and then the long way is taken.
 */
import { isMarked } from './references.ts';
import type { IncomingMessage } from './session-rest.ts';

/** Items of a list that are written one by one, and characters of a text, up to which this pays off. */
const FEW = { items: 16, chars: 4096 };
/** Items of a longer list, and characters of all its texts: far below what a message has. */
const MANY = { items: 4096, chars: 1024 * 1024 };

/**
 * The JSON text of a value that is a word of JSON's own, or a list of such, of whose items one may be a list of words
 * itself; undefined for anything else.
 */
export function plainText(value: unknown): string | undefined {
  try {
    return Array.isArray(value) ? listText(value) : wordText(value);
  } catch {
    return undefined; // A proxy refused: the long way says which.
  }
}

function wordText(value: unknown): string | undefined {
  switch (typeof value) {
    case 'string':
      return value.length <= FEW.chars ? JSON.stringify(value) : undefined;
    case 'number':
      return value - value === 0 && (value !== 0 || 1 / value > 0) ? `${value}` : undefined;
    case 'boolean':
      return value ? 'true' : 'false';
  }
  return value === null ? 'null' : undefined;
}

/** Whether it is copied, item by item. */
const isList = (list: unknown[]): boolean =>
  Object.getPrototypeOf(list) === Array.prototype &&
  !isMarked(list) &&
  !(Symbol.asyncIterator in list || 'next' in list);

function listText(list: unknown[]): string | undefined {
  const { length } = list;
  if (!isList(list)) return undefined;
  if (!(length <= FEW.items)) return longText(list, length);
  let text = '';
  let nested = false;
  for (let i = 0; i < length; i++) {
    const item = list[i];
    let word = wordText(item);
    // With two of them one list could stand in two places.
    if (word === undefined && !nested && Array.isArray(item) && isList(item)) {
      nested = true;
      word = longText(item, item.length);
    }
    if (word === undefined) return undefined;
    text = i === 0 ? word : `${text},${word}`;
  }
  return `[${text}]`;
}

/** The text of a list of words alone: looked at one by one, so that each is read once, and written together. */
function longText(list: unknown[], length: number): string | undefined {
  if (!(length <= MANY.items)) return undefined;
  const words: unknown[] = [];
  let chars = 0;
  for (let i = 0; i < length; i++) {
    const word = list[i];
    switch (typeof word) {
      case 'string':
        chars += word.length;
        break;
      case 'number':
        if (!(word - word === 0 && (word !== 0 || 1 / word > 0))) return undefined;
        break;
      case 'boolean':
        break;
      default:
        if (word !== null) return undefined;
    }
    words.push(word);
  }
  return chars <= MANY.chars && !('toJSON' in words) ? JSON.stringify(words) : undefined;
}

const HEAD = '{"jsonrpc":"2.0","id":';
const RESULT = ',"result":';
const METHOD = ',"method":"';
const PARAMS = '","params":';

/**
 * A call or an answer in the form in which we write it, read without its head; undefined for anything else. What stands
 * between head and brace must be one JSON value: then the text is that message, whatever it holds.
 */
export function readPlain(text: string): IncomingMessage | undefined {
  const last = text.length - 1;
  if (!text.startsWith(HEAD) || text.charCodeAt(last) !== 0x7d) return undefined;
  let at = HEAD.length;
  let id = 0;
  for (let digit = text.charCodeAt(at) - 48; digit >= 0 && digit <= 9; digit = text.charCodeAt(++at) - 48) {
    if (digit === 0 && id === 0) return undefined;
    id = id * 10 + digit;
  }
  // Longer ones are rounded by whoever parses them.
  if (id === 0 || at - HEAD.length > 15) return undefined;
  if (text.startsWith(RESULT, at)) {
    const result = read(text, at + RESULT.length, last);
    return result === NONE ? undefined : { id, result };
  }
  // With more than a list of parameters it ends otherwise.
  if (text.charCodeAt(last - 1) !== 0x5d || !text.startsWith(METHOD, at)) return undefined;
  at += METHOD.length;
  const end = text.indexOf('"', at);
  const method = text.slice(at, end);
  if (method.includes('\\') || !text.startsWith(PARAMS, end)) return undefined;
  const params = read(text, end + PARAMS.length, last);
  return params === NONE ? undefined : { id, method, params };
}

/** The message that a text is. Throws for what is not JSON. */
export const readMessage = (text: string): IncomingMessage => readPlain(text) ?? JSON.parse(text);

const NONE = Symbol('no JSON');

function read(text: string, from: number, to: number): unknown {
  try {
    return JSON.parse(text.slice(from, to));
  } catch {
    return NONE;
  }
}
