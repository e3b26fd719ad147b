/**
 * Answers plain JSON-RPC 2.0 clients, by the letter of https://www.jsonrpc.org/specification: requests, notifications,
 * batches, and an error for whatever is neither. Used wherever text comes in and text goes out: JSON lines, HTTP.
 */
import { InvalidRequest, ParseError, TooLarge, toWire } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { encode } from './values.ts';

export type PlainDispatch = (method: string, params: unknown) => unknown;

function failure(id: unknown, error: unknown): string {
  let shown: string;
  try {
    shown = encode(toWire(error));
  } catch (unserialisable) {
    shown = JSON.stringify(toWire(unserialisable));
  }
  return `{"jsonrpc":"2.0","error":${shown},"id":${JSON.stringify(id ?? null)}}`;
}

/** A request's id as an answer shows it. */
function idOf(request: unknown): string | number | null {
  const id = (request as { id?: unknown } | null)?.id;
  return typeof id === 'number' || typeof id === 'string' ? id : null;
}

async function one(request: unknown, dispatch: PlainDispatch): Promise<string | undefined> {
  if (typeof request !== 'object' || request === null || Array.isArray(request))
    return failure(null, new InvalidRequest({ why: 'a request is an object' }));
  const { jsonrpc, id, method, params } = request as Record<string, unknown>;
  const idWorks = id === undefined || id === null || typeof id === 'number' || typeof id === 'string';
  const shown = idWorks ? id : null;
  if (jsonrpc !== '2.0' || typeof method !== 'string' || !idWorks)
    return failure(
      shown,
      new InvalidRequest({ why: 'a request has "jsonrpc": "2.0", a "method", and an "id" of text or number' }),
    );
  if (params !== undefined && (typeof params !== 'object' || params === null))
    return failure(shown, new InvalidRequest({ why: '"params" is an array or an object' }));
  const answered = 'id' in request;
  try {
    const result = await dispatch(method, params ?? []);
    return answered ? `{"jsonrpc":"2.0","result":${encode(result)},"id":${JSON.stringify(id)}}` : undefined;
  } catch (error) {
    return answered ? failure(id, error) : undefined;
  }
}

/**
 * Answers one text (a request or a batch). Resolves to the answer's text, or to undefined where nothing is to be sent
 * (notifications only). Never rejects.
 */
export async function answerPlain(text: string, dispatch: PlainDispatch): Promise<string | undefined> {
  let request: unknown;
  try {
    request = JSON.parse(text);
  } catch (error) {
    return failure(null, new ParseError({ why: (error as Error).message }));
  }
  if (!Array.isArray(request)) return one(request, dispatch);
  if (request.length === 0) return failure(null, new InvalidRequest({ why: 'a batch holds at least one request' }));
  if (request.length > LIMITS.batch)
    return failure(null, new InvalidRequest({ why: `a batch holds at most ${LIMITS.batch} requests` }));
  const limit_bytes = LIMITS.message_bytes;
  let chars = 0;
  // All answers are held until the last one is there: together they are no more than one message.
  const bounded = async (r: unknown) => {
    const text = await one(r, dispatch);
    if (text === undefined || chars + text.length > limit_bytes)
      return (
        text && failure(idOf(r), new TooLarge({ what: 'The answer, with those of its batch before it,', limit_bytes }))
      );
    chars += text.length;
    return text;
  };
  const answers = (await Promise.all(request.map(bounded))).filter((a) => a !== undefined);
  return answers.length > 0 ? `[${answers.join(',')}]` : undefined;
}
