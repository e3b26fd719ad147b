/**
 * What runs inside a vault whose guest is Node: fd 3 = the listening socket, fd 4 = the control channel, and nothing
 * else. With the argument `gate-outside` there is no listening socket, and fd 4 leads to the gate (`outer-shell.ts`).
 * It ends when fd 4 does, so that a vault never outlives its agent.
 */
import { rmSync, writeFileSync, writeSync } from 'node:fs';
import { createServer, Socket } from 'node:net';
import { randomText } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { lateConsole } from './console.ts';
import { createConsole, createContext } from './context.ts';
import { FastRequest, useFastHttp } from './fast-http.ts';
import { createGuest, type Inside, type Outside } from './guest.ts';
import { GATE_OUTSIDE, type InnerSetup, runInnerShell } from './inner-shell.ts';
import { namesPointers } from './modules.ts';
import { mayExportThen, namesMeta, unwrapped, wrapperOf } from './namespace.ts';
import { hookModules, hookText, placed } from './node-modules.ts';
import { present } from './present.ts';
import { rehearseWhenIdle } from './rehearsal.ts';
import { nodePlatform } from './respond-node.ts';
import { runShell } from './shell.ts';
import { logStreams, namesStreams } from './std-streams.ts';
import { stripTypes } from './typescript.ts';
import { withhold } from './withheld-node.ts';

const LISTENER = 3;
const CONTROL = 4;
/** The only writable folder of the vault. */
const FOLDER = process.env.TMPDIR || '/tmp';

/** What the worker sees of it, and the name of its module's file. */
interface Around {
  scope: typeof globalThis;
  name: string;
}

/** Makes the guest around the worker's module. */
function inside(setup: InnerSetup, outside: Outside): Inside {
  callOff();
  return insideOf({ scope: globalThis, name: 'worker' }, setup, outside);
}

function insideOf({ scope, name }: Around, setup: InnerSetup, outside: Outside): Inside {
  const context = createContext(setup.worker, outside, nodePlatform, () => late);
  const { write_log } = context;
  // The worker's own clock, which it may not have.
  const late = lateConsole({ write_log, now: () => scope.performance.now() });
  Object.assign(scope, { hauki: context, fetch: context.fetch });
  Object.assign(
    scope.console,
    createConsole(write_log, () => late),
  );
  if (setup.kind === 'plugin') useFastHttp();
  if (setup.grants) withhold(scope, setup.grants);
  return createGuest({
    outside,
    context,
    present,
    request: (...given) => new FastRequest(...given) as unknown as Request,
    async evaluate(source, language) {
      const file = `${FOLDER}/${name}.mjs`;
      if (namesStreams([source, ...(setup.modules ?? []).map((module) => module.source)])) logStreams(write_log);
      if (namesPointers(source)) hookModules(setup, `file://${file}`);
      const text = language === 'typescript' ? stripTypes(source) : source;
      writeFileSync(file, text);
      hookText(`file://${file}`, text);
      // What nobody imports is the main module to Node, and runs what it keeps for that.
      const wrapped = mayExportThen(source) || namesMeta(source) ? `${FOLDER}/wrapped.mjs` : undefined;
      if (wrapped) writeFileSync(wrapped, wrapperOf(`file://${file}`));
      try {
        return wrapped ? unwrapped(await import(`file://${wrapped}`)) : await import(`file://${file}`);
      } catch (error) {
        throw placed(error, source, language, setup.modules);
      }
    },
  });
}

// A worker's stray rejection is its own affair: it is logged, and calls under way go on.
process.on('unhandledRejection', (reason) => console.error('unhandled rejection:', reason));
process.on('uncaughtException', (error) => console.error('uncaught exception:', error));

function run(): Promise<string> {
  const control = new Socket({ fd: CONTROL, readable: true, writable: true });
  if (process.argv.includes(GATE_OUTSIDE)) return runInnerShell(control, inside);
  const server = createServer({ pauseOnConnect: false });
  // The agent listens already: who comes before this waits in the kernel.
  const open = () => void server.listen({ fd: LISTENER });
  return runShell({ control: streamTransport(control), server, open, inside });
}

/** A rehearsal's: a name that no worker knows, and a scope that is thrown away. */
function rehearsed(setup: InnerSetup, outside: Outside): Inside {
  const scope = { console: {}, Date: class extends Date {}, Math: {}, performance: {}, crypto: {} };
  const around = { name: `r-${randomText(16)}`, scope: scope as unknown as typeof globalThis };
  const guest = insideOf(around, setup, outside);
  const { load } = guest;
  return {
    ...guest,
    load: (...given) => load(...given).finally(() => rmSync(`${FOLDER}/${around.name}.mjs`, { force: true })),
  };
}

const callOff = rehearseWhenIdle(rehearsed);
void run().then((reason) => {
  writeSync(2, `the agent is gone: ${reason}\n`);
  process.exit(0);
});
