/** The kernels' side of the core: their links. What a kernel says is checked; what is sent to it is in its own trust. */
import type { Socket } from 'node:net';
import { BadInput, ConnectionLost, type CoreForKernel, type KernelForCore, LIMITS } from '@hauki/protocol';
import { remote, Session, serve } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { takeName } from '../link-names.ts';
import { demand, type Principal } from '../rights.ts';
import type { Kernels, RegisteredKernel } from './kernels.ts';
import { infoOf, summariesOf } from './told.ts';

const registersOnce = () => new BadInput({ what: 'register', why: 'a link registers once' });

/** Serves one kernel's link for as long as it lasts. */
export function serveKernel(
  stream: Socket,
  powers: { kernels: Kernels; principal: Principal; core_id: string; log(line: string, fields?: object): void },
): Session {
  const { kernels, log } = powers;
  let kernel: RegisteredKernel | undefined;
  const began_at = performance.now();
  const watch = setInterval(() => {
    if (performance.now() - (kernel?.heard_at ?? began_at) > LIMITS.node_silence_ms)
      session.close('the kernel has not reported for too long');
  }, LIMITS.node_silence_ms / 4);
  /** Waits for a link of the same kernel that has just gone silent; rejects where another kernel has the name. */
  const waitForName = (name: string) =>
    takeName<RegisteredKernel>(name, {
      present: () => kernels.get(name),
      ask: 'modules',
      away: (older, why) => kernels.away(older, why),
      taken: ({ info }) =>
        `There is a ${name} already, at ${info.url}, and it answers: two kernels cannot have one number. Give this one another with --id, or end that one first`,
    });
  const core: CoreForKernel = {
    async register(info, modules) {
      if (kernel) throw registersOnce();
      const { kernel: name, url, together } = infoOf(info);
      const held = summariesOf(modules);
      demand(powers.principal, { scope: 'node', node: name.toLowerCase() });
      await waitForName(name);
      // By another name, meanwhile: what a link does not know any more would be listed for ever.
      if (kernel) throw registersOnce();
      if (!session.open) throw new ConnectionLost({ why: 'the kernel has gone meanwhile' });
      kernel = {
        info: { kernel: name, url },
        modules: held,
        rpc: remote<KernelForCore>(session, { timeout_ms: LIMITS.clone_ms }),
        session,
        gatherers: together ? new Map() : undefined,
        since: Date.now(),
        heard_at: performance.now(),
      };
      kernels.register(kernel);
      log(`${name} registered with ${kernel.modules.length} modules`);
      return { core: powers.core_id };
    },
    async report(modules, line) {
      if (kernel) kernels.report(kernel, summariesOf(modules), typeof line === 'string' ? line : null);
    },
  };
  const session: Session = new Session({
    transport: streamTransport(stream),
    dispatch: serve(core, ['register', 'report']),
  });
  void session.closed.then((reason) => {
    clearInterval(watch);
    if (kernel) kernels.away(kernel, reason);
  });
  return session;
}
