/**
 * The forge: from a job to a living worker, or to a clear error with nothing left behind. It is phase 2 and half of
 * phase 3 of a clone: provision a vault, load the module, make the secret.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Cause,
  DeadlineExceeded,
  describe,
  type FirstMessage,
  type Job,
  LIMITS,
  type LogLevel,
  MeshError,
  OutcomeUnknown,
  Overloaded,
  runtimeOf,
  type ShellForAgent,
  SourceRejected,
  type TicketPart,
  Unauthorised,
  VaultFailed,
} from '@hauki/protocol';
import { type Dispatch, remote, Session } from '@hauki/rpc';
import { areFirst } from '@hauki/rpc/node';
import {
  type Allowance,
  createEffects,
  type Driver,
  type Effects,
  type FamilyPowers,
  GUEST_BOUNDS,
  type MeshFsClient,
  type Network,
  type Outside,
  serveOutside,
  type Vault,
} from '@hauki/vault';
import { Lease } from './lease.ts';
import { Lifetime } from './lifetime.ts';
import { LogRing } from './log-ring.ts';
import type { Mint } from './mint.ts';
import { UsageMeter } from './usage.ts';
import type { Volumes } from './volumes.ts';
import { withVolume } from './with-volume.ts';

export interface ForgePowers {
  node: string;
  listen_host: string;
  tls: boolean;
  /** The core's public keys. */
  keys(): object;
  meshfs: MeshFsClient;
  volumes: Volumes;
  family: FamilyPowers;
  network: Network;
  mint: Mint;
  /** What the worker has now, the first of them, and all above it: it may lose some while it is being made. */
  allowances(): readonly Allowance[];
  /** Told of its vault and what performs its effects, before any of its code runs. */
  equipped(effects: Effects, vault: Vault): void;
  /** Told when the vault has a port and its worker is being loaded; whom that does not reach waits for the answer. */
  ready(port: number, ticket: TicketPart): void;
  /** The lease ran out, or the owner asked through the session. Resolves when nothing of the worker is left. */
  ended(worker: string, cause: Cause, reason: string): Promise<void>;
}

/** A worker while it lives. */
export interface Living {
  job: Job;
  epoch: number;
  vault: Vault;
  shell: ShellForAgent;
  /** Calls its worker. */
  call(method: string, args: unknown[], options: { timeout_ms: number; signal: AbortSignal }): Promise<unknown>;
  lease: Lease;
  lifetime: Lifetime;
  log: LogRing;
  usage: UsageMeter;
  effects: Effects;
  born_at: number;
  /** Why the agent is ending it, where it is. */
  ending?: { cause: Cause; reason: string };
}

/** A worker that is being made. */
export interface Forging {
  epoch: number;
  memory_mib: number;
  /** Resolves when it lives, or is not to be. */
  over: Promise<void>;
  /** What performs its effects and where it will live, as soon as there is that. */
  effects?: Effects;
  vault?: Vault;
  /** Why it is not to be, where somebody said so. */
  ending?: { cause: Cause; reason: string };
}

/** Where a vault finds its volume. */
const HOME = '/root';
/** How long a vault may live without its control channel. */
const CHANNEL_GRACE_MS = 500;
/** How a session's end begins where the guest broke the rules of that channel. */
const BROKEN = /^the peer /i;
/** How long the answer to a clone waits for what its worker says first; what comes later goes over its owner's session. */
const FIRST_MS = 50;

export interface Forged {
  living: Living;
  ticket: TicketPart;
  /** What the worker says first, where its owner had said something first; never rejects. */
  first?: Promise<FirstMessage[]>;
}

