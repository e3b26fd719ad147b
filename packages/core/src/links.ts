/** The nodes' side of the core: their links, and the splices that they dial. */
import type { Socket } from 'node:net';
import {
  BadInput,
  type CoreForNode,
  Forbidden,
  GrantMissing,
  isCause,
  LIMITS,
  type NodeForCore,
  parsePointer,
  reaches,
  type ToldFate,
  type WorkerInfo,
} from '@hauki/protocol';
import { encode, remote, Session, serve } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { cleanFate } from './fates.ts';
import { takeName } from './link-names.ts';
import { announcementOf, driversOf, fateOf, loadOf, registrationOf, workerNameOf } from './node-told.ts';
import type { RegisteredNode, Registry } from './registry.ts';
import { demand, type Principal } from './rights.ts';

/** MeshFS as the links pass it on. */
export interface NodeMeshFs {
  write(request: { pointer: string; content: string; media_type?: string }): Promise<object>;
  resolve(pointer: string): Promise<{ pointer: string; content: string; media_type: string }>;
}

export interface LinkPowers {
  registry: Registry;
  meshfs: NodeMeshFs;
  family: { clone(node: string, worker: string, request: unknown): Promise<{ worker: string }> };
  /** Whose token the link came with: it says as which node it may register. */
  principal: Principal;
  keys: object;
  core_id: string;
  log(line: string, fields?: object): void;
}

/** Names of workers that a line of the log has. */
const LOGGED = 8;

/** Serves one node's link for as long as it lasts. */
export function serveLink(stream: Socket, powers: LinkPowers): Session {
  const { registry, meshfs, log } = powers;
  let node: RegisteredNode | undefined;
  let ahead: { node: string; workers: WorkerInfo[] } | undefined;
  let heard_at = performance.now();
  // A node that is stopped, or cut off in silence, says nothing more: then its link is over.
  const watch = setInterval(() => {
    if (performance.now() - heard_at > LIMITS.node_silence_ms) session.close('the node has not reported for too long');
  }, LIMITS.node_silence_ms / 4);
  const registerFirst = () => new BadInput({ what: 'link', why: 'a node registers first' });
  /** The pointer, when a worker that this node has, or is making, may go there. */
  const granted = (right: 'read' | 'write', worker: string, pointer: string): string => {
    const of = registry.parent(workerNameOf(worker));
    if (!node || of?.node !== node.info.node) throw new Forbidden({ why: `${worker} is no worker of this node` });
    const { text } = parsePointer(pointer);
    if (!reaches(of.grants.meshfs[right], text)) throw new GrantMissing({ grant: `meshfs.${right}`, wanted: text });
    return text;
  };
  /** Takes the fate of a worker that was placed there; a node that tells another has got it wrong, or lies. */
  const heard = (fate: ToldFate, from: string) => {
    const owner = registry.ownerOf(fate, from);
    if (owner !== undefined) registry.died(cleanFate({ ...fate, owner, node: from }, isCause));
    else log(`node ${from} told the end of ${fate.worker}, which this core has not placed there: it is not believed`);
  };
  /** These workers behind those that the node announced. Throws BadInput where another announced, or too many are told. */
  const joined = (name: string, workers: WorkerInfo[]): WorkerInfo[] => {
    if (ahead && ahead.node !== name) throw new BadInput({ what: 'node', why: `${ahead.node} was announced` });
    const all = [...(ahead?.workers ?? []), ...workers];
    if (all.length > LIMITS.vaults_per_node)
      throw new BadInput({ what: 'workers', why: `a node has at most ${LIMITS.vaults_per_node}` });
    return all;
  };
  /** Waits for a link of the same node that has just gone silent; rejects where another node has the name. */
  const waitForName = (name: string) =>
    takeName<RegisteredNode>(name, {
      present: () => registry.nodes.get(name),
      ask: 'workers',
      away: (older, why) => registry.away(older, why),
      taken: () =>
        `There is a node ${name} already, and it answers: two cannot have one name. Give this one another, or end that one first`,
    });
  const core: CoreForNode = {
    async announce(...told) {
      heard_at = performance.now();
      if (node) throw new BadInput({ what: 'announce', why: 'that comes before register' });
      const { node: name, workers, fates } = announcementOf(...told);
      demand(powers.principal, { scope: 'node', node: name });
      await waitForName(name);
      if (node || !session.open) throw new BadInput({ what: 'announce', why: 'that comes before register' });
      ahead = { node: name, workers: joined(name, workers) };
      for (const fate of fates) heard(fate, name);
      await registry.fates.saved();
    },
    async register(...told) {
      if (node) throw new BadInput({ what: 'register', why: 'a link registers once' });
      const { info, load, workers: last, fates } = registrationOf(...told);
      demand(powers.principal, { scope: 'node', node: info.node });
      const workers = joined(info.node, last);
      await waitForName(info.node);
      // Nothing awaits from here to its place among the nodes. It may have been asked twice, or have given up.
      if (node || !session.open)
        throw new BadInput({ what: 'register', why: 'a link registers once, while it is open' });
      node = {
        info,
        load,
        rpc: remote<NodeForCore>(session, { timeout_ms: LIMITS.clone_ms }),
        session,
        since: Date.now(),
        heard_at: performance.now(),
      };
      for (const fate of fates) heard(fate, info.node);
      const strangers = registry.register(node, workers);
      if (strangers.length > 0)
        log(
          `node ${info.node} has ${strangers.length} workers that this core has not placed there: they are not listed`,
          {
            workers: strangers.slice(0, LOGGED),
          },
        );
      await registry.fates.saved();
      log(`node ${info.node} registered with ${workers.length} workers`);
      return { keys: powers.keys, core: powers.core_id };
    },
    async report(load, drivers) {
      heard_at = performance.now();
      const checked = loadOf(load);
      const offered = drivers === undefined ? undefined : driversOf(drivers);
      if (!node) return;
      node.heard_at = heard_at;
      node.load = checked;
      if (offered) node.info = { ...node.info, drivers: offered };
    },
    async vault_ready(made) {
      const of = registry.forging.get(made?.worker);
      if (of && of.node === node?.info.node) of.ready?.(made);
    },
    async worker_died(fate) {
      if (!node) throw registerFirst();
      heard(fateOf(fate), node.info.node);
      // Acknowledged when it is on disk: a core that is killed before that is told again.
      await registry.fates.saved();
    },
    meshfs_write: async (worker, pointer, content, media_type) => {
      const to = granted('write', worker, pointer);
      return meshfs.write({ pointer: to, content, ...(media_type ? { media_type } : {}) });
    },
    meshfs_resolve: async (worker, pointer) => meshfs.resolve(granted('read', worker, pointer)),
    async clone(worker, request) {
      if (!node) throw registerFirst();
      return powers.family.clone(node.info.node, workerNameOf(worker), request);
    },
  };
  const session = new Session({
    transport: streamTransport(stream),
    dispatch: serve(core, Object.keys(core) as (keyof CoreForNode)[]),
    literal: encode,
  });
  void session.closed.then((reason) => {
    clearInterval(watch);
    if (!node) return;
    registry.away(node, reason);
    log(`node ${node.info.node} is away: ${reason}`);
  });
  return session;
}
