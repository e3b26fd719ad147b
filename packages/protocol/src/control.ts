/**
 * The Mesh-RPC interfaces by which the parts of a mesh talk: core and agent, agent and shell, shell and guest.
 * Each is an object whose methods are called over a session; a method that is not listed here cannot be called.
 */
import type { Grants } from './grants.ts';
import type { TicketRole } from './ticket.ts';

export type Language = 'javascript' | 'typescript';

/** A worker has methods of its own, a plugin serves requests. */
export type ModuleKind = 'worker' | 'plugin';
/** A module that was imported by a pointer, as it was when the order was made. */
export interface PointerModule {
  /** Canonical. */
  pointer: string;
  /** SHA-256 of its text, in hex. */
  digest: string;
  source: string;
  language: Language;
}

/** Which code a worker is made of; the text is elsewhere. */
export interface CodeInfo {
  /** Where its own module is kept; missing where the caller brought it along. */
  pointer?: string;
  /** SHA-256 of its own module's text, in hex. */
  digest: string;
  /** What it imports by pointers, also indirectly. */
  modules: Pick<PointerModule, 'pointer' | 'digest'>[];
}

/**
 * How strongly a vault holds its worker in, weakest first. `none`: an ordinary process, for code that is trusted;
 * `process`: one in bubblewrap; `vm`: an interpreter in WebAssembly; `container`: namespaces, no capabilities, a filter
 * of system calls.
 */
export const ISOLATION_LEVELS = ['none', 'process', 'vm', 'container'] as const;
export type IsolationLevel = (typeof ISOLATION_LEVELS)[number];

/** What a caller wants run, as the core hands it to the chosen agent. */
export interface Job {
  worker: string;
  owner: string;
  driver: string;
  source: string;
  language: Language;
  /** What the module is; a worker where it is left out. */
  kind?: ModuleKind;
  /** Which code that is, with what it imports; the imported modules' texts are in `modules`. */
  code?: CodeInfo;
  modules?: PointerModule[];
  memory_mib: number;
  grants: Grants;
  /** Values of the secrets that `grants.secrets` names. They are never logged or listed, and no guest sees them. */
  secrets?: Record<string, string>;
  lease: { heartbeat_ms: number; lease_ms: number };
  /** Lives this long without any heartbeat; 0: only as long as the lease is renewed. */
  ttl_ms: number;
  /** How long the module may take to load. */
  load_timeout_ms: number;
  /** Counts the starts of a lasting worker, durably; 1 where it is left out. */
  epoch?: number;
  /** Has no lease: it lives until it is destructed. */
  lasting?: boolean;
}

/** What a ticket is made of, from the node's side. */
export interface TicketPart {
  jti: string;
  role: TicketRole;
  secret: string;
}

export interface Provisioned {
  worker: string;
  epoch: number;
  driver: string;
  isolation: IsolationLevel;
  direct: { host: string; port: number; tls: boolean };
  ticket: TicketPart;
}

export interface WorkerInfo {
  worker: string;
  owner: string;
  driver: string;
  isolation: IsolationLevel;
  epoch: number;
  direct: { host: string; port: number; tls: boolean };
  memory_mib: number;
  grants: Grants;
  lease: { heartbeat_ms: number; lease_ms: number };
  pid: number;
  /** Milliseconds since 1970. */
  born_at: number;
  /** When the lease runs out if nobody renews it; 0 where it never does. */
  lease_until: number;
  /** It has no lease. */
  lasting?: boolean;
  /** What was loaded into it. */
  code?: CodeInfo;
}

/** A caller's session with a worker, as the worker's side sees it. */
export interface SessionInfo {
  worker: string;
  /** The id of the ticket that opened it. */
  session: string;
  role: TicketRole;
  /** Milliseconds since 1970. */
  opened_at: number;
  /** False while it waits for its caller to come back. */
  connected: boolean;
  /** Connections that it has had. */
  connections: number;
  carried_bytes: number;
  /** What the other side has not said that it has. */
  unconfirmed_bytes: number;
  /** What the session has done: the guest's own word. */
  stats?: Record<string, number>;
}