/** Provisions a worker. Rejects with SourceRejected, VaultFailed or Overloaded; then nothing of it is left. */
export async function forge(job: Job, driver: Driver, powers: ForgePowers): Promise<Forged> {
  const { worker, owner, memory_mib, cpu = 1, turn_ms } = job;
  const { epoch = 1, lasting } = job;
  const log = new LogRing();
  // A vault of an earlier epoch may be ending still, on this machine, in another node's hands.
  const id = lasting ? `${worker}-${epoch}` : worker;
  const { listen_host, volumes } = powers;
  const runtime = runtimeOf(job.language);
  const grants = () => powers.allowances()[0]!.grants;
  const wanted = job.grants.volume;
  const volume = wanted ? await volumes.acquire(owner, wanted, worker, job.volume_group) : undefined;
  const inside = volume && { path: volume.path, inside: HOME };
  const minted = powers.mint.owner();
  const spec = { id, owner, listen_host, memory_mib, runtime, cpu, volume: inside, web: job.kind === 'plugin' };
  const vault = withVolume(
    await driver.start({ ...spec, ...(turn_ms ? { turn_ms } : {}) }).catch(async (error) => {
      await volume?.release();
      throw error instanceof MeshError ? error : new VaultFailed({ driver: job.driver, reason: describe(error) });
    }),
    volume,
  );
  let living: Living | undefined;
  let lease: Lease | undefined;
  let lifetime: Lifetime | undefined;
  try {
    const effects = createEffects({
      owner,
      grants: grants(),
      allowances: powers.allowances,
      secrets: job.secrets,
      meshfs: powers.meshfs,
      volume: volume?.path,
      family: powers.family,
      network: powers.network,
      log: (level, line) => log.add(level as LogLevel, line),
      fetched: (bytes) => {
        usage.fetched_bytes += bytes;
      },
      paused: () => lifetime?.paused_at !== undefined,
    });
    powers.equipped(effects, vault);
    void vault.exited.then(() => effects.close());
    const agent: Outside = {
      async effect(name, args, call) {
        const done = await effects.perform(name, args, call);
        // A paused vault takes nothing in: what was fetched for it waits here, not in a buffer on its way.
        await lifetime?.running();
        return done;
      },
      heartbeat: async (challenge, mac) => {
        if (!lease) throw new Overloaded({ what: 'heartbeats before birth', limit: 0 });
        return lease.renew(challenge, mac);
      },
      destruct: async (mac) => {
        if (!(await lease?.mayDestruct(mac))) throw new Unauthorised({ why: 'this is not from the worker’s owner' });
        // No answer before the end: the owner would take it for the end itself. Its connection's end is what it hears.
        await powers.ended(worker, 'destructed', 'destructed by its owner');
      },
    };
    const said = Promise.withResolvers<FirstMessage[]>();
    const outside = serveOutside(agent);
    const dispatch: Dispatch = (method, params, ...more) => {
      if (method !== 'first') return outside(method, params, ...more);
      const [messages] = params as unknown[];
      said.resolve(areFirst(messages) ? messages : []);
      return null;
    };
    const session = new Session({
      transport: vault.control,
      dispatch,
      timeout_ms: LIMITS.vault_start_ms,
      bounds: GUEST_BOUNDS,
    });
    const shell = remote<ShellForAgent>(session);
    let ending: Living['ending'];
    void session.closed.then(async (why) => {
      if (BROKEN.test(why)) {
        // It may well end by itself, now that its channel is closed, and would tell nothing of why.
        ending = { cause: 'misbehaved', reason: `it broke its control channel: ${why}` };
        if (living) living.ending ??= ending;
        return vault.kill(ending.reason);
      }
      // A vault that dies closes its channel a moment before it tells why.
      const exited = await Promise.race([vault.exited, sleep(CHANNEL_GRACE_MS, undefined, { ref: false })]);
      if (!exited) await vault.kill(`its control channel ended: ${why}`);
    });
    const activity = () => shell.activity();
    const usage = new UsageMeter({ vault, log, activity });
    const { ticket, expected, lease_key } = await minted;
    const loading = session
      .call(
        'load',
        [
          {
            worker,
            node: powers.node,
            epoch,
            source: job.source,
            language: job.language,
            kind: job.kind,
            ...(job.code?.pointer === undefined ? {} : { pointer: job.code.pointer }),
            modules: job.modules ?? [],
            load_timeout_ms: job.load_timeout_ms,
            tls: powers.tls,
            keys: powers.keys(),
            owner: expected,
            grants: grants(),
            ...(job.first ? { first: job.first } : {}),
          },
        ],
        // The guest keeps its own time; this is for one that cannot, because its code never returns.
        { timeout_ms: job.load_timeout_ms + LIMITS.vault_start_ms / 10 },
      )
      .catch(async (error) => {
        throw await loadFailure(error, job, vault, log);
      });
    powers.ready(vault.port, ticket);
    await loading;
    lease = new Lease(
      {
        worker,
        epoch,
        key: lease_key,
        jti: ticket.jti,
        lease_ms: job.lease.lease_ms,
        ttl_ms: job.ttl_ms,
        // A clone lives as long as its parent lets it.
        lasting: lasting === true || job.parent !== undefined,
      },
      () => {
        const { ttl_ms } = job;
        const outlived = ttl_ms > job.lease.lease_ms ? `, and its ttl of ${ttl_ms} ms is over` : '';
        const why = `nobody renewed its lease within ${job.lease.lease_ms} ms${outlived}`;
        void powers.ended(worker, 'lease_expired', why);
      },
    );
    const { max_life_ms = 0, idle_ms = 0 } = job;
    lifetime = new Lifetime({ max_life_ms, idle_ms, vault, lease, activity }, (cause, reason) => {
      void powers.ended(worker, cause, reason);
    });
    const call: Living['call'] = (method, args, options) => session.call('call', [method, args], options);
    living = {
      call,
      job: { ...job, grants: grants() },
      epoch,
      vault,
      shell,
      lease,
      lifetime,
      log,
      usage,
      effects,
      born_at: Date.now(),
      ...(ending ? { ending } : {}),
    };
    return { living, ticket, ...(job.first ? { first: within(said.promise, FIRST_MS, []) } : {}) };
  } catch (error) {
    lifetime?.stop();
    lease?.stop();
    await vault.kill('it was never born');
    throw error;
  }
}

