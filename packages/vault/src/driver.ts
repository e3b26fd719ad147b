/**
 * What a vault driver is. A driver makes vaults: places that run one worker's code and hold it in.
 *
 * What always holds: a vault reaches the world only through its listening socket and its control transport; `kill`
 * returns when nothing of the vault is left on this machine; a vault dies with the process that owns its driver.
 * Every driver passes `test/driver-conformance.ts`.
 */
import type { Cause, IsolationLevel, Runtime } from '@hauki/protocol';
import type { Transport } from '@hauki/rpc';

export type DriverName = 'lxc' | 'quickjs' | 'process';

/** What a driver says at start: that it can be offered here, or why not, in words for the person who runs the node. */
export type Offer = { available: true; note?: string; runtimes?: Runtime[] } | { available: false; reason: string };

export interface VaultSpec {
  /** Unique among all nodes: `[a-z0-9-]{1,40}`. Names the container, its cgroups, its log. */
  id: string;
  /** Who asked. Vaults of different owners never share a thread or an id range. */
  owner: string;
  /** The address of the mesh interface on which the worker listens; the port is ephemeral. */
  listen_host: string;
  memory_mib: number;
  /** What runs inside; `node` when left out. */
  runtime?: Runtime;
  /** A host's folder, mounted with its quota, to be found at `inside`, which is HOME, and owned by the vault's root. */
  volume?: { path: string; inside: string } | undefined;
  /** Share of a core, read back where the driver can limit it; 1 when left out. */
  cpu?: number;
  /** Started for this spec, not from the pool. */
  fresh?: boolean;
  /** For quickjs: what one turn of the guest's code may take, within the driver's bounds. */
  turn_ms?: number;
  /** For quickjs: it needs Request, Response and their like as it loads. */
  web?: boolean;
}

export interface VaultExit {
  cause: Extract<Cause, 'killed' | 'exited' | 'out_of_memory' | 'misbehaved'> | 'failed_to_start';
  /** For a person: what happened, with the code or signal. */
  reason: string;
  /** The last of what the guest or its container wrote, at most `LIMITS.log_tail_chars`. */
  log_tail: string;
  /** What was used up to the end, where that is known. */
  usage?: { cpu_ms: number; memory_bytes: number };
  /** The process that held it and others ended: that says nothing of what ran in it. */
  with_host?: boolean;
}

export interface Vault {
  readonly id: string;
  /** The port on `listen_host` that the worker itself answers on. */
  readonly port: number;
  /** The process to look at; for quickjs the process that holds the vault's thread. */
  readonly pid: number;
  /** Mesh-RPC between the agent and the shell at the vault's edge (`guest/shell.ts`). */
  readonly control: Transport;
  /** Settles once, when the vault is gone, whatever the cause; never rejects. */
  readonly exited: Promise<VaultExit>;
  /** Stops its code where it stands, until `resume`. A paused vault can be killed. Safe to call twice. */
  pause?(): Promise<void>;
  resume?(): Promise<void>;
  /** CPU time since its start, memory that it occupies now. */
  usage?(): Promise<{ cpu_ms: number; memory_bytes: number }>;
  /** Kills without asking. Resolves when no process, cgroup, mount or socket is left. Safe to call twice. */
  kill(reason: string): Promise<void>;
}

/** How vaults that were started ahead become somebody's. */
export interface Pooling {
  /** Vaults of one kind are alike until they are handed out. Undefined: such a vault must be started for its spec. */
  kind(spec: VaultSpec): string | undefined;
  /**
   * Makes an empty vault that was started for its kind the one of `spec`: its id, and the limits that may differ,
   * written and read back. Rejects with `VaultFailed`; the vault is gone then.
   */
  assign(vault: Vault, spec: VaultSpec): Promise<void>;
}

export interface Driver {
  readonly name: DriverName;
  /** What it protects against, and what not, in one sentence for the caller. */
  readonly isolation: string;
  /** The same as a level that a job may demand; known for certain after `probe`. */
  readonly level: IsolationLevel;
  probe(): Promise<Offer>;
  /** Starts an empty vault whose shell is listening; rejects with `VaultFailed`, leaving nothing behind. */
  start(spec: VaultSpec): Promise<Vault>;
  /** Removes what an earlier run of this node left behind (by its node id), and tells how much that was. */
  sweep(): Promise<number>;
  /** For drivers whose vaults can be started before anybody asks for them (`pool.ts`). */
  readonly pooling?: Pooling;
  /** Kills every vault and ends every helper process. */
  close(): Promise<void>;
}
