/**
 * What runs inside a vault whose guest is Node: fd 3 = the listening socket, fd 4 = the control channel, and nothing
 * else. With the argument `gate-outside` there is no listening socket, and fd 4 leads to the gate (`outer-shell.ts`).
 * It ends when fd 4 does, so that a vault never outlives its agent.
 */
import { writeFileSync } from 'node:fs';
import { createServer, Socket } from 'node:net';
import { streamTransport } from '@hauki/rpc/node';
import { createConsole, createContext } from './context.ts';
import { FastRequest, useFastHttp } from './fast-http.ts';
import { createGuest, type Inside, type Outside } from './guest.ts';
import { GATE_OUTSIDE, type InnerSetup, runInnerShell } from './inner-shell.ts';
import { namesPointers } from './modules.ts';
import { hookModules, placed } from './node-modules.ts';
import { runShell } from './shell.ts';
import { stripTypes } from './typescript.ts';

const LISTENER = 3;
const CONTROL = 4;
/** The only writable folder of the vault. */
const HOME = '/tmp';

/** Makes the guest around the worker's module. */
function inside(setup: InnerSetup, outside: Outside): Inside {
  const context = createContext(setup.worker, outside, (fetched) => {
    const body = fetched.base64 === undefined ? fetched.text : Buffer.from(fetched.base64, 'base64');
    const empty = fetched.status === 204 || fetched.status === 205 || fetched.status === 304;
    const response = new Response(empty ? null : body, {
      status: fetched.status,
      statusText: fetched.status_text,
      headers: fetched.headers,
    });
    Object.defineProperty(response, 'url', { value: fetched.url });
    return response;
  });
  Object.assign(globalThis, { hauki: context, fetch: context.fetch });
  Object.assign(console, createConsole(context.write_log));
  if (setup.kind === 'plugin') useFastHttp();
  return createGuest({
    outside,
    context,
    request: (...given) => new FastRequest(...given) as unknown as Request,
    async evaluate(source, language) {
      const file = `${HOME}/worker.mjs`;
      if (namesPointers(source)) hookModules(setup, `file://${file}`);
      writeFileSync(file, language === 'typescript' ? stripTypes(source) : source);
      try {
        return await import(`file://${file}`);
      } catch (error) {
        throw placed(error, source, setup.modules);
      }
    },
  });
}

// A worker's stray rejection is its own affair: it is logged, and calls under way go on.
process.on('unhandledRejection', (reason) => console.error('unhandled rejection:', reason));
process.on('uncaughtException', (error) => console.error('uncaught exception:', error));

const control = new Socket({ fd: CONTROL, readable: true, writable: true });
let reason: string;
if (process.argv.includes(GATE_OUTSIDE)) reason = await runInnerShell(control, inside);
else {
  const server = createServer({ pauseOnConnect: false });
  server.listen({ fd: LISTENER });
  reason = await runShell({ control: streamTransport(control), server, inside });
}
process.stderr.write(`the agent is gone: ${reason}\n`);
process.exit(0);
