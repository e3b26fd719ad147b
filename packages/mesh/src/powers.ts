/** What the SDK needs of its platform. `powers-node.ts` and `powers-browser.ts` provide it; nothing else differs. */
import type { Language } from '@hauki/protocol';
import type { FrameTransport } from '@hauki/rpc/client';

export interface DirectRoute {
  host: string;
  port: number;
}

/** The ticket's id and session key, where a route runs inside TLS. */
export type TlsKey = { jti: string; key: string } | undefined;

export interface HttpAnswer {
  status: number;
  body: string;
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
  /** Where a core is looked for, and the token for it, when the script names none. */
  defaults(): { core: string; token?: string | undefined };
  /** Route A, where the platform has it. Rejects with ConnectionLost when it cannot be opened in time. */
  dialDirect?(route: DirectRoute, tls: TlsKey, timeout_ms: number): Promise<FrameTransport>;
  /** Route B. */
  dialRelay(core: string, path: string, token: string, tls: TlsKey, timeout_ms: number): Promise<FrameTransport>;
  /** Makes one module of a worker's files. */
  bundle(file: string, driver: string | undefined): Promise<{ source: string; language: Language }>;
  /** Calls back when the script has nothing more to do, so that what it owns can be let go of. */
  onIdle(run: () => void): () => void;
}
