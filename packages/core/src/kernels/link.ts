/** The kernels' side of the core: their links. What a kernel says is checked; what is sent to it is in its own trust. */
import type { Socket } from 'node:net';
import {
  BadInput,
  ConnectionLost,
  type CoreForKernel,
  DeadlineExceeded,
  isError,
  type KernelForCore,
  LIMITS,
  NameTaken,
} from '@hauki/protocol';
import { remote, Session, serve } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { demand, type Principal } from '../rights.ts';
import type { Kernels, RegisteredKernel } from './kernels.ts';
import { KERNELS_LIMITS } from './limits.ts';
import { infoOf, summariesOf } from './told.ts';

/** Whether the kernel at a link's other end is there. */
const answers = ({ session }: RegisteredKernel): Promise<boolean> =>
  session.call('modules', [], { timeout_ms: KERNELS_LIMITS.answer_ms }).then(
    () => true,
    // It is there and cannot say now: that is an answer too.
    (error) => session.open && !isError(error, DeadlineExceeded),
  );

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
  const takeName = async (name: string) => {
    for (let older = kernels.get(name); older; older = kernels.get(name)) {
      if (await answers(older))
        throw new NameTaken(
          { name },
          `There is a ${name} already, at ${older.info.url}, and it answers: two kernels cannot have one number. Give this one another with --id, or end that one first`,
        );
      kernels.away(older, 'another link has come in its place');
      older.session.close('another link has come in its place');
    }
  };
  const core: CoreForKernel = {
    async register(info, modules) {
      if (kernel) throw registersOnce();
      const { kernel: name, url, gathers } = infoOf(info);
      const held = summariesOf(modules);
      demand(powers.principal, { scope: 'node', node: name.toLowerCase() });
      await takeName(name);
      // By another name, meanwhile: what a link does not know any more would be listed for ever.
      if (kernel) throw registersOnce();
      if (!session.open) throw new ConnectionLost({ why: 'the kernel has gone meanwhile' });
      kernel = {
        info: { kernel: name, url },
        modules: held,
        rpc: remote<KernelForCore>(session, { timeout_ms: LIMITS.clone_ms }),
        session,
        gatherers: gathers ? new Map() : undefined,
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
