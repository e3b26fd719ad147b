/** What agent, host process and threads say to each other about quickjs vaults. */
import type { VmImages } from './image.ts';

export interface StartMessage {
  op: 'start';
  id: string;
  owner: string;
  listen_host: string;
  /** With the web's platform loaded. */
  web: boolean;
  /** Made by the host: one Int32 that is set to 1 when the vault must not run on. */
  doom?: SharedArrayBuffer;
}

/** What a vault may take. */
export interface Limits {
  memory_mib: number;
  /** Share of a core. */
  cpu: number;
  /** What one turn of its code may take. */
  turn_ms: number;
}

/** The limits of a vault that was started before they were known, and what is said to it first. */
export interface AssignMessage extends Limits {
  op: 'assign';
  id: string;
  text: string;
  bytes?: Uint8Array | undefined;
}

/** Down: from the agent through the host to a thread. */
export type Down =
  | StartMessage
  | AssignMessage
  | { op: 'text'; id: string; text: string; bytes?: Uint8Array | undefined }
  | { op: 'kill'; id: string }
  /** Whether the vault is entered; what comes for it meanwhile waits. */
  | { op: 'pause'; id: string; on: boolean; ask: number }
  | { op: 'usage'; id: string; ask: number };

/** What a vault has used: time in its turns, and its VM's memory. */
export interface Used {
  cpu_ms: number;
  memory_bytes: number;
}

/** Up: from a thread through the host to the agent. */
export type Up =
  | { op: 'started'; id: string; port: number }
  | { op: 'text'; id: string; text: string; bytes?: Uint8Array | undefined }
  | {
      op: 'gone';
      id: string;
      cause: 'killed' | 'misbehaved' | 'out_of_memory' | 'failed_to_start' | 'exited';
      reason: string;
      usage?: Used;
    }
  | ({ op: 'used'; id: string; ask: number } & Used);

/** From the host to the agent: what of these is nobody's yet had better not become somebody's. */
export interface UnfitMessage {
  op: 'unfit';
  ids: string[];
}

/** From a thread to its host alone. */
export type Aside =
  /** The thread's number in the operating system, where it can be known. */
  | { op: 'thread'; tid: number }
  /** Something went wrong in it that may have left a trace: no further vault is to be put there. */
  | { op: 'soiled' };

/** What a thread starts with. */
export interface ThreadData {
  wasm: WebAssembly.Module;
  images: VmImages;
  clock: SharedArrayBuffer;
}

/** The scripts of `guest/bundle.ts`, from the agent to the host. */
export interface Scripts {
  guest: string;
  platform: string;
  forms: string;
  thread: string;
}

/**
 * A thread's clock, which its host reads. `until`: when the present turn must be over, in milliseconds since 1970 with
 * fractions, 0 while the thread is in no turn; `since`: when it began; `spent`: milliseconds in turns so far.
 */
export const CLOCK = { until: 0, since: 1, spent: 2, slots: 3 } as const;
export const now_ms = () => performance.timeOrigin + performance.now();
