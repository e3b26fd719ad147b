/**
 * What was thrown, as it travels: what `fromWire` reads (`errors.ts`). It stands apart because pages, which only call,
 * never load it.
 */
import { MeshError, ownFrames, RemoteError, type WireError } from './errors.ts';

/** The `error` member for anything thrown. Guests' own errors become RemoteError; nothing else of them travels. */
export function toWire(thrown: unknown): WireError {
  let name = 'Error';
  let message = 'a value that cannot be shown was thrown';
  let stack: string | undefined;
  try {
    if (thrown instanceof MeshError) {
      const { name, code, message, retryable, fields } = thrown;
      return { code, message, data: { name, retryable, fields: fields as Record<string, unknown> } };
    }
    if (thrown instanceof Error) {
      name = String(thrown.name);
      message = String(thrown.message);
      stack = typeof thrown.stack === 'string' ? ownFrames(thrown.stack) : undefined;
    } else message = String(thrown);
  } catch {
    // A hostile getter threw: the words above stand.
  }
  const fields = stack === undefined ? { error_name: name } : { error_name: name, remote_stack: stack };
  return { code: RemoteError.row.code, message: `${name}: ${message}`, data: { name: 'RemoteError', fields } };
}
