/**
 * The quickjs driver: vaults as WebAssembly instances of QuickJS, in the threads of one host process. The embedded
 * default: it needs nothing of the machine but Node. The agent never runs or parses a guest's code itself.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { LIMITS, VaultFailed } from '@hauki/protocol';
import { joinBytes, type PortTransport, portTransport } from '@hauki/rpc';
import type { Driver, Vault, VaultExit, VaultSpec } from '../../driver.ts';
import { buildVmGuest } from '../../guest/bundle.ts';
import type { Down, Up } from './messages.ts';

interface Held {
  control: PortTransport;
  started(port: number): void;
  gone(exit: VaultExit): void;
}

interface Host {
  child: ChildProcess;
  send(message: Down): void;
}

/** Longer than the watchdog needs to end a thread. */
const KILL_MS = 8_000;

export function createQuickjsDriver(): Driver {
  const vaults = new Map<string, Held>();
  let host: Promise<Host> | undefined;
  let closing = false;

  const lost = (reason: string) => {
    host = undefined;
    for (const [id, held] of [...vaults]) {
      vaults.delete(id);
      held.gone({ cause: 'exited', reason, log_tail: '' });
    }
  };

  const hear = (message: Up) => {
    const held = vaults.get(message.id);
    if (!held) return;
    if (message.op === 'started') held.started(message.port);
    else if (message.op === 'text') held.control.deliver(message.text, message.bytes);
    else {
      vaults.delete(message.id);
      held.gone({ cause: message.cause, reason: message.reason, log_tail: '' });
    }
  };

  const launch = async (): Promise<Host> => {
    const script = await buildVmGuest();
    const child = fork(fileURLToPath(new URL('./host.ts', import.meta.url)), [], {
      // Nothing of the agent's environment: tokens and paths are not the guests' business.
      env: {},
      execArgv: ['--disable-warning=ExperimentalWarning'],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      // Bytes as bytes.
      serialization: 'advanced',
    });
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => child.kill('SIGKILL'), LIMITS.vault_start_ms);
      const over = (reason: string) => {
        clearTimeout(timer);
        lost(reason);
        reject(new VaultFailed({ driver: 'quickjs', reason }));
      };
      child.once('exit', (code, signal) => over(`the vault host ended (${signal ?? `code ${code}`})`));
      child.on('error', (error) => {
        // Also raised for messages to a host that is just ending; then its exit follows.
        if (child.pid === undefined) over(`the vault host could not be started: ${error.message}`);
      });
      child.once('message', () => {
        clearTimeout(timer);
        child.on('message', hear as (message: unknown) => void);
        // A message that cannot be sent is told by the host's end, not by an exception.
        resolve({ child, send: (message) => void (child.connected && child.send(message, () => {})) });
      });
      child.send(script, () => {});
    });
  };

  const ensureHost = () => {
    host ??= launch().catch((error) => {
      host = undefined;
      throw error;
    });
    return host;
  };

  return {
    name: 'quickjs',
    level: 'vm',
    isolation:
      'A WebAssembly instance in a thread of another process: no system calls, no files, no network; shares one Node process with other vaults.',

    async probe() {
      try {
        await ensureHost();
        return { available: true };
      } catch (error) {
        return { available: false, reason: (error as Error).message };
      }
    },

    async start(spec: VaultSpec): Promise<Vault> {
      if (closing) throw new VaultFailed({ driver: 'quickjs', reason: 'the node is shutting down' });
      const { child, send } = await ensureHost();
      const { id, owner, listen_host } = spec;
      const control = portTransport((text, bytes) => send({ op: 'text', id, text, bytes: bytes && joinBytes(bytes) }));
      const { promise: exited, resolve: tell_exited } = Promise.withResolvers<VaultExit>();
      const port = await new Promise<number>((resolve, reject) => {
        const timer = setTimeout(() => send({ op: 'kill', id }), LIMITS.vault_start_ms);
        vaults.set(id, {
          control,
          started: (given) => {
            clearTimeout(timer);
            resolve(given);
          },
          gone: (exit) => {
            clearTimeout(timer);
            control.closed(exit.reason);
            tell_exited(exit);
            reject(new VaultFailed({ driver: 'quickjs', reason: exit.reason }));
          },
        });
        send({ op: 'start', id, owner, listen_host, memory_mib: spec.memory_mib });
      });
      return {
        id,
        port,
        pid: child.pid!,
        control,
        exited,
        async kill() {
          send({ op: 'kill', id });
          // A thread that answers nobody takes its whole host with it.
          const timer = setTimeout(() => child.kill('SIGKILL'), KILL_MS);
          await exited;
          clearTimeout(timer);
        },
      };
    },

    // All of it lives in one process that ends with its agent: an earlier run leaves nothing.
    async sweep() {
      return 0;
    },

    async close() {
      closing = true;
      const running = await host?.catch(() => undefined);
      if (!running) return;
      const ended = new Promise((resolve) => running.child.once('exit', resolve));
      running.child.kill('SIGKILL');
      await ended;
    },
  };
}