export interface NodeInfo {
  node: string;
  labels: Record<string, string>;
  /** Drivers by name: offered, or why not. */
  drivers: Record<
    string,
    { available: boolean; note?: string; reason?: string; isolation: string; level: IsolationLevel }
  >;
  memory_mib: number;
  cores: number;
}

export interface NodeLoad {
  workers: number;
  memory_used_mib: number;
  /** 0 idle … 1 all cores busy. */
  cpu: number;
}

/** Why a worker is gone. */
export interface Fate {
  worker: string;
  owner: string;
  cause: string;
  reason: string;
  /** Milliseconds since 1970. */
  at: number;
  log_tail: string;
  /** Which start of a lasting worker it was. */
  epoch?: number;
}

/** The core, as an agent sees it. */
export interface CoreForNode {
  /** `fates`: of workers that died while the core was away. Once a session. */
  register(
    info: NodeInfo,
    load: NodeLoad,
    workers: WorkerInfo[],
    fates: Fate[],
  ): Promise<{ keys: object; core: string }>;
  report(load: NodeLoad): Promise<void>;
  worker_died(fate: Fate): Promise<void>;
  /** MeshFS for a worker of this node; the core checks the worker's grants too, so that a node has no more than its workers. */
  meshfs_write(worker: string, pointer: string, content: string, media_type?: string): Promise<object>;
  meshfs_resolve(worker: string, pointer: string): Promise<{ pointer: string; content: string; media_type: string }>;
}

/** An agent, as the core sees it. */
export interface NodeForCore {
  provision(job: Job): Promise<Provisioned>;
  /** A further ticket for a living worker; the core signs it. */
  mint_ticket(worker: string): Promise<TicketPart>;
  /** With an epoch: only that start of a lasting worker. */
  destruct(worker: string, reason: string, epoch?: number): Promise<boolean>;
  /** Dial the core at the given splice and join it to the worker. */
  splice(worker: string, splice: string): Promise<void>;
  workers(): Promise<WorkerInfo[]>;
  /** Callers' sessions with this node's workers. */
  sessions(): Promise<SessionInfo[]>;
}

/** What the shell at a vault's edge does for the agent. */
export interface ShellForAgent {
  /** Loads the module and answers with the names of its methods. Throws SourceRejected. */
  load(setup: Setup): Promise<string[]>;
  /** Makes a ticket redeemable. */
  expect(ticket: ExpectedTicket): Promise<void>;
  /** What callers' sessions there are; what the guest itself says of them is in `stats`. */
  sessions(): Promise<Omit<SessionInfo, 'worker'>[]>;
  /** Runs the end hook. Answers when it has ended or failed. */
  end(reason: string): Promise<void>;
}

/** What a worker must know to redeem a ticket: the keys derived from its secret, base64url, never the secret. */
export interface ExpectedTicket {
  jti: string;
  role: TicketRole;
  /** The session key. */
  key: string;
  resume_key: string;
}

export interface Setup {
  worker: string;
  node: string;
  epoch: number;
  source: string;
  language: Language;
  /** A worker where it is left out. */
  kind?: ModuleKind | undefined;
  /** The pointer of the worker's own module, where it has one: an import of it is the worker's own module again. */
  pointer?: string;
  modules?: PointerModule[];
  load_timeout_ms: number;
  /** Whether connections must come in TLS. */
  tls: boolean;
  /** The core's public signing keys: a JSON Web Key Set. */
  keys: object;
  /** The owner's ticket, redeemable as soon as the worker is loaded. */
  owner: ExpectedTicket;
}

/** The answer to a heartbeat. */
export interface Beat {
  renewed: boolean;
  /** Milliseconds since 1970. */
  lease_until: number;
  /** What the next beat must be over. */
  next: string;
}

/** What the agent does for a shell. Everything here comes from a hostile guest. */
export interface AgentForShell {
  effect(name: string, args: unknown[]): Promise<unknown>;
  /**
   * `mac` is the owner's over `challenge`, with the lease key. A beat over the present challenge renews and gets the
   * next one; an honest beat over an older one does not, and learns the present one. So a guest can hold no beats back.
   */
  heartbeat(challenge: string, mac: string): Promise<Beat>;
  destruct(mac: string): Promise<void>;
}
