/**
 * What a `gem-pointer://<space>/<path>` is: its one canonical spelling, and what is refused before any store sees it.
 *
 * What always holds: `parsePointer` throws nothing but `PointerMissing` and `PointerInvalid`; parsing canonical text
 * gives the same pointer again; no segment is empty, `.`, `..` or anything that some system reads as one of these, and
 * none holds a separator, a control, an invisible or a bidirectional character. Nothing is ever percent-decoded:
 * whatever looks encoded is refused, so that no later decoder can find another meaning in it.
 *
 * Wiki pointers name a slot that is either a document or a source. `…/notes` and `…/notes.md` share the slot `notes`
 * (`Pointer.name`); which of the two it holds is decided by the first write (see `@hauki/meshfs`, `wiki.ts`).
 * The space `wiki` also obeys the file systems of all platforms, because its content becomes readable files.
 */
import { PointerInvalid, PointerMissing } from './errors.ts';

/** The bounds of a pointer. They stand here because this file is the only one that checks them. */
export const POINTER_LIMITS = {
  /** UTF-8 bytes of the whole text: well inside every URL, header and path limit. */
  bytes: 1024,
  /** UTF-8 bytes of one segment: file systems allow 255, and an ending and a temporary name must still fit. */
  segment_bytes: 200,
  /** Folders are walked one by one, each held open while its child is. */
  segments: 32,
} as const;

/** Endings that a readable file of the wiki may have. A folder may not have one: a file could want its place. */
export const WIKI_ENDINGS = new Set(
  (
    'md txt ts js mjs py c lpc json html css csv xml svg yaml yml toml ' +
    'png jpg jpeg gif webp ico pdf zip gz tar wasm woff2 mp3 mp4 webm bin'
  )
    .split(' ')
    .map((ending) => `.${ending}`),
);

export interface Pointer {
  /** The canonical text. */
  readonly text: string;
  /** The first part, in small letters: `wiki`, `workers`, … */
  readonly space: string;
  /** The rest, split at `/`. A wiki pointer has its project first and ends with its page, `readme.md` if none was named. */
  readonly segments: readonly string[];
  /** What all spellings of it share: `<space>/<path>`, for the wiki without the `.md` that a document gets anyway. */
  readonly name: string;
}

const encoder = new TextEncoder();
const bytesOf = (text: string): number => encoder.encode(text).length;

// Controls, format characters (all bidi controls are among them), private and unassigned code points, and whatever
// else is drawn as nothing: two pointers that look alike must be alike.
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u;
const ENCODED = /%[0-9a-f]{2}/i;
const DEVICE = /^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)/i;

