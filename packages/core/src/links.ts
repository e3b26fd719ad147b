/** The nodes' side of the core: their links, and the splices that they dial. */
import type { Socket } from 'node:net';
import {
  BadInput,
  type CoreForNode,
  type Fate,
  LIMITS,
  type NodeForCore,
  type NodeInfo,
  type NodeLoad,
} from '@hauki/protocol';
import { remote, Session, serve } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import type { RegisteredNode, Registry } from './registry.ts';

/** MeshFS as the links pass it on. */
export interface NodeMeshFs {
  write(request: { pointer: string; content: string; media_type?: string }): Promise<object>;
  resolve(pointer: string): Promise<{ pointer: string; content: string; media_type: string }>;
}

export interface LinkPowers {
  registry: Registry;
  meshfs: NodeMeshFs;
  keys: object;
  core_id: string;
  log(line: string, fields?: object): void;
}

const NODE_NAME = /^[a-z0-9][a-z0-9-]{0,63}$/;

/** Serves one node's link for as long as it lasts. */
export function serveLink(stream: Socket, powers: LinkPowers): Session {
  const { registry, meshfs, log } = powers;
  let node: RegisteredNode | undefined;
  const core: CoreForNode = {
    async register(info: NodeInfo, load: NodeLoad, workers) {
      if (!NODE_NAME.test(info?.node))
        throw new BadInput({ what: 'node', why: 'a name is [a-z0-9-], at most 64 long' });
      node = { info, load, rpc: remote<NodeForCore>(session, { timeout_ms: LIMITS.clone_ms }), since: Date.now() };
      registry.register(node, workers);
      log(`node ${info.node} registered with ${workers.length} workers`);
      return { keys: powers.keys, core: powers.core_id };
    },
    async report(load: NodeLoad) {
      if (node) node.load = load;
    },
    async worker_died(fate: Fate) {
      if (registry.workers.get(fate.worker)?.node === node?.info.node || !registry.workers.has(fate.worker))
        registry.died(fate);
    },
    meshfs_write: (pointer, content, media_type) =>
      meshfs.write({ pointer, content, ...(media_type ? { media_type } : {}) }),
    meshfs_resolve: (pointer) => meshfs.resolve(pointer),
  };
  const session = new Session({
    transport: streamTransport(stream),
    dispatch: serve(core, ['register', 'report', 'worker_died', 'meshfs_write', 'meshfs_resolve']),
  });
  void session.closed.then((reason) => {
    if (!node) return;
    registry.away(node);
    log(`node ${node.info.node} is away: ${reason}`);
  });
  return session;
}
