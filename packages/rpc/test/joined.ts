/** What the tests of references, pipelining and streams share: joined sessions, a root to call, tables at rest. */
import assert from 'node:assert/strict';
import { type ErrorClass, isError, type MeshError, NoSuchMethod } from '@hauki/protocol';
import { ghost } from '../src/ghost.ts';
import { methodsOf } from '../src/methods.ts';
import type { Served } from '../src/served.ts';
import { type Dispatch, Session, type SessionOptions } from '../src/session.ts';
import { memoryPair } from '../src/transports/memory.ts';
import { streamTransport } from '../src/transports/stream.ts';
import { tcpPair, until } from './support.ts';

export type Kind = 'memory' | 'TCP';
export const KINDS: Kind[] = ['memory', 'TCP'];

export interface Joined extends AsyncDisposable {
  a: Session;
  b: Session;
  /** The other side's root, as each side calls it. */
  on_b: any;
  on_a: any;
}

/** The call that is being served, until it first waits. */
export const now: { call?: Served } = {};

/** Answers with the methods of an object; `this` is the object. */
export const serving =
  (root: object): Dispatch =>
  (method, params, _session, call) => {
    const found = methodsOf(root).get(method);
    if (!found) throw new NoSuchMethod({ method, has: [...methodsOf(root).keys()] });
    now.call = call;
    return Reflect.apply(found, root, params as unknown[]);
  };

/** The other side of a session, with pipelining. */
export const rootOf = (session: Session): any =>
  ghost({
    label: 'root',
    call: (method, args, options) => session.call(method, args, options),
    dispose: async () => session.close(),
  });

/** Two sessions joined, each serving an object. */
export async function join(
  of_b: object,
  of_a: object = {},
  { kind = 'memory', a = {}, b = {} }: { kind?: Kind; a?: Partial<SessionOptions>; b?: Partial<SessionOptions> } = {},
): Promise<Joined> {
  const sockets = kind === 'TCP' ? await tcpPair() : undefined;
  const [left, right] = sockets ? [streamTransport(sockets.a), streamTransport(sockets.b)] : memoryPair();
  const near = new Session({ transport: left!, dispatch: serving(of_a), ...a });
  const far = new Session({ transport: right!, dispatch: serving(of_b), ...b });
  return {
    a: near,
    b: far,
    on_b: rootOf(near),
    on_a: rootOf(far),
    async [Symbol.asyncDispose]() {
      near.close();
      far.close();
      await Promise.all([near.closed, far.closed]);
      await sockets?.end();
    },
  };
}

/** What a session holds at the moment. */
export const held = (session: Session) => {
  const { exported, imported, kept, streams, in_flight, serving } = session.stats();
  return { exported, imported, kept, streams, in_flight, serving };
};

const NOTHING = { exported: 0, imported: 0, kept: 0, streams: 0, in_flight: 0, serving: 0 };

/** Waits until these sessions hold nothing any more. */
export async function atRest(...sessions: Session[]): Promise<void> {
  const rest = (session: Session) => Object.values(held(session)).every((count) => count === 0);
  await until(() => sessions.every(rest), 'the tables to be empty', 5_000).catch(() => {});
  assert.deepEqual(
    sessions.map(held),
    sessions.map(() => NOTHING),
  );
}

/** The error that a promise is rejected with, which must be of the given class. */
export async function rejectsWith<F extends object>(
  promise: PromiseLike<unknown>,
  kind: ErrorClass<F>,
): Promise<MeshError<F>> {
  try {
    await promise;
  } catch (thrown) {
    assert.ok(isError(thrown, kind), `expected ${kind.row.name}, got ${String(thrown)}`);
    return thrown;
  }
  assert.fail(`expected ${kind.row.name}, but it resolved`);
}
