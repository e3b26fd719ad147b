/** The text of a source file. */
import { isUtf8 } from 'node:buffer';
import { BadInput } from '@hauki/protocol';

/** What a source file has in it, as text. Throws BadInput where it is in another coding: it would be read as another text. */
export function sourceText(path: string, content: Buffer): string {
  if (isUtf8(content)) return content.toString('utf8');
  throw new BadInput({ what: path, why: 'it is not in UTF-8, the only coding that sources travel in: convert it' });
}
