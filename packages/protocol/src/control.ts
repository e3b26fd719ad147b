/**
 * The Mesh-RPC interfaces by which the parts of a mesh talk: core and agent, agent and shell, shell and guest.
 * Each is an object whose methods are called over a session; a method that is not listed here cannot be called.
 */
import type { Cause, Fate, LogLine, Usage } from './fate.ts';
import type { Grants } from './grants.ts';
import type { IsolationLevel } from './isolation.ts';
import type { TicketRole } from './ticket.ts';

export const WORKER_LANGUAGES = ['javascript', 'typescript', 'python'] as const;
/** What a worker is written in. */
export type Language = (typeof WORKER_LANGUAGES)[number];
/** Which language a file is in, by what its name ends with. */
export const LANGUAGE_ENDINGS: ReadonlyMap<string, Language> = /* @__PURE__ */ new Map<string, Language>([
  ['js', 'javascript'],
  ['mjs', 'javascript'],
  ['ts', 'typescript'],
  ['mts', 'typescript'],
  ['py', 'python'],
]);
/** What runs inside a vault; `node` stands for JavaScript also where that is not Node. */
export type Runtime = 'node' | 'python';
export const runtimeOf = (language: Language): Runtime => (language === 'python' ? 'python' : 'node');

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

/** What a caller wants run, as the core hands it to the chosen agent. */
export interface Job {
  worker: string;
  owner: string;
  driver: string;
  /** A node whose driver holds less strongly refuses. */
  min_isolation?: IsolationLevel;
  source: string;
  language: Language;
  /** What the module is; a worker where it is left out. */
  kind?: ModuleKind;
  /** Which code that is, with what it imports; the imported modules' texts are in `modules`. */
  code?: CodeInfo;
  modules?: PointerModule[];
  memory_mib: number;
  /** Jobs of one owner and group may have a volume together. */
  volume_group?: string;
  /** Share of a core; 1 where it is left out. */
  cpu?: number;
  /** For quickjs: what one turn of its code may compute; the driver's own bound where it is left out. */
  turn_ms?: number;
  grants: Grants;
  /** Values of the secrets that `grants.secrets` names. They are never logged or listed, and no guest sees them. */
  secrets?: Record<string, string>;
  lease: { heartbeat_ms: number; lease_ms: number };
  /** Lives this long without any heartbeat; 0: only as long as the lease is renewed. */
  ttl_ms: number;
  /** Ends so long after its birth for certain, whatever renews its lease; paused or not. */
  max_life_ms?: number;
  /** Ends when it has had no call for so long. */
  idle_ms?: number;
  /** How long the module may take to load. */
  load_timeout_ms: number;
  /** Counts the starts of a lasting worker, durably; 1 where it is left out. */
  epoch?: number;
  /** Has no lease: it lives until it is destructed. */
  lasting?: boolean;
  /** The worker that cloned it, on the same node; it has no lease, and ends with that one at the latest. */
  parent?: string;
  /** The core wants to hear of the vault before its worker is loaded (`vault_ready`). */
  early?: boolean;
  /** What its owner says first; it has been said to the worker when that was made. */
  first?: FirstMessage[];
  /** The core's word for what it places here: the node gives it back with all that it tells of the worker. Nobody else reads it. */
  voucher?: string;
}

/** One of the first messages of an owner's session, which travel with the request for the worker and with its answer. */
export interface FirstMessage {
  text: string;
  /** In base64, where values are tagged. */
  bytes?: string;
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
  /** What the worker said at once to what was said to it first; missing where nothing was. */
  first?: FirstMessage[];
}

export interface WorkerInfo {
  worker: string;
  owner: string;
  driver: string;
  /** How strongly its vault holds it in. */
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
  /** Share of a core; 1 where it is left out. */
  cpu?: number;
  /** What one turn of its code may compute, where that was asked for. */
  turn_ms?: number;
  /** The worker that cloned it. */
  parent?: string;
  /** What its owner had asked for. */
  min_isolation?: IsolationLevel;
  /** Since when it is paused. */
  paused_at?: number;
  /** When it ends for certain. */
  ends_at?: number;
  /** It ends when it has had no call for so long. */
  idle_ms?: number;
  /** Where it was asked for. */
  usage?: Usage;
  /** As it came with the job. Without one that the core itself has made, the core knows no such worker. */
  voucher?: string;
}

/** A fate as its node tells it. */
export type ToldFate = Fate & Pick<WorkerInfo, 'voucher'>;

/** A part of a worker's log. */
export interface LogPage {
  /** Which start of a lasting worker said it; lines are counted anew with each. */
  epoch: number;
  lines: LogLine[];
  /** How many lines between `after` and the first were dropped, because they were too many. */
  missed: number;
}

/** What calls a worker has had, by the guest's own word. */
export interface Activity {
  calls: number;
  under_way: number;
  /** Since the last call was over, or since the worker was loaded; 0 while one is under way. */
  idle_ms: number;
}

