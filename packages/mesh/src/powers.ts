/** What the SDK needs of its platform. `powers-node.ts` and `powers-browser.ts` provide it; nothing else differs. */
import type { Language } from '@hauki/protocol';
import type { FrameTransport } from '@hauki/rpc';

export interface DirectRoute {
  host: string;
  port: number;
  /** The ticket's id and session key, where the route runs inside TLS. */
  tls?: { jti: string; key: string };
}

export interface HttpAnswer {
  status: number;
  body: string;
}

export interface HttpStream {
  status: number;
  header(name: string): string | undefined;
  /** To be read, or ended early by leaving its loop: the connection is held until then. */
  body: AsyncIterable<Uint8Array>;
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
  /**
   * One HTTP request whose answer is a stream. Rejects, or ends the stream, with an error whose message says why;
   * with a TimeoutError when nothing moved for `idle_ms`.
   */
  stream(
    method: string,
    url: URL,
    headers: Record<string, string>,
    body: Uint8Array | undefined,
    options: { idle_ms: number; signal?: AbortSignal | undefined },
  ): Promise<HttpStream>;
  /** Where a core is looked for, and the token for it, when the script names none. */
  defaults(): { core: string; token?: string | undefined };
  /** Route A. Rejects with ConnectionLost when it cannot be opened in time. */
  dialDirect(route: DirectRoute, timeout_ms: number): Promise<FrameTransport>;
  /** Route B. */
  dialRelay(
    core: string,
    path: string,
    token: string,
    tls: DirectRoute['tls'],
    timeout_ms: number,
  ): Promise<FrameTransport>;
  /** Makes one module of a worker's files. */
  bundle(file: string, driver: string | undefined): Promise<{ source: string; language: Language }>;
  /** Calls back when the script has nothing more to do, so that what it owns can be let go of. */
  onIdle(run: () => void): () => void;
}
