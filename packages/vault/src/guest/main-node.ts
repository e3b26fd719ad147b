/**
 * What runs inside an lxc vault: Node with fd 3 = the listening socket, fd 4 = the control channel, and nothing else.
 * It ends when the control channel does, so that a vault never outlives its agent.
 */
import { writeFileSync } from 'node:fs';
import { createServer, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { streamTransport } from '@hauki/rpc/node';
import { createConsole, createContext } from './context.ts';
import { createGuest } from './guest.ts';
import { runShell } from './shell.ts';
import { stripTypes, withPlace } from './typescript.ts';

const LISTENER = 3;
const CONTROL = 4;
/** The only writable folder of the vault. */
const FOLDER = tmpdir();

const control = new Socket({ fd: CONTROL, readable: true, writable: true });
const server = createServer({ pauseOnConnect: false });
server.listen({ fd: LISTENER });

// A worker's stray rejection is its own affair: it is logged, and calls under way go on.
process.on('unhandledRejection', (reason) => console.error('unhandled rejection:', reason));
process.on('uncaughtException', (error) => console.error('uncaught exception:', error));

const reason = await runShell({
  control: streamTransport(control),
  server,
  inside(setup, outside) {
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
    return createGuest({
      outside,
      context,
      async evaluate(source, language) {
        const file = `${FOLDER}/worker.mjs`;
        writeFileSync(file, language === 'typescript' ? stripTypes(source) : source);
        try {
          return await import(`file://${file}`);
        } catch (error) {
          throw withPlace(error, source);
        }
      },
    });
  },
});
process.stderr.write(`the agent is gone: ${reason}\n`);
process.exit(0);
