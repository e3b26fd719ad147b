/**
 * The rows of the error table (`errors.ts`) that whoever calls makes itself, and how errors are read. A page that loads
 * the SDK takes these; an error of another row is known there by its name and code.
 */
import { byName, define, type ErrorClass, MeshError, type WireError } from './mesh-error.ts';

export { type ErrorClass, MeshError, type WireError };

const fateOf = (f: { may_have_run: boolean }) =>
  `It ${f.may_have_run ? 'may have run, or be running still' : 'was never sent'}`;

// Calls and sessions
/** What the worker's own code threw. `error_name` is the thrown error's name. */
export const RemoteError = /* @__PURE__ */ define<{ error_name: string; remote_stack?: string }>(
  'RemoteError',
  -32000,
  500,
  false,
  (f) => f.error_name,
);
export const WorkerDied = /* @__PURE__ */ define<{ worker: string; cause: string; reason: string }>(
  'WorkerDied',
  -32001,
  502,
  false,
  (f) => `Worker ${f.worker} is dead: ${f.reason}`,
);
export const OutcomeUnknown = /* @__PURE__ */ define<{ method: string; why: string }>(
  'OutcomeUnknown',
  -32002,
  502,
  false,
  (f) => `The call ${f.method}() was sent but its answer was lost (${f.why}). It may or may not have run`,
);
export const ConnectionLost = /* @__PURE__ */ define<{ why: string }>(
  'ConnectionLost',
  -32003,
  503,
  true,
  (f) => `Not connected: ${f.why}. The call was not sent`,
);
export const DeadlineExceeded = /* @__PURE__ */ define<{ what: string; timeout_ms: number; may_have_run: boolean }>(
  'DeadlineExceeded',
  -32004,
  504,
  false,
  (f) => `${f.what} gave no answer within ${f.timeout_ms} ms. ${fateOf(f)}`,
);
export const Overloaded = /* @__PURE__ */ define<{ what: string; limit: number }>(
  'Overloaded',
  -32005,
  429,
  true,
  (f) => `Too much at once: ${f.what} is at its limit of ${f.limit}`,
);
export const Unserialisable = /* @__PURE__ */ define<{ why: string }>(
  'Unserialisable',
  -32006,
  400,
  false,
  (f) => `This value cannot be sent: ${f.why}`,
);
export const ProtocolViolation = /* @__PURE__ */ define<{ why: string }>(
  'ProtocolViolation',
  -32007,
  400,
  false,
  (f) => `The peer broke the protocol: ${f.why}`,
);
export const Cancelled = /* @__PURE__ */ define<{ method: string; why: string; may_have_run: boolean }>(
  'Cancelled',
  -32009,
  499,
  false,
  (f) => `The call ${f.method}() was cancelled: ${f.why}. ${fateOf(f)}`,
);

// Input
export const TooLarge = /* @__PURE__ */ define<{ what: string; limit_bytes: number; got_bytes?: number }>(
  'TooLarge',
  -32010,
  413,
  false,
  (f) =>
    `${f.what} is too large: ${f.got_bytes === undefined ? 'more than' : `${f.got_bytes} bytes, but`} ${f.limit_bytes} bytes are allowed`,
);
export const BadInput = /* @__PURE__ */ define<{ what: string; why: string }>(
  'BadInput',
  -32011,
  400,
  false,
  (f) => `${f.what}: ${f.why}`,
);
export const Unauthorised = /* @__PURE__ */ define<{ why: string }>('Unauthorised', -32012, 401, false, (f) => f.why);

// Tickets
export const TicketForged = /* @__PURE__ */ define<{ why: string }>(
  'TicketForged',
  -32020,
  401,
  false,
  (f) => `The ticket was not issued by this mesh, or was altered: ${f.why}`,
);
export const SessionLost = /* @__PURE__ */ define<{ why: string }>(
  'SessionLost',
  -32026,
  410,
  false,
  (f) => `The session cannot be resumed: ${f.why}`,
);

/**
 * The error that a peer sent: of its class where this program has it; else, where it is of another row of the table, a
 * MeshError with that row's name and code; else a RemoteError.
 */
export function fromWire(wire: unknown): MeshError {
  if (typeof wire !== 'object' || wire === null)
    return new ProtocolViolation({ why: 'an error is no object' }) as MeshError;
  const { code, message, data } = wire as { code?: unknown; message?: unknown; data?: any };
  const text = typeof message === 'string' ? message : `error ${typeof code === 'number' ? code : 'without a code'}`;
  const name: unknown = data?.name;
  const fields = (typeof data?.fields === 'object' && data.fields) || {};
  const known = byName.get(name as string);
  if (known) {
    const error = new known(fields, text);
    const { remote_stack } = fields;
    // The worker's frames tell where it happened; ours would only tell how the news came.
    if (typeof remote_stack === 'string')
      error.stack = `${error.name}: ${text}\n${remote_stack.replace(/^.*?\n(?= +at )/s, '')}`;
    return error;
  }
  const ours = typeof code === 'number' && code <= -32000 && code > -32769;
  if (ours && typeof name === 'string' && /^[A-Z]\w{0,63}$/.test(name))
    return new MeshError({ name, code, status: 500, retryable: data.retryable === true }, fields, text);
  // Peers that speak JSON-RPC and nothing of ours.
  for (const plain of byName.values())
    if (plain.row.code === code && code < -32100) return new plain({ why: text, method: '?' }, text);
  return new RemoteError({ error_name: 'Error' }, text) as MeshError;
}

/** True for errors of the given class, whichever realm or wire they came from. */
export function isError<F extends object>(thrown: unknown, kind: ErrorClass<F>): thrown is MeshError<F> {
  return thrown instanceof MeshError && thrown.name === kind.row.name;
}

/** A short text for any thrown value; never throws. */
export function describe(thrown: unknown): string {
  try {
    return String(thrown instanceof Error ? thrown.message : thrown);
  } catch {
    return 'a value that cannot be shown';
  }
}
