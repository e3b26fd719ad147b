/** A call that is being served, as the code that serves it may see it: who asked gives up, or sets a time. */
import { DeadlineExceeded } from '@hauki/protocol';
import { unref } from '#platform';

export class Served {
  readonly timeout_ms: number | undefined;
  /** W3C trace context of the caller. */
  readonly traceparent: string | undefined;
  /** What it calls for its caller is only passed on. */
  readonly passing = true;
  /** For its server: whether it is among those under way. */
  counted = false;
  /** For its server: it waits for nobody, and what its message took. */
  urgent!: boolean;
  size!: number;
  /** Told of the abort by a caller's leaving; for who has no use for a whole signal. */
  onabort: ((reason: unknown) => void) | undefined;
  readonly #began: number;
  #controller: AbortController | undefined;
  #aborted: { reason: unknown } | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(rpc: { timeout_ms?: unknown; traceparent?: unknown } | undefined) {
    this.#began = rpc === undefined ? 0 : Date.now();
    if (rpc === undefined) return;
    const { timeout_ms, traceparent } = rpc;
    this.timeout_ms = typeof timeout_ms === 'number' && timeout_ms >= 0 ? timeout_ms : undefined;
    this.traceparent = typeof traceparent === 'string' && traceparent.length <= 256 ? traceparent : undefined;
  }

  /** When the caller stops waiting, in milliseconds since 1970. */
  get deadline(): number | undefined {
    return this.timeout_ms === undefined ? undefined : this.#began + this.timeout_ms;
  }

  /** Aborted when the caller cancels or its deadline passes. Made when it is first asked for: most calls never do. */
  get signal(): AbortSignal {
    if (this.#controller) return this.#controller.signal;
    this.#controller = new AbortController();
    if (this.#aborted) this.#controller.abort(this.#aborted.reason);
    else if (this.timeout_ms !== undefined) {
      const { timeout_ms } = this;
      const late = new DeadlineExceeded({ what: 'The call', timeout_ms, may_have_run: true });
      this.#timer = unref(setTimeout(() => this.abort(late), Math.max(0, this.#began + timeout_ms - Date.now())));
    }
    return this.#controller.signal;
  }

  abort(reason: unknown): void {
    this.#aborted ??= { reason };
    this.onabort?.(reason);
    this.#controller?.abort(reason);
    this.end();
  }

  /** The call is over: nothing waits any more. */
  end(): void {
    if (this.#timer !== undefined) clearTimeout(this.#timer);
  }
}
