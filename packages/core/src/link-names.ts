/**
 * The names of nodes and kernels on their links.
 *
 * What always holds: one has a name at a time, and keeps it for as long as it answers; one that has gone silent makes room
 * for the next of its name.
 */
import { DeadlineExceeded, isError, NameTaken } from '@hauki/protocol';
import type { Session } from '@hauki/rpc';
import { LINK_LIMITS } from './limits.ts';

interface Names<T> {
  /** Who has the name now. */
  present(): T | undefined;
  /** A method that changes nothing; what comes back of it does not matter. */
  ask: string;
  away(older: T, why: string): void;
  /** What is told to whoever comes second. */
  taken(older: T): string;
}

/** Whether somebody is there at a link's other end. */
const answers = (session: Session, method: string): Promise<boolean> =>
  session.call(method, [], { timeout_ms: LINK_LIMITS.answer_ms }).then(
    () => true,
    // It is there and knows no such method, or cannot say now: that is an answer too.
    (error) => session.open && !isError(error, DeadlineExceeded),
  );

/** Resolves when nobody has the name any more; rejects with NameTaken where one who has it answers. */
export async function takeName<T extends { session: Session }>(name: string, names: Names<T>): Promise<void> {
  for (let older = names.present(); older; older = names.present()) {
    if (await answers(older.session, names.ask)) throw new NameTaken({ name }, names.taken(older));
    const why = 'another link has come in its place';
    names.away(older, why);
    older.session.close(why);
  }
}
