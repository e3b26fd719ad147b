/**
 * The quickjs driver: vaults as WebAssembly instances of QuickJS, in the threads of one host process. The embedded
 * default: it needs nothing of the machine but Node. The agent never runs or parses a guest's code itself.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { LIMITS, VaultFailed } from '@hauki/protocol';
import type { Driver, Vault, VaultSpec } from '../../driver.ts';
import { buildVmScripts } from '../../guest/bundle.ts';
import { twice } from '../trial.ts';
import { DEMAND_MS, READY, SHELVES, WEB_AFTER_MS } from './limits.ts';
import { type AgentLine, Lines } from './line.ts';
import type { HostData, Report, Up } from './messages.ts';
import { Spares } from './spares.ts';
import { type HostLink, Started, type Wanted } from './started.ts';

interface Host extends HostLink {
  child: ChildProcess;
}

/**
 * Heaps of a thread are small: helpers that collect them beside it cost more time, waiting for a processor, than they save.
 * And young heaps of 16 MiB, as V8 has them by default, would be room for a dozen vaults.
 */
const HOST_FLAGS = ['--disable-warning=ExperimentalWarning', '--single-threaded-gc', '--max-semi-space-size=2'];

export function createQuickjsDriver(): Driver {
  const vaults = new Map<string, Started>();
  /** Vaults that are started ahead, by what they are for. */
  const shelves = new Map<string, Spares<Started>>();
  let host: Promise<Host> | undefined;
  let closing = false;
  let serial = 0;

  const lost = (reason: string) => {
    host = undefined;
    for (const shelf of shelves.values()) shelf.close();
    shelves.clear();
    for (const vault of vaults.values()) vault.end({ cause: 'exited', reason, with_host: true });
    vaults.clear();
  };

  const hear = (message: Up, line: AgentLine) => {
    const vault = vaults.get(message.id);
    if (message.op === 'gone') vaults.delete(message.id);
    vault?.hear(message, line);
  };

  const told = (report: Report) => {
    for (const id of report.ids) {
      const vault = vaults.get(id);
      if (report.op === 'unfit') vault?.reject();
      else void vault?.lost({ cause: 'misbehaved', reason: report.reason }).then(() => vaults.delete(id));
    }
  };

  const launch = async (): Promise<Host> => {
    const scripts = await buildVmScripts();
    const lines = new Lines(hear);
    const data: HostData = { ...scripts, address: await lines.open() };
    const child = fork(fileURLToPath(new URL('./host.ts', import.meta.url)), [], {
      // Nothing of the agent's environment: tokens and paths are not the guests' business.
      env: {},
      execArgv: HOST_FLAGS,
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      // Ctrl-C ends the whole group of processes: the agent ends vaults itself, when it has heard what they last have to say.
      detached: true,
    });
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => child.kill('SIGKILL'), LIMITS.vault_start_ms);
      const over = (reason: string) => {
        clearTimeout(timer);
        lines.close();
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
        child.on('message', told as (message: unknown) => void);
        // A message that cannot be sent is told by the host's end, not by an exception.
        resolve({
          child,
          pid: child.pid!,
          send: (message) => void (child.connected && child.send(message, () => {})),
          destroy: () => child.kill('SIGKILL'),
        });
      });
      child.send(data, () => {});
    });
  };

  const ensureHost = async () => {
    if (closing) throw new VaultFailed({ driver: 'quickjs', reason: 'the node is shutting down' });
    host ??= launch().catch((error) => {
      host = undefined;
      throw error;
    });
    return host;
  };

  const make = async (wanted: Wanted): Promise<Started> => {
    const link = await ensureHost();
    const vault = new Started(`v${++serial}`, wanted, link);
    vaults.set(vault.id, vault);
    await vault.port;
    return vault;
  };

  /** Whoever clones once clones again: what an owner asked for of late is started before it is asked for. */
  const shelfOf = ({ owner, listen_host, web = false }: VaultSpec): Spares<Started> => {
    const key = JSON.stringify([owner, listen_host, web]);
    const known = shelves.get(key);
    if (known) {
      // Who asked last is the last to go.
      shelves.delete(key);
      shelves.set(key, known);
      return known;
    }
    const shelf: Spares<Started> = new Spares({
      make: async () => {
        const made = await make({ owner, listen_host, web });
        void made.exited.then(() => shelf.lost(made));
        return made;
      },
      now: () => performance.now(),
      least: 0,
      most: READY,
      discard: (vault) => void vault.kill(),
      ...(web ? { after_ms: WEB_AFTER_MS } : {}),
    });
    const timer = setInterval(() => {
      shelf.trim();
      if (shelf.wanted > 0 && shelves.get(key) === shelf) return;
      if (shelves.get(key) === shelf) shelves.delete(key);
      clearInterval(timer);
    }, DEMAND_MS);
    timer.unref();
    shelves.set(key, shelf);
    for (const [oldest, one] of shelves) {
      if (shelves.size <= SHELVES) break;
      shelves.delete(oldest);
      one.close();
    }
    return shelf;
  };

  return {
    name: 'quickjs',
    level: 'vm',
    isolation:
      'A WebAssembly instance in a thread of another process: no system calls, no files, no network; shares one Node process with other vaults.',

    async probe() {
      try {
        await twice(ensureHost);
        return { available: true };
      } catch (error) {
        return { available: false, reason: (error as Error).message };
      }
    },

    async start(spec: VaultSpec): Promise<Vault> {
      const shelf = shelfOf(spec);
      let vault = await shelf.take();
      while (!vault.fit) vault = await shelf.take();
      return vault.become(spec);
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
