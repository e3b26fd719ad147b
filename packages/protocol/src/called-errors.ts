/**
 * The rows of the error table (`errors.ts`) that whoever is called makes, and how what was thrown is written: what
 * `fromWire` reads (`caller-errors.ts`). Pages that only call never load it.
 */
import { RemoteError } from './caller-errors.ts';
import { define, MeshError, type WireError } from './mesh-error.ts';

// JSON-RPC 2.0, https://www.jsonrpc.org/specification#error_object
export const ParseError = /* @__PURE__ */ define<{ why: string }>(
  'ParseError',
  -32700,
  400,
  false,
  (f) => `Parse error: ${f.why}`,
);
export const InvalidRequest = /* @__PURE__ */ define<{ why: string }>(
  'InvalidRequest',
  -32600,
  400,
  false,
  (f) => `Invalid Request: ${f.why}`,
);
export const NoSuchMethod = /* @__PURE__ */ define<{ method: string; has?: string[] }>(
  'NoSuchMethod',
  -32601,
  404,
  false,
  (f) =>
    `Method not found: ${f.method}${f.has === undefined ? '' : f.has.length > 0 ? `. There is: ${f.has.join(', ')}` : '. There are no methods'}`,
);
export const InvalidParams = /* @__PURE__ */ define<{ why: string }>(
  'InvalidParams',
  -32602,
  400,
  false,
  (f) => `Invalid params: ${f.why}`,
);
export const InternalError = /* @__PURE__ */ define<{ why: string }>(
  'InternalError',
  -32603,
  500,
  false,
  (f) => `Internal error: ${f.why}`,
);

// References
export const RefGone = /* @__PURE__ */ define<{ what: string; why?: string }>(
  'RefGone',
  -32008,
  410,
  false,
  (f) => `There is no ${f.what} any more: ${f.why ?? 'it was let go of'}`,
);

/** A stack without the frames of our guest around it; what is left is the worker's own code, at most 4096 characters. */
export const ownFrames = (stack: string) =>
  stack
    .split('\n')
    .filter(
      (line) =>
        !/guest\.m?js|\(native\)|node:internal|[( ](?:platform|forms|crypto|streams|console|english)\.js:/.test(line),
    )
    .join('\n')
    .slice(0, 4096);

/** A stack that says what went wrong first: those of some engines (QuickJS) are frames alone. */
export const headed = (name: string, message: string, stack: string): string =>
  /^ +at /.test(stack) ? `${name}${message && `: ${message}`}\n${stack.trimEnd()}` : stack;

/** How much is shown of an object that is thrown and no error. */
const SHOWN_CHARS = 1000;

/**
 * The `error` member for anything thrown. Guests' own errors become RemoteError; nothing else of them travels.
 * `frameless`: nor their frames.
 */
export function toWire(thrown: unknown, frameless = false): WireError {
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
      if (!frameless && typeof thrown.stack === 'string') stack = headed(name, message, ownFrames(thrown.stack));
    } else {
      const said = Object(thrown) as { name?: unknown; message?: unknown };
      if (typeof thrown === 'object' && typeof said.name === 'string') name = said.name;
      message = typeof said.message === 'string' ? said.message : String(thrown);
      if (message === '[object Object]') message = (JSON.stringify(thrown) ?? message).slice(0, SHOWN_CHARS);
    }
  } catch {
    // A hostile getter threw: the words above stand.
  }
  const fields = stack === undefined ? { error_name: name } : { error_name: name, remote_stack: stack };
  return { code: RemoteError.row.code, message: `${name}: ${message}`, data: { name: 'RemoteError', fields } };
}