/** What is promised, or `otherwise` where that does not come in time. */
function within<T>(promised: Promise<T>, timeout_ms: number, otherwise: T): Promise<T> {
  const { promise, resolve } = Promise.withResolvers<T>();
  const timer = setTimeout(resolve, timeout_ms, otherwise);
  void promised.then(resolve).finally(() => clearTimeout(timer));
  return promise;
}

/** What a failed load means to the caller. */
async function loadFailure(error: unknown, job: Job, vault: Vault, log: LogRing): Promise<Error> {
  const log_tail = log.text();
  if (error instanceof SourceRejected)
    return log_tail === '' ? error : new SourceRejected({ ...error.fields, log_tail } as never, error.message);
  if (error instanceof DeadlineExceeded)
    return new SourceRejected({
      stage: 'load',
      reason: `it did not finish loading within ${job.load_timeout_ms} ms: its code never returns`,
      log_tail,
    });
  if (error instanceof OutcomeUnknown || !(error instanceof MeshError)) {
    // The vault died while loading: its exit says why.
    const exit = await Promise.race([vault.exited, sleep(2_000, undefined, { ref: false })]);
    const tail = [log_tail, exit?.log_tail].filter(Boolean).join('\n');
    if (exit?.cause === 'failed_to_start' || exit?.with_host)
      return new VaultFailed({ driver: job.driver, reason: exit.reason, log_tail: tail });
    return new SourceRejected({
      stage: 'load',
      reason: `the vault ended while it was loading: ${exit?.reason ?? (error as Error).message}`,
      log_tail: tail,
    });
  }
  return error;
}
