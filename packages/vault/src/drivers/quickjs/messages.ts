/** What agent, host process and threads say to each other about quickjs vaults. */

export interface StartMessage {
  op: 'start';
  id: string;
  owner: string;
  listen_host: string;
  memory_mib: number;
  /** Made by the host: one Int32 that is set to 1 when the vault must not run on. */
  doom?: SharedArrayBuffer;
}

/** Down: from the agent through the host to a thread. */
export type Down =
  | StartMessage
  | { op: 'text'; id: string; text: string; bytes?: Uint8Array | undefined }
  | { op: 'kill'; id: string };

/** Up: from a thread through the host to the agent. */
export type Up =
  | { op: 'started'; id: string; port: number }
  | { op: 'text'; id: string; text: string; bytes?: Uint8Array | undefined }
  | { op: 'gone'; id: string; cause: 'killed' | 'misbehaved' | 'failed_to_start' | 'exited'; reason: string };

/** What a thread starts with. */
export interface ThreadData {
  wasm: WebAssembly.Module;
  bytecode: Uint8Array;
  turn_ms: number;
  /** One float: when the present turn began (`performance.timeOrigin + now`), 0 while idle. */
  busy: SharedArrayBuffer;
}
