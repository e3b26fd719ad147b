/** What the host sends a guest of a file or a body, in a message of JSON. */
import { isUtf8 } from 'node:buffer';
import { type Carried, carriedText } from '../guest/carried.ts';

/** As text where that is what it is, and no longer than base64. */
export const carried = (content: Buffer): Carried =>
  isUtf8(content) ? carriedText(content.toString('utf8')) : { base64: content.toString('base64') };
