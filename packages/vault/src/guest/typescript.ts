/**
 * TypeScript to JavaScript by stripping types, in place, so that lines and columns stay. It runs next to the code's own
 * cell, never in the agent: the source is a stranger's.
 */
import { stripTypeScriptTypes } from 'node:module';
import { isError, SourceRejected } from '@hauki/protocol';

const TYPED = 'it is TypeScript: say language "typescript"';

/** The source without types; JavaScript passes unchanged. Throws SourceRejected (parse) with `name`, line and text. */
export function stripTypes(source: string, name = 'worker.mjs'): string {
  try {
    return stripTypeScriptTypes(source, { mode: 'strip' });
  } catch (error) {
    const { message, stack } = error as Error;
    // The parser puts ":LINE", the line and a marker before its message.
    const line = Number(/^:(\d+)\n/.exec(stack ?? '')?.[1]);
    const text = source.split('\n')[line - 1]?.trim().slice(0, 120);
    const place = text === undefined ? '' : ` (at ${name}:${line}: ${text})`;
    const hint = message.endsWith(' in strip-only mode') ? '. Give it as a file, which is compiled, or do without' : '';
    throw new SourceRejected({ stage: 'parse', reason: `SyntaxError: ${message}${place}${hint}` });
  }
}

/** What the platform's own SyntaxError does not tell: where. Returns the error that does, or the one given. */
export function withPlace(error: unknown, source: string, name?: string, language = 'javascript'): unknown {
  if (!(error instanceof SyntaxError)) return error;
  let stripped: string;
  try {
    stripped = stripTypes(source, name);
  } catch (placed) {
    return placed;
  }
  // It parses as TypeScript: what is none of JavaScript are its types, or else decorators, which stay.
  const typed = stripped !== source && language === 'javascript';
  const decorated = error.message === 'Invalid or unexpected token';
  const at = typed ? firstDifference(source, stripped) : decorated ? source.search(/^[\t ]*@[\w(]/m) : -1;
  if (at < 0) return error;
  const line = source.slice(0, at).split('\n').length;
  const hint = typed ? TYPED : 'JavaScript engines have no decorators yet: compile them first';
  const text = source.split('\n')[line - 1]!.trim().slice(0, 120);
  const place = `(at ${name ?? 'worker.mjs'}:${line}: ${text})`;
  return new SourceRejected({ stage: 'parse', reason: `SyntaxError: ${error.message} ${place}. Perhaps ${hint}` });
}

/** The refusal of a source that does not parse as JavaScript, with a hint where it does as TypeScript. */
export function hinted(refusal: unknown, source: string): unknown {
  if (!isError(refusal, SourceRejected) || refusal.fields.stage !== 'parse') return refusal;
  try {
    if (stripTypes(source) === source) return refusal;
  } catch {
    return refusal;
  }
  return new SourceRejected({ stage: 'parse', reason: `${refusal.fields.reason}. Perhaps ${TYPED}` });
}

function firstDifference(one: string, other: string): number {
  let at = 0;
  while (one[at] === other[at]) at++;
  return at;
}
