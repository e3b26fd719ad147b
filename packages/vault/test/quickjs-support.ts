/** A quickjs driver of a test's own, and workers in its vaults, called as their owners call them. */
import { connect } from 'node:net';
import { type AgentForShell, isError, OutcomeUnknown, type Setup, type ShellForAgent } from '@hauki/protocol';
import { Channel, makeCallerKey, openSession, remote, Session } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import type { Driver, Vault, VaultSpec } from '../src/driver.ts';
import { createQuickjsDriver } from '../src/drivers/quickjs/quickjs.ts';
import { serveOutside } from '../src/guest/outside.ts';
import { issue, openOffice } from './ticket-support.ts';

export interface Worker {
  vault: Vault;
  shell: ShellForAgent;
  session: Session;
  methods: string[];
  /** Effects that its guest asked for. */
  effects: unknown[][];
  call(method: string, ...args: unknown[]): Promise<any>;
}

export interface Lab extends AsyncDisposable {
  driver: Driver;
  start(spec?: Partial<VaultSpec>): Promise<Vault>;
  /** A vault with this module in it, and its owner's session. */
  worker(source: string, spec?: Partial<VaultSpec>, setup?: Partial<Setup>): Promise<Worker>;
}

export async function openLab(prefix: string): Promise<Lab> {
  const office = await openOffice();
  const driver = createQuickjsDriver();
  let serial = 0;
  const start = (spec: Partial<VaultSpec> = {}) =>
    driver.start({
      id: `${prefix}-${process.pid}-${serial++}`,
      owner: 'somebody',
      listen_host: '127.0.0.1',
      memory_mib: 16,
      ...spec,
    });
  return {
    driver,
    start,
    async worker(source, spec, more) {
      const vault = await start(spec);
      const effects: unknown[][] = [];
      const agent: AgentForShell = {
        effect: async (name, args) => void effects.push([name, ...args]),
        heartbeat: async () => ({ renewed: true, lease_until: 0, next: 'n' }),
        destruct: async () => {},
      };
      const shell = remote<ShellForAgent>(
        new Session({
          transport: vault.control,
          dispatch: serveOutside(agent as never),
          timeout_ms: 20_000,
        }),
      );
      const caller = await makeCallerKey();
      const { ticket, jti, key } = await issue(office, caller.thumbprint, { worker: vault.id, node: 'n', epoch: 1 });
      const methods = await shell.load({
        worker: vault.id,
        node: 'n',
        epoch: 1,
        source,
        language: 'javascript',
        load_timeout_ms: 5_000,
        tls: false,
        keys: office.keys,
        owner: { jti, role: 'owner', key, resume_key: key },
        ...more,
      });
      // Nobody brings it back: a thread that is ended says no goodbye.
      const channel: Channel = new Channel((reason) => channel.fail(reason));
      await openSession(streamTransport(connect(vault.port, '127.0.0.1')), channel, ticket, caller);
      // A thread that computed much gives way to all others of the machine, be they many.
      const session = new Session({ transport: channel, timeout_ms: 100_000 });
      /** A call that was lost says what became of the vault. */
      const why = async (error: Error) => {
        if (!isError(error, OutcomeUnknown)) throw error;
        const late = new Promise<undefined>((resolve) => setTimeout(resolve, 500, undefined));
        const exit = await Promise.race([vault.exited, late]);
        throw exit ? Object.assign(error, { message: `${error.message}: ${exit.cause}, ${exit.reason}` }) : error;
      };
      return {
        vault,
        shell,
        session,
        methods,
        effects,
        call: (method, ...args) => session.call(method, args).catch(why),
      };
    },
    async [Symbol.asyncDispose]() {
      await driver.close();
      await office.close();
    },
  };
}