/** Reads a pointer. Throws `PointerMissing` where there is none and `PointerInvalid`, saying why, where it is wrong. */
export function parsePointer(given: unknown): Pointer {
  if (given === undefined || given === null || given === '') throw new PointerMissing({});
  if (typeof given !== 'string') throw new PointerInvalid({ pointer: `(${typeof given})`, why: 'it is not a text' });
  const refuse = (why: string): never => {
    throw new PointerInvalid({ pointer: given.slice(0, 256).toWellFormed(), why });
  };

  const too_long = `it is longer than ${POINTER_LIMITS.bytes} bytes`;
  if (given.length > POINTER_LIMITS.bytes || bytesOf(given) > POINTER_LIMITS.bytes) refuse(too_long);
  if (!given.isWellFormed()) refuse('it holds half of a surrogate pair');
  const text = given.normalize('NFC');
  if (UNSEEN.test(text)) refuse('it holds a control, an invisible or a bidirectional character');
  if (text.includes('\\')) refuse('it holds a backslash; segments are parted by /');
  if (ENCODED.test(text)) refuse('it holds a percent-encoded character; write the character itself');
  if (/[?#]/.test(text)) refuse('? and # are reserved');

  const parts = /^gem-pointer:\/\/([^/]*)(?:\/(.*))?$/i.exec(text);
  if (parts === null) return refuse('it does not begin with gem-pointer://');
  const space = parts[1]!.toLowerCase();
  if (!/^[a-z0-9][a-z0-9._-]{0,62}$/.test(space)) {
    refuse('the part after gem-pointer:// must be a word of letters, digits, dots, hyphens and underscores');
  }
  const path = parts[2] ?? '';
  const segments = path === '' ? [] : path.split('/');
  if (space === 'wiki') addDefaultPage(segments, refuse);
  else if (segments.length === 0) refuse(`it names nothing in ${space}`);
  if (segments.length > POINTER_LIMITS.segments) refuse(`it has more than ${POINTER_LIMITS.segments} segments`);
  for (const segment of segments) checkSegment(segment, refuse);
  if (space !== 'wiki') return finish(space, segments, segments, too_long, refuse);

  const last = segments.length - 1;
  segments.forEach((segment, at) => {
    checkWikiSegment(segment, at < last, refuse);
  });
  segments[last] = segments[last]!.replace(/\.(md|txt)$/i, (ending) => ending.toLowerCase());
  // The spelling that a document gets is measured too: what was written can then always be read back by it.
  const document = [...segments.slice(0, last), documentFile(segments[last]!)];
  checkSegment(document[last]!, refuse);
  return finish(space, segments, document, too_long, refuse);
}

/** The file name of a document: `.md` is added where neither `.md` nor `.txt` stands. */
export function documentFile(page: string): string {
  return isDocumentFile(page) ? page : `${page}.md`;
}

/** Whether a name ends as only a document's does. */
export function isDocumentFile(page: string): boolean {
  return /\.(md|txt)$/i.test(page);
}

/** The ending of a page or file name, in small letters and with its dot; empty when there is none. */
export function endingOf(page: string): string {
  const dot = page.lastIndexOf('.');
  return dot > 0 ? page.slice(dot).toLowerCase() : '';
}

type Refuse = (why: string) => never;

function addDefaultPage(segments: string[], refuse: Refuse): void {
  if (segments.length === 0) refuse('a wiki pointer names a project: gem-pointer://wiki/project/page');
  if (segments.length === 1) segments.push('readme.md');
  else if (segments.at(-1) === '') segments[segments.length - 1] = 'readme.md';
}

function checkSegment(segment: string, refuse: Refuse): void {
  if (segment === '') refuse('it has an empty segment');
  if (bytesOf(segment) > POINTER_LIMITS.segment_bytes) {
    refuse(`a segment is longer than ${POINTER_LIMITS.segment_bytes} bytes`);
  }
  if (segment.trim() !== segment) refuse('a segment begins or ends with a space');
  // Also as seen by whoever folds look-alikes: a full-width stop or a two-dot leader is no way up either.
  const plain = segment.normalize('NFKC');
  if (/^[.\s]+$/.test(plain)) refuse('a segment of dots alone leads elsewhere');
  if (/[/\\]/.test(plain)) refuse('a segment holds a character that some systems read as a separator');
}

function checkWikiSegment(segment: string, is_folder: boolean, refuse: Refuse): void {
  if (/[<>:"|*]/.test(segment)) refuse('a wiki name holds one of < > : " | * that not every file system can keep');
  if (segment.startsWith('.')) refuse('a wiki name begins with a dot; hidden names are kept for Hauki itself');
  if (segment.endsWith('.')) refuse('a wiki name ends with a dot, which some file systems drop');
  if (DEVICE.test(segment)) refuse(`${segment} is the name of a device on Windows`);
  if (is_folder && WIKI_ENDINGS.has(endingOf(segment))) refuse(`the folder ${segment} has the name of a file`);
}

function finish(space: string, segments: string[], longest: string[], too_long: string, refuse: Refuse): Pointer {
  if (bytesOf(`gem-pointer://${space}/${longest.join('/')}`) > POINTER_LIMITS.bytes) refuse(too_long);
  const path = segments.join('/');
  const bare = path.replace(/\.md$/, '');
  const name = space === 'wiki' && documentFile(bare) === path ? bare : path;
  return { text: `gem-pointer://${space}/${path}`, space, segments, name: `${space}/${name}` };
}
