/** The words of microkernels: what is posted to one, what it answers, what it remembers. */
import type { Language } from './control.ts';
import type { LogLine } from './fate.ts';
import type { GrantRequest, Grants } from './grants.ts';
import type { IsolationLevel } from './isolation.ts';

/** A request that a version must answer as expected before it takes traffic. */
export interface Trial {
  /** As the module sees it: `/users?x=1`. */
  path: string;
  method?: string;
  headers?: Record<string, string>;
  /** A text, or what becomes JSON. */
  body?: unknown;
  expect: {
    /** 200 where it is left out. */
    status?: number;
    /** The whole body, compared as JSON. */
    json?: unknown;
    /** A text that the body must have in it. */
    text?: string;
    headers?: Record<string, string>;
  };
}

export interface TrialResult {
  trial: string;
  passed: boolean;
  ms: number;
  /** What differed. */
  why?: string;
}

/** A surgical edit: `find` must stand in the source once. */
export interface Edit {
  find: string;
  replace: string;
}

/** The bounds that a new version must stay in, or it is taken back. */
export interface Bounds {
  /** 0 … 1. */
  max_error_rate?: number;
  max_p99_ms?: number;
}

export interface EvolveRequest {
  /** `data_scraper.ts`, or `data_scraper` with a `language`. */
  target_module: string;
  content?: string;
  /** Of a source in the kernel's MeshFS; by the core, in the mesh's. */
  pointer?: string;
  /** x-surgeon: edits of what runs, in place of a whole source. */
  edits?: Edit[];
  /** SHA-256, hex, of the source that the edits are made for. */
  base_digest?: string;
  language?: Language;
  driver?: string;
  /** No vault that holds it less strongly. */
  min_isolation?: IsolationLevel;
  memory_mib?: number;
  /** Left out: as the version before has them. */
  grants?: GrantRequest;
  tests?: Trial[];
  /** Everything but the change: the answer has the diff and the report. */
  dry_run?: boolean;
  /** Share of requests, of 100; what is left goes on as it is. 0: by header only. Left out: all. */
  weight?: number;
  bounds?: Bounds | null;
  /** An absolute prefix such as `/api/v2/meshfs/` at which it is served too; null: at none any more. Left out: as before. */
  alias?: string | null;
  /** `false`: the tests that are kept from earlier versions count no more. */
  keep_tests?: boolean;
}

/** How a version came through staging. */
export interface Report {
  stages: { stage: string; ms: number }[];
  routes: string[];
  tests: TrialResult[];
  log: string;
}

export interface Evolved {
  module: string;
  version: number;
  digest: string;
  prefix: string;
  alias: string | null;
  routes: string[];
  /** What it runs in; `isolation` says in one sentence what that protects against, and what not. */
  vault: { driver: string; level: IsolationLevel; isolation: string };
  report: Report;
  dry_run: boolean;
  /** Its share of requests, of 100; left out: all. */
  weight?: number;
  /** Against what ran before; of a dry run and of edits. */
  diff?: string;
}

/** What a version has beside its source, and what going back to it brings back. */
export interface VersionSettings {
  tests: Trial[];
  bounds: Bounds | null;
  alias: string | null;
  /** The version to go back to from it; of one that an earlier Hauki kept, not known. */
  good?: number | null;
}

/** One version: all of it but the source. */
export interface VersionFacts {
  module: string;
  version: number;
  digest: string;
  bytes: number;
  language: Language;
  driver: string;
  memory_mib: number;
  grants: Grants;
  /** Milliseconds since 1970. */
  at: number;
  by: string;
  report: Report;
  settings?: VersionSettings;
  /** Where the state lies that it had when another took its place. */
  state_pointer?: string;
}

/** What a version has answered. */
export interface AnswerStats {
  requests: number;
  errors: number;
  /** 0 … 1, of the last ones. */
  error_rate: number;
  p50_ms: number | null;
  p99_ms: number | null;
}

