/**
 * What content is: its media type and, for source, its language; said by the writer or told by the pointer's ending.
 *
 * What always holds: a language never contradicts the ending that a pointer spells out (`wiki.ts` refuses it).
 */
import { BadInput, endingOf, type Pointer } from '@hauki/protocol';
import { MESHFS_LIMITS } from './limits.ts';

const BINARY = 'application/octet-stream';

/** Other kinds that an ending tells, for raw content whose writer said nothing. */
const MEDIA: Readonly<Record<string, string>> = {
  '.md': 'text/markdown',
  '.txt': 'text/plain; charset=utf-8',
  '.json': 'application/json',
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.csv': 'text/csv; charset=utf-8',
  '.xml': 'application/xml',
  '.svg': 'image/svg+xml',
  '.yaml': 'application/yaml',
  '.yml': 'application/yaml',
  '.toml': 'application/toml',
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.jpeg': 'image/jpeg',
  '.gif': 'image/gif',
  '.webp': 'image/webp',
  '.pdf': 'application/pdf',
  '.zip': 'application/zip',
  '.gz': 'application/gzip',
  '.tar': 'application/x-tar',
  '.wasm': 'application/wasm',
  '.mp3': 'audio/mpeg',
  '.mp4': 'video/mp4',
  '.webm': 'video/webm',
};

const PLAIN = 'text/plain; charset=utf-8';

/** The languages of workers and plugins. The first ending is the one that a readable file gets. */
export const LANGUAGES: Readonly<Record<string, { media_type: string; endings: readonly string[] }>> = {
  typescript: { media_type: 'text/typescript', endings: ['.ts'] },
  javascript: { media_type: 'text/javascript', endings: ['.js', '.mjs'] },
  python: { media_type: 'text/x-python', endings: ['.py'] },
  lpc: { media_type: 'text/x-lpc', endings: ['.c', '.lpc'] },
};

export interface Described {
  media_type: string;
  language?: string;
  /** Prose that people read, as opposed to source and data. */
  is_document: boolean;
}

/** Works out what the content of `pointer` is. Throws `BadInput` for a media type or language that cannot be one. */
export function describeContent(pointer: Pointer, given: { media_type?: string; language?: string }): Described {
  const said = checked(given.media_type, 'media_type');
  const essence = said?.replace(/;.*$/, '').trim().toLowerCase();
  const ending = endingOf(pointer.segments.at(-1)!);
  // Whoever says "markdown" means prose, also about a page called `config.js`.
  const inferred = languageOf((of) => of.media_type === essence) ?? languageOf((of) => of.endings.includes(ending));
  const language = checked(given.language, 'language') ?? (essence === 'text/markdown' ? undefined : inferred);
  const in_prose = essence === undefined || essence === 'text/markdown' || essence === 'text/plain';
  const is_document = language === undefined && in_prose;
  const usual = is_document && pointer.space === 'wiki' && ending !== '.txt' ? 'text/markdown' : PLAIN;
  const media_type =
    said ?? (language !== undefined && Object.hasOwn(LANGUAGES, language) ? LANGUAGES[language]!.media_type : usual);
  return language === undefined ? { media_type, is_document } : { media_type, language, is_document };
}

/** What raw content of `pointer` is when its writer says nothing: as its ending tells, else bytes. */
export function describeRaw(pointer: Pointer): Described {
  const ending = endingOf(pointer.segments.at(-1)!);
  const by_language = languageOf((of) => of.endings.includes(ending)) !== undefined;
  return describeContent(pointer, by_language ? {} : { media_type: MEDIA[ending] ?? BINARY });
}

function languageOf(fits: (language: { media_type: string; endings: readonly string[] }) => boolean) {
  return Object.entries(LANGUAGES).find(([, language]) => fits(language))?.[0];
}

/** What a language may be called. */
export const LANGUAGE_NAME = /^[A-Za-z][A-Za-z0-9+#._-]{0,31}$/;

function checked(given: unknown, what: 'media_type' | 'language'): string | undefined {
  if (given === undefined || given === null) return undefined;
  if (typeof given !== 'string') throw new BadInput({ what, why: 'it is not a text' });
  if (what === 'language') {
    if (LANGUAGE_NAME.test(given)) return given.toLowerCase();
    throw new BadInput({ what, why: `it is not one word. Known are ${Object.keys(LANGUAGES).join(', ')}` });
  }
  const shape = /^[\w.+-]+\/[\w.+-]+( *;[\x20-\x7e]*)?$/;
  if (given.length <= MESHFS_LIMITS.media_type_chars && shape.test(given)) return given;
  throw new BadInput({ what, why: 'it does not look like type/subtype' });
}