/** A caller's session with a worker, as the worker's side sees it. */
export interface SessionInfo {
  worker: string;
  /** The id of the ticket that opened it. */
  session: string;
  role: TicketRole;
  /** Whose token got the ticket, as the core knows it: the token's name as an owner. Left out where it does not. */
  caller?: string;
  /**
   * How it is connected: the node knows the connections that it dialled for the relay. `http`: no session, but calls of
   * this caller through the core's HTTP door. Left out while it is cut.
   */
  route?: 'direct' | 'relay' | 'http';
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

/** A private lasting folder, as its node tells of it. */
export interface VolumeInfo {
  owner: string;
  name: string;
  quota_mib: number;
  /** As it is, or was when it was last let go of. */
  used_bytes: number;
  /** The worker that has it. */
  worker: string | null;
  /** Milliseconds since 1970. */
  created_at: number;
}

export interface NodeInfo {
  node: string;
  labels: Record<string, string>;
  /** Drivers by name: offered, or why not. `isolation` says in one sentence what it protects against, and what not. */
  drivers: Record<
    string,
    {
      available: boolean;
      note?: string;
      reason?: string;
      isolation: string;
      level: IsolationLevel;
      /** What its vaults can run; JavaScript alone where it is left out. */
      runtimes?: Runtime[];
    }
  >;
  memory_mib: number;
  cores: number;
  /** Whether it can keep volumes, or why not. */
  volumes?: { available: boolean; reason?: string };
}

export interface NodeLoad {
  workers: number;
  memory_used_mib: number;
  /** 0 idle … 1 all cores busy. */
  cpu: number;
}

/** The core, as an agent sees it. */
export interface CoreForNode {
  /** A part of what `register` tells, before it: where one message does not hold all of it. */
  announce(node: string, workers: WorkerInfo[], fates: ToldFate[]): Promise<void>;
  /** `fates`: of workers that died while the core was away. Once a session. */
  register(
    info: NodeInfo,
    load: NodeLoad,
    workers: WorkerInfo[],
    fates: ToldFate[],
  ): Promise<{ keys: object; core: string }>;
  /** `drivers`: where what they offer has changed. */
  report(load: NodeLoad, drivers?: NodeInfo['drivers']): Promise<void>;
  /** What a job's answer will be if its worker loads: its owner may come already, and is let in when it has. */
  vault_ready(made: Provisioned): Promise<void>;
  worker_died(fate: ToldFate): Promise<void>;
  /** MeshFS for a worker of this node; the core checks the worker's grants too, so that a node has no more than its workers. */
  meshfs_write(worker: string, pointer: string, content: string, media_type?: string): Promise<object>;
  meshfs_resolve(worker: string, pointer: string): Promise<{ pointer: string; content: string; media_type: string }>;
  /** Makes a clone of a worker of this node, with no more rights than that has, on this node. */
  clone(worker: string, request: unknown): Promise<{ worker: string }>;
}

/** An agent, as the core sees it. */
export interface NodeForCore {
  provision(job: Job): Promise<Provisioned>;
  /** A further ticket for a living worker; the core signs it. `by`: as in `ExpectedTicket`. */
  mint_ticket(worker: string, by?: string | null): Promise<TicketPart>;
  /** With an epoch: only that start of a lasting worker. `cause`: `destructed` where it is left out. */
  destruct(worker: string, reason: string, epoch?: number | null, cause?: Cause): Promise<boolean>;
  /** Dial the core at the given splice and join it to the worker. */
  splice(worker: string, splice: string): Promise<void>;
  /** In the order of their names, those behind `after`, as many as one message holds. With `usage`: also what each uses. */
  workers(usage?: boolean, after?: string): Promise<WorkerInfo[]>;
  /** Stops its code where it stands. Until `resume` its lease does not run out, and nothing of it answers. */
  pause(worker: string): Promise<void>;
  resume(worker: string): Promise<void>;
  /** Evaluates an expression beside the worker, `worker` and `hauki` in scope; its result as text. */
  inspect(worker: string, expression: string, timeout_ms: number): Promise<string>;
  /** Log lines after the one numbered `after`; where there are none yet, waits for one at most `wait_ms`. */
  logs(worker: string, after: number, wait_ms: number): Promise<LogPage>;
  /** Callers' sessions with this node's workers. */
  sessions(): Promise<SessionInfo[]>;
  /**
   * From the next call of an effect on, a worker has no more than this, and its clones no more than it has then. Resolves
   * with what each of them has.
   */
  narrow(worker: string, grants: Grants): Promise<{ worker: string; grants: Grants }[]>;
  /** The volumes that it keeps. */
  volumes(): Promise<VolumeInfo[]>;
  /** Deletes a volume for good. False where there is none; rejects with VolumeInUse. */
  remove_volume(owner: string, name: string): Promise<boolean>;
}

/** What the shell at a vault's edge does for the agent. */
export interface ShellForAgent {
  /** Loads the module and answers with the names of its methods. Throws SourceRejected. */
  load(setup: Setup): Promise<string[]>;
  /** Makes a ticket redeemable. */
  expect(ticket: ExpectedTicket): Promise<void>;
  /** What callers' sessions there are; what the guest itself says of them is in `stats`. */
  sessions(): Promise<Omit<SessionInfo, 'worker'>[]>;
  /** What calls the worker has had. */
  activity(): Promise<Activity>;
  /** Evaluates an expression beside the worker; its result as text, bounded. Rejects with what it threw. */
  inspect(expression: string, timeout_ms: number): Promise<string>;
  /** Calls the worker, as its parent does. */
  call(method: string, args: unknown[]): Promise<unknown>;
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
  /**
   * Stands for whoever shares this worker's places: the same text for all who have them together, another at another worker.
   * Left out for who shares with nobody, and by a core that does not tell.
   */
  by?: string;
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
  /** What the worker may do; the guest's own courtesy alone, the agent decides. */
  grants?: Grants;
  /** The core's public signing keys: a JSON Web Key Set. */
  keys: object;
  /** The owner's ticket, redeemable as soon as the worker is loaded. */
  owner: ExpectedTicket;
  /** What the owner says first, before it comes. */
  first?: FirstMessage[];
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
  /** What the worker said at once to what its owner had said first; after `load` has been answered, once. */
  first?(messages: FirstMessage[]): void;
}