/** A version that lives. */
export interface LiveView extends AnswerStats {
  version: number;
  weight: number;
  digest: string;
  in_flight: number;
  /** Another took its place; it finishes what it has begun. */
  draining: boolean;
  routes: string[];
  driver: string;
  /** Its vault's name. */
  worker: string;
  /** What its vault takes, where that was asked for and is known. */
  memory_bytes?: number | null;
}

export type ModuleState = 'serving' | 'handing_over' | 'restarting' | 'failed';

export interface ModuleView {
  module: string;
  state: ModuleState;
  prefix: string;
  alias: string | null;
  version: number | null;
  digest: string | null;
  language: Language | null;
  /** Evolves are refused until it is let go of. */
  pinned: boolean;
  /** The version to go back to. */
  good: number | null;
  bounds: Bounds | null;
  /** Of the version with the most weight: what it serves, and how it does; of others see `live`. */
  routes: string[];
  requests: number;
  errors: number;
  error_rate: number;
  p50_ms: number | null;
  p99_ms: number | null;
  memory_bytes?: number | null;
  live: LiveView[];
}

/** What one version of a module said. */
export interface ModuleLog {
  version: number;
  /** Its vault. */
  worker: string;
  /** Why its vault has ended; left out while it lives. */
  ended?: string;
  /** The last, oldest first; of one that has ended the last few. */
  lines: LogLine[];
}

export interface KernelStatus {
  status: 'ok';
  kernel: string;
  /** Milliseconds since 1970. */
  started_at: number;
  drivers: Record<string, { available: boolean; note?: string; reason?: string; isolation: string }>;
  modules: ModuleView[];
}

export type Deed = 'evolve' | 'operate' | 'rollback' | 'weights' | 'abort' | 'remove' | 'pin';

/** One change, in the journal. */
export interface JournalEntry {
  seq: number;
  /** Milliseconds since 1970. */
  at: number;
  module: string;
  deed: Deed;
  /** The name of the token that asked; `anonymous` from loopback; `kernel` for what it did by itself. */
  by: string;
  version: number | null;
  /** SHA-256 of the version's source. */
  digest: string | null;
  /** What more there is to say: weights, why it was aborted. */
  note: string | null;
  /** SHA-256 of the entry before; of the first, 64 zeros. */
  before: string;
  /** SHA-256 of this entry without this member. */
  hash: string;
}

/** What RFC 9110 lets a header's name be, and what no value of one may have in it, as `node:http` sees it too. */
export const HEADER_NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
export const NOT_IN_HEADER = /[^\t\x20-\x7e\x80-\xff]/;

/** Names and values in turn. */
export type FlatHeaders = readonly string[];
export type Body = null | string | Uint8Array | AsyncIterable<Uint8Array>;
export type Answer = [status: number, headers: FlatHeaders, body: Body];

/** How a WebSocket was closed: its code, and a reason. The last that either side's stream of messages has. */
export type SocketClose = [code: number, reason: string];
/** What the body of a request to upgrade, and of its answer of status 101, is a stream of. */
export type SocketMessage = string | Uint8Array | SocketClose;

/** A reason is in a frame's control payload, beside the code (RFC 6455, 5.5). */
const REASON_BYTES = 123;

/** Whether this says how to close a socket: a code that may be sent (RFC 6455, 7.4), and a reason that fits. */
export function isSocketClose(message: unknown): message is SocketClose {
  if (!Array.isArray(message) || message.length !== 2) return false;
  const [code, reason] = message;
  const may_be_sent =
    Number.isInteger(code) &&
    ((code >= 3000 && code <= 4999) || (code >= 1000 && code <= 1014 && ![1004, 1005, 1006].includes(code)));
  // No character of UTF-16 takes more than three bytes of UTF-8.
  return (
    may_be_sent && typeof reason === 'string' && (reason.length * 3 <= REASON_BYTES || bytesOf(reason) <= REASON_BYTES)
  );
}

const bytesOf = (text: string): number => new TextEncoder().encode(text).length;

/** What a plugin says of itself. */
export interface PluginDescription {
  /** As `GET /path`, as far as the module tells; `* /*` where it does not. */
  routes: string[];
  /** How its state is handed over; `half`: it has one of the two hooks. */
  state: 'hooks' | 'half' | 'export' | 'none';
  /** Whether it has `fetchAll` and `lateAnswer`. */
  together?: boolean;
}

