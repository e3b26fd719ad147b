/** What tests of guests behind a gate share: processes with fd 4 and a gate before each, what loads a module, callers. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { type AgentForShell, isError, type ShellForAgent, SourceRejected } from '@hauki/protocol';
import { Channel, makeCallerKey, openSession, redeemTicket, remote, Session, serve } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { type Gate, Gates } from '../src/gates/gates.ts';
import { issue, type Office, openOffice } from './ticket-support.ts';

export const PYTHON = '/usr/bin/python3';
export const no_python = !existsSync(PYTHON) && process.env.CI !== 'true' && 'python3 is not installed';

export interface GuestProcess {
  id: string;
  child: ChildProcess;
  gate: Gate;
  exited: Promise<[code: number | null, signal: string | null]>;
}

/** What is loaded; the rest of an order is the same for all. */
export type LoadOrder = Pick<Parameters<ShellForAgent['load']>[0], 'source' | 'language' | 'kind' | 'load_timeout_ms'>;

/** Is refused at this stage, and says so. */
export const rejected = (stage: string, pattern: RegExp) => (error: Error) => {
  assert.ok(isError(error, SourceRejected), String(error));
  assert.equal(error.fields.stage, stage);
  assert.match(error.message, pattern);
  return true;
};

/** A folder, a gate host and an office for a suite. `word`: of the guests' names. `prepare` writes what guests need. */
export function useGatedGuests(word: string, prepare: (folder: string) => Promise<unknown>) {
  const folder = mkdtempSync(join(tmpdir(), `hauki-${word}-`));
  const gates = new Gates();
  const children = new Set<ChildProcess>();
  let office: Office;
  let serial = 0;
  before(async () => {
    office = await openOffice();
    await prepare(folder);
  });
  after(async () => {
    for (const child of children) child.kill('SIGKILL');
    await gates.close();
    await office.close();
    rmSync(folder, { recursive: true, force: true });
  });

  /** A process with one end of a pipe as fd 4, and a gate before it: of this suite's host, or of `by`. */
  const start = async (
    command: string,
    args: string[],
    { stderr = 'inherit', by = gates }: { stderr?: 'inherit' | 'ignore'; by?: Gates } = {},
  ) => {
    const id = `${word}-${process.pid}-${serial++}`;
    const stdio = ['ignore', 'inherit', stderr, 'ignore', 'pipe'] as const;
    const child = spawn(command, args, { stdio: [...stdio], cwd: folder, env: {} });
    children.add(child);
    const exited = once(child, 'exit') as GuestProcess['exited'];
    const gate = await by.open(id, '127.0.0.1', child.stdio[4] as Socket);
    return { id, child, gate, exited } satisfies GuestProcess;
  };

  /** Has a guest load a module; `agent` is who it asks for effects. Gives ways in. */
  const load = async ({ id, gate }: GuestProcess, order: LoadOrder, agent: Partial<AgentForShell>) => {
    const at = { worker: id, node: 'n', epoch: 1 };
    const session = new Session({
      transport: gate.control,
      dispatch: serve(agent, Object.keys(agent) as (keyof AgentForShell)[]),
      timeout_ms: 30_000,
    });
    const shell = remote<ShellForAgent>(session);
    const caller = await makeCallerKey();
    const { ticket, jti, key } = await issue(office, caller.thumbprint, at);
    const owner = { jti, role: 'owner', key, resume_key: key } as const;
    const methods = await shell.load({ ...at, ...order, tls: false, keys: office.keys, owner });
    /** A bare connection to its gate. */
    const dial = async () => {
      const socket = connect(gate.port, '127.0.0.1');
      await once(socket, 'connect');
      return socket;
    };
    const enter = async (by: Parameters<typeof openSession>[2], as: typeof caller) => {
      const socket = await dial();
      const channel = new Channel();
      await openSession(streamTransport(socket), channel, by, as);
      return { session: new Session({ transport: channel, timeout_ms: 20_000 }), socket };
    };
    /** A visitor's ticket, which its gate expects. */
    const invite = async () => {
      const visitor = await makeCallerKey();
      const made = await issue(office, visitor.thumbprint, { ...at, role: 'visitor' });
      await shell.expect({ jti: made.jti, role: 'visitor', key: made.key, resume_key: made.key });
      return { ticket: made.ticket, visitor };
    };
    return {
      ...{ shell, methods, dial, invite },
      open: () => enter(ticket, caller),
      async openLiteral() {
        const literal = new Session({ transport: streamTransport(await dial()), timeout_ms: 20_000 });
        await redeemTicket(literal, ticket, caller);
        return literal;
      },
      async visit() {
        const { ticket: theirs, visitor } = await invite();
        return (await enter(theirs, visitor)).session;
      },
    };
  };

  return { folder, start, load };
}
