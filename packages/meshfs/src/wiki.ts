/**
 * Which slot and which readable file a wiki pointer has.
 *
 * A slot is found by the pointer's name (`…/notes` and `…/notes.md`: slot `notes`) and holds one thing, with one file,
 * for ever; the first write decides which:
 *   - a document: `notes` → `notes.md`; `notes.txt` stays. Its canonical pointer is that of the file.
 *   - a source: `web_scout` in TypeScript → file `web_scout.ts`, canonical pointer `…/web_scout`, exactly as written.
 *   - other data: its own ending where the wiki knows it (`.json`, …), else `.txt` is added, or `.bin` to
 *     what is no text; pointer as written.
 * So no two things can shadow one another. In one slot a later write of another kind is refused, since it would want
 * another file. Two slots that want the same file (`web_scout` in TypeScript and `web_scout.ts`) are refused too: the
 * later one is told of the earlier. Names that differ in letter case alone are the same file on many machines, so they
 * are one slot, and only its first spelling is accepted. A folder is never called like a file (`parsePointer`).
 */
import { documentFile, endingOf, isDocumentFile, type Pointer, PointerInvalid, WIKI_ENDINGS } from '@hauki/protocol';
import { type Described, LANGUAGES } from './media.ts';

export interface WikiPlace {
  /** The canonical text of the pointer, now that it is known what it holds. */
  pointer: string;
  /** The readable file, relative to the wiki folder, parted by `/`. */
  file: string;
}

/** Where content of this kind goes under this pointer. Throws `PointerInvalid` where name and kind contradict. */
export function placeInWiki(pointer: Pointer, content: Described): WikiPlace {
  const page = pointer.segments.at(-1)!;
  const folder = pointer.segments.slice(0, -1).join('/');
  if (content.is_document) {
    const file = `${folder}/${documentFile(page)}`;
    return { pointer: `gem-pointer://wiki/${file}`, file };
  }
  return { pointer: pointer.text, file: `${folder}/${sourceFile(pointer, page, content)}` };
}

function sourceFile(pointer: Pointer, page: string, { language, media_type }: Described): string {
  const ending = endingOf(page);
  const known = language !== undefined && Object.hasOwn(LANGUAGES, language) ? LANGUAGES[language] : undefined;
  if (ending === '.md' || (known && isDocumentFile(page))) {
    throw new PointerInvalid({
      pointer: pointer.text,
      why: `a ${ending} page is a document, not ${language ?? media_type}`,
    });
  }
  if (known) {
    if (known.endings.includes(ending)) return page;
    const other = Object.entries(LANGUAGES).find(([, one]) => one.endings.includes(ending))?.[0];
    if (other === undefined) return page + known.endings[0];
    throw new PointerInvalid({
      pointer: pointer.text,
      why: `it ends in ${ending}, as ${other} does, and not ${language}`,
    });
  }
  if (WIKI_ENDINGS.has(ending)) return page;
  return `${page}${/^(text\/|application\/(json|xml|yaml|toml)\b|[^;]*\+(json|xml)\b)/.test(media_type) ? '.txt' : '.bin'}`;
}

/** The key of a pointer's record. */
export function keyOf(pointer: Pointer): string {
  return pointer.space === 'wiki' ? fold(pointer.name) : pointer.name;
}

/** What all spellings share that a file system without letter case takes for one name. */
export function fold(name: string): string {
  return name.toUpperCase().toLowerCase().normalize('NFC');
}

/** The keys of all slots that may have this file: the file's own name, and the name without the ending. */
export function keysThatMayHave(file: string): string[] {
  return [fold(`wiki/${file}`), fold(`wiki/${stemOf(file)}`)];
}

/** A file without its ending: what its rivals have in common. */
export function stemOf(file: string): string {
  return file.slice(0, file.length - endingOf(file.slice(file.lastIndexOf('/') + 1)).length);
}