/** Answers of requests that came together, laid end to end. */
export type GatheredAnswers = (string | number | null)[];

export interface PluginForKernel {
  fetch(method: string, url: string, headers: FlatHeaders, body: Body): Answer | Promise<Answer>;
  /**
   * The same for requests without bodies that came together: of each its method, its URL, how many items its headers are,
   * and these. Of each answer its status, how many items its headers are, these, and its body, where that is a text or
   * nothing; 0 for one that is not there yet or is more than that: `lateAnswer` gives it, once, by the number of the
   * first and its place behind that. Headers that are those of the one before are not said again, -1 stands for how many.
   */
  fetchAll?(first: number, requests: (string | number)[]): GatheredAnswers | Promise<GatheredAnswers>;
  /** `gone`: nobody waits for it any more. */
  lateAnswer?(number: number, gone: boolean): Promise<Answer>;
  describe(): PluginDescription;
  /** What the module's state is; only where `describe` says that there is one. */
  dehydrate(): Promise<unknown>;
  hydrate(state: unknown, from_version: number): Promise<void>;
}

/** A kernel, as the core lists it. */
export interface KernelInfo {
  /** As in Microkernel-77. */
  kernel: string;
  /** Where it listens itself. */
  url: string;
  /** Whether it has `fetchAll` and `lateAnswer`. */
  together?: boolean;
}

/** A kernel, as the core sees it over its link. */
export interface KernelForCore {
  evolve(request: EvolveRequest, by: string): Promise<Evolved>;
  rollback(module: string, version: number | null, by: string): Promise<Evolved>;
  remove(module: string, by: string): Promise<void>;
  modules(): Promise<ModuleView[]>;
  /** Its own routes, but for evolves: as its port answers, the status and the JSON. `path` as in `/api/history`. */
  own(method: 'GET' | 'POST', path: string, body: unknown, by: string): Promise<[status: number, answer: unknown]>;
  /** A request for a module, from the gateway. `path` is the module's own, with its query. */
  fetch(module: string, method: string, path: string, headers: FlatHeaders, body: Body): Promise<Answer>;
  /** As the same of `PluginForKernel`, for one module. */
  fetchAll(module: string, first: number, requests: (string | number)[]): GatheredAnswers | Promise<GatheredAnswers>;
  lateAnswer(module: string, number: number, gone: boolean): Promise<Answer>;
}

/** The core, as a kernel sees it. */
export interface CoreForKernel {
  /** Once a link. */
  register(info: KernelInfo, modules: ModuleSummary[]): Promise<{ core: string }>;
  /** What it holds now, and in a person's words what has just happened. Also a sign of life. */
  report(modules: ModuleSummary[], line: string | null): Promise<void>;
}

/** What the core must know of a module that a kernel holds. */
export interface ModuleSummary {
  module: string;
  version: number;
  digest: string;
  serving: boolean;
}

/** Which kernels a module goes to. */
export interface RolloutRequest extends EvolveRequest {
  /** This kernel and no other. */
  kernel?: string;
  /** So many kernels, or all: others have it removed, at the end. Left out: those that hold the module, else one. */
  replicas?: number | 'all';
  /** Kernels at once; the next wave begins when all of this one serve. */
  wave?: number;
  /** A wave must have stayed within the bounds for so long. */
  watch_ms?: number;
}

/** What holds of all kernels is that of the first. */
export interface RolledOut extends Omit<Evolved, 'version' | 'digest'> {
  kernels: { kernel: string; version: number; digest: string; driver: string; level: IsolationLevel }[];
  waves: number;
  /** Those that held it and were too many; on a dry run, those that would be. */
  removed?: string[];
  /** Those of them that could not be told. */
  not_removed?: string[];
  /** Those that held it and have gone: they come back with what they served. */
  away?: string[];
}

/** From which kernels a module was removed. */
export interface Removed {
  module: string;
  removed: string[];
  /** Where it may still serve. */
  not_removed: string[];
}
