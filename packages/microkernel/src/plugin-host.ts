/**
 * Makes instances: a vault with a module's version in it, and the kernel's session to that.
 *
 * What always holds: a vault whose version was not taken into service is ended, and whoever asked for it is told why.
 */
import type { Agent } from '@hauki/node';
import {
  describe,
  type Fate,
  type Grants,
  isError,
  type PluginDescription,
  type Provisioned,
  SourceRejected,
} from '@hauki/protocol';
import { type CallerKey, Channel, makeCallerKey, openSession, Session } from '@hauki/rpc';
import { dialTcp } from '@hauki/rpc/node';
import type { Endings } from './endings.ts';
import { copyHome, dropCopy, ownerOf, trialOwnerOf } from './homes.ts';
import { Instance, type InstanceSpec } from './instance.ts';
import { KERNEL_LIMITS } from './limits.ts';
import type { TicketDesk } from './tickets.ts';
import { cleanDescription } from './words.ts';

export interface HostPowers {
  agent: Agent;
  node: string;
  desk: TicketDesk;
  endings: Endings;
  log(line: string, fields?: object): void;
}

/** The lease that tickets show; the vaults themselves live until they are ended. */
const LEASE = { heartbeat_ms: 5_000, lease_ms: 30_000 };

type Made = Omit<Provisioned, 'first'>;

/** Makes instances. */
export class PluginHost {
  readonly #powers: HostPowers;
  /** Who waits for a vault whose module is being loaded. */
  readonly #awaited = new Map<string, (made: Made) => void>();
  #key: Promise<CallerKey> | undefined;
  #count = 0;

  constructor(powers: HostPowers) {
    this.#powers = powers;
  }

  /** The agent says that a vault is there, and its module is being loaded. */
  ready(made: Made): void {
    this.#awaited.get(made.worker)?.(made);
  }

  /** And why one is gone. */
  ended(fate: Fate): void {
    this.#powers.endings.tell(fate);
  }

  /** A copy of a module's home that a version can be tried on. As `copyHome`. */
  copyHome({ module, grants }: InstanceSpec): Promise<boolean> {
    return copyHome(this.#powers.agent.volumes, module, grants);
  }

  dropCopy({ module, grants }: InstanceSpec): Promise<void> {
    return dropCopy(this.#powers.agent.volumes, module, grants);
  }

  /**
   * Starts a vault with the module in it; `on_copy`: with the copy of its home that was made. Rejects with SourceRejected,
   * VaultFailed, NoNodeFits or Overloaded.
   */
  async start(spec: InstanceSpec, on_copy = false): Promise<Instance> {
    const { agent, endings } = this.#powers;
    const { module, version, source, language, driver, memory_mib, grants, load_timeout_ms } = spec;
    // A vault's name: at most 40 letters, digits and hyphens, the epoch behind it.
    const worker = `p-${module.replaceAll('_', '-').slice(0, 18)}-${version}-${(++this.#count).toString(36)}`;
    // While the module loads its vault is dialled; the vault lets nobody in before.
    const dialled = new Promise<Made>((resolve) => this.#awaited.set(worker, resolve)).then((made) =>
      this.#enter(made, grants),
    );
    dialled.catch(() => {});
    const loaded = agent.provision({
      worker,
      ...(on_copy ? { owner: trialOwnerOf(module) } : { owner: ownerOf(module), volume_group: module }),
      driver,
      source,
      language,
      kind: 'plugin',
      memory_mib,
      grants,
      lease: LEASE,
      ttl_ms: 0,
      load_timeout_ms,
      lasting: true,
      early: true,
    });
    const made = await loaded.finally(() => this.#awaited.delete(worker));
    try {
      // One that took long to load did not keep the connection that came before it.
      const channel = await dialled.catch(() => this.#enter(made, grants));
      const session = new Session({ transport: channel, timeout_ms: KERNEL_LIMITS.request_ms, idle_lets_exit: true });
      const asked = session.call('describe', [], { timeout_ms: KERNEL_LIMITS.describe_ms });
      const description = cleanDescription((await asked) as PluginDescription);
      return new Instance(spec, worker, session, description, agent, endings);
    } catch (error) {
      const log_tail = agent.logTail(worker);
      await agent.destruct(worker, 'it was never taken into service');
      if (isError(error, SourceRejected)) throw error;
      throw new SourceRejected({ stage: 'routes', reason: describe(error), log_tail });
    }
  }

  /** Opens a session to a vault, by a ticket to it. */
  async #enter(made: Made, grants: Grants): Promise<Channel> {
    const { desk, node } = this.#powers;
    this.#key ??= makeCallerKey();
    const key = await this.#key;
    const { host, port } = made.direct;
    const [ticket, link] = await Promise.all([
      desk.sign(made, node, key, grants, LEASE),
      dialTcp(host, port, KERNEL_LIMITS.start_ms),
    ]);
    const channel = new Channel((reason) => channel.fail(reason));
    await openSession(link, channel, ticket, key);
    return channel;
  }
}
