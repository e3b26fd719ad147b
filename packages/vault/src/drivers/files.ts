/** Looks at files of this machine that may not be there: what is missing, or may not be read, is nothing. */
import { readdirSync, readFileSync } from 'node:fs';

/** The text of a file; undefined where it cannot be read. */
export function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** The names in a folder. */
export function list(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}
