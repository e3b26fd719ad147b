/** What the guest in a QuickJS VM and the thread that holds it say to each other, beside callers' sessions. */
import type { Activity, ModuleKind, TicketRole, WireError } from '@hauki/protocol';
import type { SessionStats } from '@hauki/rpc';

/** What the thread calls; see `drivers/quickjs/vm.ts`. */
export interface VmBridge {
  /** The source lies ready with the thread's module loader. Answered by a message on the channel `LOADED`. */
  load(worker: string, kind: ModuleKind, load_timeout_ms: number, time: number, random: number): void;
  deliver(channel: number, text: string, bytes?: ArrayBuffer): void;
  open(channel: number, role: TicketRole, tagged: number, session: string): void;
  closed(channel: number, reason: string): void;
  fire(timer: number): void;
  /** A promise was rejected unheard (1), or has been heard since (0); 2: that was all of a turn; 3: this was thrown in a job. */
  stray(what: number, promise?: object, reason?: unknown): void;
}

/** Channel 0 is the control session's, those from 1 on are callers'. */
export const LOADED = -1;

/** What is said on it, as JSON: the methods of the worker, or why there are none. */
export type Loaded = { methods: string[] } | { error: WireError };

/** The guest as the thread sees it over channel 0. */
export interface VmControl {
  call(method: string, params: unknown, role: TicketRole): Promise<unknown>;
  stats(): Promise<Record<string, SessionStats>>;
  activity(): Promise<Activity>;
  inspect(expression: string, timeout_ms: number): Promise<string>;
  end(reason: string): Promise<void>;
}
