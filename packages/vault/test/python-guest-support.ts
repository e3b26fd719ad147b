/** The Python guest by itself, for its tests: a plain process with fd 4, behind a real gate, called by our own sessions. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type AgentForShell, GrantMissing } from '@hauki/protocol';
import { redeemTicket, Session } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { writePythonGuest } from '../src/guest/python/files.ts';
import { PYTHON, useGatedGuests } from './gated-guest.ts';

/** Gives what starts a guest with a module loaded; calls go through `open`, or through a session of one's own. */
export function usePythonGuests(word: string) {
  const guests = useGatedGuests(word, writePythonGuest);
  return async (source: string, load_timeout_ms = 10_000) => {
    const guest = await guests.start(PYTHON, ['-I', '-S', '-B', join(guests.folder, 'main.py')]);
    const effects: unknown[][] = [];
    const agent: AgentForShell = {
      async effect(effect, args) {
        effects.push([effect, ...args]);
        if (effect === 'fetch') {
          if (String(args[0]).includes('secret'))
            throw new GrantMissing({ grant: 'fetch', what: String(args[0]) } as never);
          const cookies = String(args[0]).includes('cookies') ? ['a=1', 'b=2'].map((one) => ['Set-Cookie', one]) : [];
          const headers = [['X-A', 'b'], ...cookies];
          return { status: 200, status_text: 'OK', url: args[0], headers, text: '{"fetched":true}' };
        }
        if (effect === 'clone') return { worker: 'w-child' };
        if (effect === 'clone.call') return 42;
        if (effect === 'volume.read') return { text: 'kept' };
        if (effect === 'meshfs.resolve') return { pointer: args[0], content: 'a document', media_type: 'text/plain' };
        return null;
      },
      heartbeat: async (challenge) => ({ renewed: true, lease_until: 1, next: `${challenge}+` }),
      destruct: async () => {},
    };
    const loaded = await guests.load(guest, { source, language: 'python', load_timeout_ms }, agent);
    const dial = async () => streamTransport(await loaded.dial());
    /** Goes in as a visitor over a bare link; gives what settles when the session has ended. */
    const redeem = async (link: Awaited<ReturnType<typeof dial>>): Promise<{ over: Promise<void> }> => {
      const { ticket, visitor } = await loaded.invite();
      const session = new Session({ transport: link, literal: JSON.stringify, timeout_ms: 5_000 });
      await redeemTicket(session, ticket, visitor);
      link.send('{"jsonrpc":"2.0","method":"rpc.open","params":[{"v":1}]}');
      const { promise, resolve } = Promise.withResolvers<void>();
      link.start({ message: () => {}, control: (kind) => kind === 4 && resolve(), close: () => resolve() });
      return { over: promise };
    };
    const until = async (what: string, check: () => unknown) => {
      for (let i = 0; !check(); i++) {
        assert.ok(i < 400, what);
        await new Promise((resolve) => setTimeout(resolve, 25));
      }
    };
    const open = async () => (await loaded.open()).session;
    const { shell, methods, openLiteral } = loaded;
    return { ...guest, shell, methods, open, openLiteral, dial, redeem, effects, until };
  };
}
