/** The nodes' side of the core: their links, and the splices that they dial. */
import type { Socket } from 'node:net';
import {
  BadInput,
  type CoreForNode,
  type Fate,
  Forbidden,
  GrantMissing,
  isCause,
  LIMITS,
  type NodeForCore,
  type NodeInfo,
  type NodeLoad,
  parsePointer,
  reaches,
} from '@hauki/protocol';
import { encode, remote, Session, serve } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { cleanFate } from './fates.ts';
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

const plain = (value: unknown): value is object => typeof value === 'object' && value !== null;
const NODE_NAME = /^[a-z0-9][a-z0-9-]{0,63}$/;

/** Serves one node's link for as long as it lasts. */
export function serveLink(stream: Socket, powers: LinkPowers): Session {
  const { registry, meshfs, log } = powers;
  let node: RegisteredNode | undefined;
  let heard_at = performance.now();
  // A node that is stopped, or cut off in silence, says nothing more: then its link is over.
  const watch = setInterval(() => {
    if (performance.now() - heard_at > LIMITS.node_silence_ms) session.close('the node has not reported for too long');
  }, LIMITS.node_silence_ms / 4);
  const registerFirst = () => new BadInput({ what: 'link', why: 'a node registers first' });
  /** The pointer, when a worker that this node has, or is making, may go there. */
  const granted = (right: 'read' | 'write', worker: string, pointer: string): string => {
    const of = registry.workers.get(worker) ?? registry.forging.get(worker);
    if (!node || of?.node !== node.info.node) throw new Forbidden({ why: `${worker} is no worker of this node` });
    const { text } = parsePointer(pointer);
    if (!reaches(of.grants.meshfs[right], text)) throw new GrantMissing({ grant: `meshfs.${right}`, wanted: text });
    return text;
  };
  /** Whether a fate is this node's to tell. */
  const isMine = ({ worker }: Fate): boolean => {
    const home = registry.workers.get(worker)?.node ?? registry.forging.get(worker)?.node;
    return home === undefined || home === node?.info.node;
  };
  const heard = (fate: Fate, from: string) => registry.died({ ...cleanFate(fate, isCause), node: from });
  const core: CoreForNode = {
    async register(info: NodeInfo, load: NodeLoad, workers, fates) {
      if (node) throw new BadInput({ what: 'register', why: 'a link registers once' });
      if (!NODE_NAME.test(info?.node))
        throw new BadInput({ what: 'node', why: 'a name is [a-z0-9-], at most 64 long' });
      demand(powers.principal, { scope: 'node', node: info.node });
      if (!plain(info.drivers) || !plain(info.labels) || !plain(load) || !Array.isArray(workers))
        throw new BadInput({ what: 'node', why: 'it does not say what it is' });
      node = {
        info,
        load,
        rpc: remote<NodeForCore>(session, { timeout_ms: LIMITS.clone_ms }),
        session,
        since: Date.now(),
      };
      for (const fate of fates ?? []) if (isMine(fate)) heard(fate, info.node);
      registry.register(node, workers);
      await registry.fates.saved();
      log(`node ${info.node} registered with ${workers.length} workers`);
      return { keys: powers.keys, core: powers.core_id };
    },
    async report(load: NodeLoad) {
      if (node && plain(load)) node.load = load;
      heard_at = performance.now();
    },
    async vault_ready(made) {
      const of = plain(made) ? registry.forging.get(made.worker) : undefined;
      if (of && of.node === node?.info.node) of.ready?.(made);
    },
    async worker_died(fate: Fate) {
      if (!node) throw registerFirst();
      if (isMine(fate)) heard(fate, node.info.node);
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
      return powers.family.clone(node.info.node, worker, request);
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
