/**
 * The agent's side of the gates outside vaults: for vaults that get no listening socket at all. One process, the gate
 * host, holds them for all drivers of a node; it is started when the first is asked for.
 *
 * A driver starts its guest with fd 4 as a pipe (`stdio[4]: 'pipe'`) and gives the agent's end away:
 * `const gate = await gates.open(id, listen_host, child.stdio[4] as Socket)`. `gate.port` and `gate.control` are the
 * vault's; when `gate.gone` settles, the vault must be killed; killing a vault closes its gate and waits for `gone`.
 */
import { type ChildProcess, fork } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { LIMITS } from '@hauki/protocol';
import { joinBytes, type PortTransport, portTransport, type Transport } from '@hauki/rpc';
import type { Down, Up } from './messages.ts';

/** A host without gates is kept for a moment: whoever clones once clones again. */
const IDLE_HOST_MS = 30_000;

export interface GateGone {
  /** `exited`: the guest or the gate host ended, or `close` was called. `misbehaved`: the guest broke the rules. */
  cause: 'exited' | 'misbehaved';
  reason: string;
}

export interface Gate {
  /** Where the worker's callers come in, on the `listen_host`. */
  readonly port: number;
  /** Mesh-RPC between the agent and the shell. */
  readonly control: Transport;
  /** Settles once, when nothing of the gate is left; never rejects. */
  readonly gone: Promise<GateGone>;
  close(reason: string): void;
}

interface Held {
  control: PortTransport;
  opened(port: number): void;
  gone(how: GateGone): void;
}

export class Gates {
  readonly #held = new Map<string, Held>();
  #host: ChildProcess | undefined;
  #idle_timer: NodeJS.Timeout | undefined;

  /**
   * Opens the gate of a vault. `link` is this process's end of the guest's fd 4; it is given away. Rejects with an Error
   * when there is no port or no host; then the vault is to be killed.
   */
  async open(id: string, listen_host: string, link: Socket): Promise<Gate> {
    if (this.#held.has(id)) throw new Error(`there is a gate of ${id} already`);
    const host = this.#ensureHost();
    const send = (message: Down) => void (host.connected && host.send(message, () => {}));
    const control = portTransport(
      (text, bytes) => send({ op: 'text', id, text, bytes: bytes && joinBytes(bytes) }),
      (reason) => send({ op: 'close', id, reason }),
    );
    const { promise: gone, resolve } = Promise.withResolvers<GateGone>();
    const port = await new Promise<number>((opened, reject) => {
      const timer = setTimeout(() => reject(new Error('the gate host does not answer')), LIMITS.vault_start_ms);
      this.#held.set(id, {
        control,
        opened: (given) => {
          clearTimeout(timer);
          opened(given);
        },
        gone: (how) => {
          clearTimeout(timer);
          this.#held.delete(id);
          control.closed(how.reason);
          resolve(how);
          reject(new Error(how.reason));
          this.#rest();
        },
      });
      // Once it is sent there is no handle left on this side; what remains of the object is let go of.
      host.send({ op: 'open', id, listen_host } satisfies Down, link, () => link.destroy());
    });
    return { port, control, gone, close: (reason) => send({ op: 'close', id, reason }) };
  }

  /** Ends the host, and with it every gate. Resolves when it is gone; it may be used again. */
  async close(): Promise<void> {
    const host = this.#host;
    if (!host) return;
    clearTimeout(this.#idle_timer);
    const ended = new Promise((resolve) => host.once('exit', resolve));
    host.ref();
    host.kill('SIGKILL');
    await ended;
  }

  #ensureHost(): ChildProcess {
    clearTimeout(this.#idle_timer);
    if (this.#host) {
      this.#hold(this.#host, true);
      return this.#host;
    }
    const host = fork(fileURLToPath(new URL('./host.ts', import.meta.url)), [], {
      // Nothing of the agent's environment: tokens and paths are no business of what strangers talk to.
      env: {},
      execArgv: ['--disable-warning=ExperimentalWarning'],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      // Else a Ctrl-C would end it before what it serves.
      detached: true,
    });
    this.#host = host;
    host.on('message', (message: Up) => {
      const held = this.#held.get(message.id);
      if (message.op === 'opened') held?.opened(message.port);
      else if (message.op === 'text') held?.control.deliver(message.text, message.bytes);
      else held?.gone({ cause: message.cause, reason: message.reason });
    });
    const over = (reason: string) => {
      if (this.#host === host) this.#host = undefined;
      for (const held of [...this.#held.values()]) held.gone({ cause: 'exited', reason });
    };
    host.once('exit', (code, signal) => over(`the gate host ended (${signal ?? `code ${code}`})`));
    host.on('error', (error) => {
      if (host.pid === undefined) over(`the gate host could not be started: ${error.message}`);
    });
    return host;
  }

  /** An idle host keeps nobody waiting, and ends after a moment. */
  #rest(): void {
    const host = this.#host;
    if (this.#held.size > 0 || !host) return;
    this.#hold(host, false);
    this.#idle_timer = setTimeout(() => host.kill('SIGKILL'), IDLE_HOST_MS);
    this.#idle_timer.unref();
  }

  #hold(host: ChildProcess, on: boolean): void {
    if (on) {
      host.ref();
      host.channel?.ref();
    } else {
      host.unref();
      host.channel?.unref();
    }
  }
}
