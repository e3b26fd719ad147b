/**
 * The link to the core: one session through the core's port, made again whenever it is lost. While it is away the node
 * goes on; what it has to tell waits, bounded. Splices are dialled from here too, outwards, so that a node behind a
 * firewall can be relayed to.
 */
import { connect } from 'node:net';
import {
  ConnectionLost,
  type CoreForNode,
  DeadlineExceeded,
  describe,
  isError,
  LIMITS,
  type NodeForCore,
  type ToldFate,
} from '@hauki/protocol';
import { encode, remote, Session, serve } from '@hauki/rpc';
import { dialUpgrade, joinStreams, streamTransport } from '@hauki/rpc/node';
import type { Agent } from './agent.ts';
import { pageOf } from './pages.ts';

/** First wait after a lost link, doubled up to the second. */
const RETRY_MS = { first: 100, most: 1_000 };
const REPORT_EVERY_MS = 1_000;
/** A core that does not take a report for so long is away, whatever the connection says: as long as it waits for a node. */
const REPORT_TIMEOUT_MS = LIMITS.node_silence_ms;

export interface LinkOptions {
  core_url: string;
  token: string;
  log(line: string, fields?: object): void;
}

export class Link {
  readonly #options: LinkOptions;
  #agent!: Agent;
  #core: CoreForNode | undefined;
  /** Connections to workers that were dialled for the relay, by their own ends. */
  readonly #spliced = new Set<string>();
  #session: Session | undefined;
  #keys: object = { keys: [] };
  #stopped = false;
  /** What the core has heard that drivers offer here (`Agent.offered`). */
  #offered = 0;
  #wake: () => void = () => {};

  constructor(options: LinkOptions) {
    this.#options = options;
  }

  /** The core while the link is up. */
  core = (): CoreForNode | undefined => this.#core;
  keys = (): object => this.#keys;

  /** Keeps the link up until `stop`. `first` settles when the node is registered for the first time. */
  run(agent: Agent): { first: Promise<void> } {
    this.#agent = agent;
    const { promise: first, resolve } = Promise.withResolvers<void>();
    void this.#keep(resolve);
    return { first };
  }

  stop(): void {
    this.#stopped = true;
    this.#session?.close('the node is shutting down');
    this.#wake();
  }

  async #keep(registered: () => void): Promise<void> {
    const { log, core_url } = this.#options;
    let wait_ms = RETRY_MS.first;
    let said = '';
    while (!this.#stopped) {
      try {
        const session = await this.#connect();
        wait_ms = RETRY_MS.first;
        log(`registered with the core at ${core_url}`);
        registered();
        const reports = setInterval(() => void this.#report(session), REPORT_EVERY_MS);
        const reason = await session.closed;
        clearInterval(reports);
        this.#core = undefined;
        this.#agent.coreLost();
        if (!this.#stopped) log(`the core is away (${reason}); workers go on, the link is being made again`);
        said = '';
      } catch (error) {
        const why = describe(error);
        if (why !== said) log(`cannot register with the core: ${why}; trying again`);
        said = why;
      }
      if (this.#stopped) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, wait_ms);
      });
      wait_ms = Math.min(wait_ms * 2, RETRY_MS.most);
    }
  }

