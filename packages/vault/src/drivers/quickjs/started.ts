/**
 * A vault in the host process as the agent holds it, from its start on: before it is anybody's it has a name of the
 * driver's own, by which host and thread go on knowing it.
 */
import { DeadlineExceeded, LIMITS, VaultFailed } from '@hauki/protocol';
import { joinBytes, type PortTransport, portTransport } from '@hauki/rpc';
import type { Vault, VaultExit, VaultSpec } from '../../driver.ts';
import { KILL_MS, TURN_MS } from './limits.ts';
import type { AgentLine } from './line.ts';
import type { Gone, Limits, Order, Up, Used } from './messages.ts';

/** How long a thread that has ended may be heard still. */
const LAST_WORDS_MS = 1_000;
/** A vault answers behind the turn that its thread is in. */
const ASK_MS = 5_000;

export interface HostLink {
  pid: number;
  send(order: Order): void;
  /** Ends the host process, with all that is in it. */
  destroy(): void;
}

/** What it is started for. */
export type Wanted = Pick<VaultSpec, 'owner' | 'listen_host' | 'web'>;

export class Started {
  readonly id: string;
  readonly control: PortTransport;
  readonly exited: Promise<VaultExit>;
  /** Its port; rejects with VaultFailed when it did not come to be. */
  readonly port: Promise<number>;
  readonly #host: HostLink;
  readonly #asked = new Map<number, PromiseWithResolvers<Used>>();
  readonly #listening = Promise.withResolvers<number>();
  readonly #gone = Promise.withResolvers<VaultExit>();
  readonly #late: NodeJS.Timeout;
  /** From its start on. */
  #line: AgentLine | undefined;
  /** It is gone, or will be; or it is somebody's. */
  #state: 'starting' | 'ready' | 'assigned' | 'over' = 'starting';
  #asks = 0;
  /** What its thread hears with the first thing that is said to it: a message of their own would cost as much again. */
  #limits: Limits | undefined;

  constructor(id: string, { owner, listen_host, web = false }: Wanted, host: HostLink) {
    this.id = id;
    this.#host = host;
    this.control = portTransport((text, bytes) => {
      const said = { text, bytes: bytes && joinBytes(bytes) };
      const limits = this.#limits;
      this.#limits = undefined;
      this.#line?.send(limits ? { op: 'assign', id, ...limits, ...said } : { op: 'text', id, ...said });
    });
    this.port = this.#listening.promise;
    this.port.catch(() => {});
    this.exited = this.#gone.promise;
    this.#late = setTimeout(() => host.send({ op: 'kill', id }), LIMITS.vault_start_ms);
    host.send({ op: 'start', id, owner, listen_host, web });
  }

  /** What its thread says of it. */
  hear(message: Up, line: AgentLine): void {
    if (message.op === 'text') return this.control.deliver(message.text!, message.bytes);
    if (message.op === 'used') {
      const { cpu_ms, memory_bytes } = message;
      return this.#asked.get(message.ask)?.resolve({ cpu_ms, memory_bytes });
    }
    if (message.op === 'gone') return this.end(message);
    clearTimeout(this.#late);
    this.#line = line;
    if (this.#state === 'starting') this.#state = 'ready';
    this.#listening.resolve(message.port);
  }

  /** Its thread has ended, as the host says: once what it said last has been heard, or could have been. */
  async lost(how: Gone): Promise<void> {
    const late = new Promise((resolve) => setTimeout(resolve, LAST_WORDS_MS).unref());
    await Promise.race([this.#line?.over, late]);
    this.end(how);
  }

  /** It is gone. */
  end({ cause, reason, usage, with_host = false }: Gone): void {
    this.#state = 'over';
    clearTimeout(this.#late);
    this.control.closed(reason);
    this.#gone.resolve({ cause, reason, log_tail: '', with_host, ...(usage ? { usage } : {}) });
    const failed = new VaultFailed({ driver: 'quickjs', reason });
    this.#listening.reject(failed);
    for (const { reject } of this.#asked.values()) reject(failed);
  }

  /** Whether it can become somebody's vault. */
  get fit(): boolean {
    return this.#state === 'ready';
  }

  /** Ends it, if it waits for somebody to need it. */
  reject(): void {
    if (this.#state === 'ready') void this.kill();
  }

  async kill(): Promise<void> {
    this.#state = 'over';
    this.#host.send({ op: 'kill', id: this.id });
    // A thread that answers nobody takes its whole host with it.
    const timer = setTimeout(() => this.#host.destroy(), KILL_MS);
    await this.exited;
    clearTimeout(timer);
  }

  /** Makes it somebody's vault. Nothing is said to it before its limits are. */
  async become(spec: VaultSpec): Promise<Vault> {
    const port = await this.port;
    this.#state = 'assigned';
    const { id } = spec;
    const turn_ms = Math.min(TURN_MS.most, Math.max(TURN_MS.least, spec.turn_ms ?? TURN_MS.default));
    this.#limits = { memory_mib: spec.memory_mib, cpu: spec.cpu ?? 1, turn_ms };
    return {
      id,
      port,
      pid: this.#host.pid,
      control: this.control,
      exited: this.exited,
      pause: async () => void (await this.#ask(id, { op: 'pause', on: true })),
      resume: async () => void (await this.#ask(id, { op: 'pause', on: false })),
      usage: () => this.#ask(id, { op: 'usage' }),
      kill: () => this.kill(),
    };
  }

  /** Asks the vault's thread, which answers with what the vault has used. */
  async #ask(name: string, what: { op: 'usage' } | { op: 'pause'; on: boolean }): Promise<Used> {
    const ask = ++this.#asks;
    if (this.#state === 'over') throw new VaultFailed({ driver: 'quickjs', reason: (await this.exited).reason });
    const asked = Promise.withResolvers<Used>();
    this.#asked.set(ask, asked);
    const late = { what: `${what.op} of ${name}`, timeout_ms: ASK_MS, may_have_run: true };
    const timer = setTimeout(() => asked.reject(new DeadlineExceeded(late)), ASK_MS);
    this.#line?.send({ ...what, id: this.id, ask });
    try {
      return await asked.promise;
    } finally {
      clearTimeout(timer);
      this.#asked.delete(ask);
    }
  }
}
