/**
 * TypeScript to JavaScript by stripping types, in place, so that lines and columns stay. It runs next to the code's own
 * cell, never in the agent: the source is a stranger's.
 */
import { stripTypeScriptTypes } from 'node:module';
import { SourceRejected } from '@hauki/protocol';

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
    throw new SourceRejected({ stage: 'parse', reason: `SyntaxError: ${message}${place}` });
  }
}

/** What the platform's own SyntaxError does not tell: where. Returns the error that does, or the one given. */
export function withPlace(error: unknown, source: string, name?: string): unknown {
  if (!(error instanceof SyntaxError)) return error;
  try {
    stripTypes(source, name);
    return error;
  } catch (placed) {
    return placed;
  }
}
