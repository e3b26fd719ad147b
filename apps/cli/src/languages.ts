/** What the ending of a file's name says of its language. */
import { LANGUAGE_ENDINGS, type Language } from '@hauki/protocol';

const ENDING = /\.([a-z]+)$/;

/** Undefined where it says nothing. */
export const languageOf = (file: string): Language | undefined => LANGUAGE_ENDINGS.get(ENDING.exec(file)?.[1] ?? '');

/** A name without the ending that says its language. */
export const withoutEnding = (name: string): string => (languageOf(name) ? name.replace(ENDING, '') : name);