  /** The load, and fates that could not be told when they came. */
  async #report(session: Session): Promise<void> {
    const options = { timeout_ms: REPORT_TIMEOUT_MS };
    try {
      const offered = this.#agent.offered();
      const changed = offered === this.#offered ? [] : [this.#agent.info().drivers];
      await session.call('report', [this.#agent.load(), ...changed], options);
      this.#offered = offered;
    } catch (error) {
      if (isError(error, DeadlineExceeded)) session.close('the core does not answer');
      return;
    }
    const fates = this.#agent.untold.take();
    while (fates.length > 0) {
      try {
        await session.call('worker_died', [fates[0]], options);
        fates.shift();
      } catch {
        this.#agent.untold.putBack(fates);
        return;
      }
    }
  }

  async #connect(): Promise<Session> {
    const agent = this.#agent;
    const { core_url, token } = this.#options;
    const stream = await dialUpgrade(core_url, '/api/v2/node/link', token, LIMITS.handshake_ms);
    const node: NodeForCore = {
      provision: async (job) => {
        const { first, ...made } = await agent.provision(job);
        return first ? { ...made, first: await first } : made;
      },
      mint_ticket: (worker, by) => agent.mint_ticket(worker, typeof by === 'string' ? by : undefined),
      destruct: (worker, reason, epoch, cause) => agent.destruct(worker, reason, epoch ?? undefined, cause),
      splice: (worker, splice) => this.#splice(worker, splice),
      workers: async (usage, after = '') => {
        const all = usage === true ? await agent.measured() : agent.workers();
        const behind = all.filter(({ worker }) => worker > after);
        return pageOf(behind.sort((a, b) => (a.worker < b.worker ? -1 : 1)));
      },
      sessions: () => agent.sessions((peer) => this.#spliced.has(peer)),
      narrow: async (worker, grants) => agent.narrow(worker, grants),
      volumes: () => agent.volumes.list(),
      remove_volume: (owner, name) => agent.volumes.remove(owner, name),
      pause: (worker) => agent.pause(worker),
      resume: (worker) => agent.resume(worker),
      inspect: (worker, expression, timeout_ms) => agent.inspect(worker, expression, timeout_ms),
      logs: (worker, after, wait_ms) => agent.logs(worker, after, wait_ms),
    };
    const session = new Session({
      transport: streamTransport(stream),
      dispatch: serve(node, Object.keys(node) as (keyof NodeForCore)[]),
      timeout_ms: LIMITS.handshake_ms,
      literal: encode,
    });
    this.#session = session;
    const quick = remote<CoreForNode>(session);
    const slow = remote<CoreForNode>(session, { timeout_ms: LIMITS.clone_ms });
    const core: CoreForNode = {
      announce: (...told) => quick.announce(...told),
      register: (...told) => quick.register(...told),
      report: (...told) => quick.report(...told),
      vault_ready: (made) => quick.vault_ready(made),
      worker_died: (fate) => quick.worker_died(fate),
      meshfs_write: (...args) => quick.meshfs_write(...args),
      meshfs_resolve: (...args) => quick.meshfs_resolve(...args),
      clone: (...args) => slow.clone(...args),
    };
    const fates = agent.untold.take();
    try {
      const { keys } = await this.#register(core, fates);
      this.#keys = keys;
      this.#core = core;
      return session;
    } catch (error) {
      agent.untold.putBack(fates);
      session.close('registering failed');
      throw error;
    }
  }

  /** What is too much for one message goes ahead. `fates`: those that were not told are left in it. */
  async #register(core: CoreForNode, fates: ToldFate[]): Promise<{ keys: object }> {
    const agent = this.#agent;
    const info = agent.info();
    this.#offered = agent.offered();
    for (let page = pageOf(fates); page.length < fates.length; page = pageOf(fates)) {
      await core.announce(info.node, [], page);
      fates.splice(0, page.length);
    }
    const told = new Set<string>();
    for (;;) {
      const rest = agent.workers().filter(({ worker }) => !told.has(worker));
      const page = pageOf(rest);
      // Those that have ended since they were announced are told as fates, over this link or with the next report.
      if (page.length === rest.length) return core.register(info, agent.load(), page, fates);
      await core.announce(info.node, page, []);
      for (const { worker } of page) told.add(worker);
    }
  }

  async #splice(worker: string, splice: string): Promise<void> {
    const { host, port } = this.#agent.address(worker);
    const { core_url, token } = this.#options;
    if (!/^[A-Za-z0-9_-]{1,64}$/.test(splice)) throw new ConnectionLost({ why: 'that is not a splice' });
    const up = await dialUpgrade(core_url, `/api/v2/node/splice/${splice}`, token, LIMITS.handshake_ms);
    const down = connect({ host, port, noDelay: true });
    down.once('connect', () => {
      const own = `${down.localAddress}:${down.localPort}`;
      this.#spliced.add(own);
      down.once('close', () => this.#spliced.delete(own));
    });
    joinStreams(up, down);
  }
}
