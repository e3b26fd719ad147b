/** What agent, host process and threads say to each other about quickjs vaults. */
import type { Scripts } from '../../guest/bundle.ts';
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

/** From the agent to the host, which has a thread do it. */
export type Order = StartMessage | { op: 'kill'; id: string };

/** What a vault and the agent say to each other, or nothing of the kind. */
interface Says {
  text?: string;
  bytes?: Uint8Array | undefined;
}

/** Down: from the agent to a thread (`line.ts`). */
export type Down = Says & { id: string } & (
    | { op: 'text' }
    /** The limits of a vault that was started before they were known; with what is said to it first. */
    | ({ op: 'assign' } & Limits)
    /** Whether the vault is entered; what comes for it meanwhile waits. */
    | { op: 'pause'; on: boolean; ask: number }
    | { op: 'usage'; ask: number }
  );

/** What a vault has used: time in its turns, and its VM's memory. */
export interface Used {
  cpu_ms: number;
  memory_bytes: number;
}

/** A vault has ended. */
export interface Gone {
  cause: 'killed' | 'misbehaved' | 'out_of_memory' | 'failed_to_start' | 'exited';
  reason: string;
  usage?: Used;
  with_host?: boolean;
}

/** Up: from a thread to the agent. */
export type Up = Says & { id: string } & (
    | { op: 'text' }
    | { op: 'started'; port: number }
    | ({ op: 'gone' } & Gone)
    | ({ op: 'used'; ask: number } & Used)
  );

/** From the host to the agent. */
export type Report =
  /** What of these is nobody's yet had better not become somebody's. */
  | { op: 'unfit'; ids: string[] }
  /** Their thread has ended; what they said last may be on its way still. */
  | { op: 'lost'; ids: string[]; reason: string };

/** From a thread to its host. */
export type Aside =
  /** A vault has left it. */
  | { op: 'left'; id: string }
  /** The thread's number in the operating system, where it can be known. */
  | { op: 'thread'; tid: number }
  /** Something went wrong in it that may have left a trace: no further vault is to be put there. */
  | { op: 'soiled' };

/** What a thread starts with. */
export interface ThreadData {
  address: Address;
  wasm: WebAssembly.Module;
  images: VmImages;
  clock: SharedArrayBuffer;
}

/** Where a thread reaches the agent. */
export type Address = { secret: string } & ({ path: string } | { host: string; port: number });

/** What the host starts with. */
export interface HostData extends Scripts {
  address: Address;
}

/**
 * A thread's clock, which its host reads. `until`: when the present turn must be over, in milliseconds since 1970 with
 * fractions, 0 while the thread is in no turn; `since`: when it began; `spent`: milliseconds in turns so far.
 */
export const CLOCK = { until: 0, since: 1, spent: 2, slots: 3 } as const;
export const now_ms = () => performance.timeOrigin + performance.now();
