/** Names in paths of the core's API. Apart from `http.ts`, which pages load at once. */
import { BadInput } from '@hauki/protocol';

/** A name as one part of a path; none or dots there would be the path of another route. Throws BadInput. */
export function pathPart(what: string, name: string): string {
  if (typeof name === 'string' && name.isWellFormed() && !/^\.{0,2}$/.test(name)) return encodeURIComponent(name);
  throw new BadInput({ what, why: `${JSON.stringify(name)} is no name` });
}
