/** What the SDK needs of its platform. `powers-node.ts` and `powers-browser.ts` provide it; nothing else differs. */
import type { Language, Ticket, TicketBody } from '@hauki/protocol';
import type { FrameTransport } from '@hauki/rpc/client';
import type { CoreClient } from './http.ts';
import type { Spawned } from './worker.ts';

/** `p2p_preferred`: direct, else relayed. */
export type Routing = 'p2p_preferred' | 'p2p_only' | 'relay_only';
export type Route = 'direct' | 'relay';

/** A connection to a worker, which nobody listens to yet. */
export interface Link {
  link: FrameTransport;
  route: Route;
}

export interface HttpAnswer {
  status: number;
  /** The JSON that it said. Where that comes in parts it is the first, with a promise of the next as `more`. */
  body: any;
}

export interface Powers {
  /** One HTTP request. Rejects with an error whose message says why; after `timeout_ms` with a TimeoutError. */
  http(
    method: string,
    url: URL,
    headers: Record<string, string>,
    body: string | undefined,
    timeout_ms: number,
  ): Promise<HttpAnswer>;
  /** Asks a core for a clone, where there is a better way than a request over HTTP; rejects as that does. */
  clone?(core: CoreClient, wanted: object, timeout_ms: number): Promise<Spawned>;
  /** Where a core is looked for, and the token for it, when the script names none. */
  defaults(core?: string): { core: string; token?: string | undefined };
  /** Whether there is a direct route, to which a relayed session may go back. */
  readonly direct: boolean;
  /** Dials what a routing allows, the direct route first. Rejects with ConnectionLost when nothing opens in time. */
  dial(core: CoreClient, ticket: Ticket, body: TicketBody, routing: Routing): Promise<Link>;
  /** Makes one module of a worker's files. */
  bundle(file: string, driver: string | undefined): Promise<{ source: string; language: Language }>;
  /** Calls back when the script has nothing more to do, so that what it owns can be let go of. */
  onIdle(run: () => void): () => void;
}
