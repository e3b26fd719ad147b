/**
 * What is measured, all with the same object behind them: Mesh-RPC over TCP and over WebSocket; a worker of a mesh, in
 * the vault that it chooses by itself, on the direct route; JSON-RPC written by hand over `ws`, the least that a call
 * over a WebSocket can cost; and `capnweb` over `ws`, as its manual sets it up.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { AddressInfo, Socket } from 'node:net';
import { connect as connectMesh } from '@hauki/mesh';
import { adminTokenFile } from '@hauki/mesh/data-dir';
import { dial, listen, sessionOf } from '@hauki/rpc/node';
import { newWebSocketRpcSession, RpcTarget } from 'capnweb';
import { WebSocket, WebSocketServer } from 'ws';

export type Name = 'ours over tcp' | 'ours over ws' | 'a worker' | 'raw ws' | 'capnweb';
export const NAMES: readonly Name[] = ['ours over tcp', 'ours over ws', 'a worker', 'raw ws', 'capnweb'];

/** Enough for a message of 1 MiB in base64, and for nothing that a benchmark does not send. */
const MESSAGE_BYTES = 8 * 1024 * 1024;

/** One step of a chain: each is known only from the one before. */
class Step {
  readonly #at: number;
  constructor(at = 0) {
    this.#at = at;
  }
  next() {
    return new Step(this.#at + 1);
  }
  at() {
    return this.#at;
  }
}

class Subject {
  add(a: number, b: number) {
    return a + b;
  }
  echo(bytes: Uint8Array) {
    return bytes;
  }
  first() {
    return new Step();
  }
}

const WORKER = 'export const add = (a, b) => a + b; export const echo = (bytes) => bytes;';

/** The same for `capnweb`, whose objects by reference must be of its class. */
class CapnwebStep extends RpcTarget {
  readonly #at: number;
  constructor(at = 0) {
    super();
    this.#at = at;
  }
  next() {
    return new CapnwebStep(this.#at + 1);
  }
  at() {
    return this.#at;
  }
}

class CapnwebSubject extends RpcTarget {
  add(a: number, b: number) {
    return a + b;
  }
  echo(bytes: Uint8Array) {
    return bytes;
  }
  first() {
    return new CapnwebStep();
  }
}

async function webSocketServer(serve: (socket: WebSocket) => void): Promise<string> {
  const server = new WebSocketServer({
    host: '127.0.0.1',
    port: 0,
    perMessageDeflate: false,
    maxPayload: MESSAGE_BYTES,
  });
  server.on('connection', serve);
  await once(server, 'listening');
  return `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** What a server process can tell: tables that should be empty between measurements. */
export interface Serving {
  url: string;
  tables(): Record<string, number>;
}

/** Listens on a free port; ends with its process. */
export async function serve(name: Name): Promise<Serving> {
  if (name === 'ours over tcp' || name === 'ours over ws') {
    const { url, sessions } = await listen(new Subject(), { websocket: name === 'ours over ws' });
    return { url, tables: () => tablesOf([...sessions]) };
  }
  const tables = () => ({});
  if (name === 'capnweb')
    return { url: await webSocketServer((s) => newWebSocketRpcSession(s as never, new CapnwebSubject())), tables };
  const subject = new Subject();
  const url = await webSocketServer((socket) => {
    socket.on('message', (data: Buffer) => {
      const { id, method, params } = JSON.parse(data.toString());
      const result = (subject as any)[method](...params);
      socket.send(JSON.stringify({ jsonrpc: '2.0', id, result }));
    });
  });
  return { url, tables };
}

export interface Client {
  add(a: number, b: number): Promise<number>;
  /** Undefined where there is no way for bytes. */
  echo?: (bytes: Uint8Array) => Promise<Uint8Array>;
  /** Calls that each go on the result of the one before, sent without waiting for any. */
  chain?: (calls: number) => Promise<number>;
  /** Bytes that the connection has carried, both ways. */
  carried(): number;
  tables(): Record<string, number>;
  close(): void | Promise<void>;
}

const tablesOf = (sessions: { stats(): object }[]): Record<string, number> => {
  const sum: Record<string, number> = {};
  for (const session of sessions) {
    const stats = session.stats() as Record<string, number>;
    for (const table of ['in_flight', 'serving', 'exported', 'imported', 'kept', 'streams'])
      sum[table] = (sum[table] ?? 0) + stats[table]!;
  }
  return sum;
};

const carriedBy = (socket: WebSocket) => {
  const { bytesRead, bytesWritten } = (socket as unknown as { _socket: Socket })._socket;
  return bytesRead + bytesWritten;
};

async function opened(url: string): Promise<WebSocket> {
  const socket = new WebSocket(url, { perMessageDeflate: false, maxPayload: MESSAGE_BYTES });
  await once(socket, 'open');
  return socket;
}

/** Connects to what `serve` gave; a worker is cloned in the mesh at `url`, whose hash is its data folder. */
export async function connect(name: Name, url: string): Promise<Client> {
  if (name === 'a worker') {
    const { origin, hash } = new URL(url);
    const token = readFileSync(adminTokenFile(decodeURIComponent(hash.slice(1))), 'utf8').trim();
    const mesh = await connectMesh({ core: origin, token });
    const worker = await mesh.clone<Subject>({ source: WORKER });
    return {
      add: (a, b) => worker.add(a, b),
      echo: (bytes) => worker.echo(bytes),
      carried: () => mesh.stats().direct_bytes,
      tables: () => ({}),
      close: () => mesh.close(),
    };
  }
  if (name === 'ours over tcp' || name === 'ours over ws') {
    const subject = await dial<Subject>(url);
    const session = sessionOf(subject)!;
    return {
      add: (a, b) => subject.add(a, b),
      echo: (bytes) => subject.echo(bytes),
      chain(calls) {
        let step = subject.first();
        for (let i = 2; i < calls; i++) step = step.next();
        return step.at();
      },
      carried: () => session.carried_bytes,
      tables: () => tablesOf([session]),
      close: async () => subject[Symbol.asyncDispose](),
    };
  }
  const socket = await opened(url);
  const common = { carried: () => carriedBy(socket), tables: () => ({}), close: () => socket.close() };
  if (name === 'capnweb') {
    const subject = newWebSocketRpcSession<CapnwebSubject>(socket as never);
    return {
      ...common,
      add: (a, b) => subject.add(a, b) as Promise<number>,
      echo: (bytes) => subject.echo(bytes) as Promise<Uint8Array>,
      chain(calls) {
        let step: any = subject.first();
        for (let i = 2; i < calls; i++) step = step.next();
        return step.at();
      },
    };
  }
  const waiting = new Map<number, (result: number) => void>();
  let last = 0;
  socket.on('message', (data: Buffer) => {
    const { id, result } = JSON.parse(data.toString());
    waiting.get(id)!(result);
    waiting.delete(id);
  });
  return {
    ...common,
    add: (a, b) =>
      new Promise((resolve) => {
        const id = ++last;
        waiting.set(id, resolve);
        socket.send(JSON.stringify({ jsonrpc: '2.0', id, method: 'add', params: [a, b] }));
      }),
  };
}
