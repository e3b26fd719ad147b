/**
 * Refusals of source that its sender may run but not read: running a module is not reading it (docs/tokens.md), and what a
 * parser says quotes the line at which it stopped.
 */
import { isError, SourceRejected } from '@hauki/protocol';
import { type Principal, refusal } from './rights.ts';

/** Where in a file, as refusals name it. */
const PLACE = /\bat ([\w./-]+:\d+)/;

/** Whether one of the pointers is out of the principal's sight. */
export const isUnread = (principal: Principal, pointers: readonly string[]): boolean =>
  pointers.some((pointer) => refusal(principal, { scope: 'meshfs.read', pointer }) !== undefined);

/** The error with the place in the source in the stead of all that was said of it. Others stay as they are. */
export function withoutSource(error: unknown): unknown {
  if (!isError(error, SourceRejected)) return error;
  const { stage, worker } = error.fields;
  if (stage !== 'parse' && stage !== 'load') return error;
  const place = PLACE.exec(error.fields.reason)?.[1];
  const reason = `it is kept under a pointer that this token may run and not read: what is wrong there is told to those who may read it${place === undefined ? '' : ` (at ${place})`}`;
  return new SourceRejected({ stage, reason, ...(worker === undefined ? {} : { worker }) });
}
