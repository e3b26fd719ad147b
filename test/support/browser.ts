/**
 * A real Chromium without a window, driven over its DevTools protocol on two pipes: no port, no dependency. Its whole
 * process group ends with the test, and its folder with it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

const COMMAND_TIMEOUT_MS = 30_000;
const CLOSE_TIMEOUT_MS = 5_000;

const executable = (): string | undefined =>
  ['chromium', 'chromium-browser', 'google-chrome']
    .flatMap((name) => (process.env.PATH ?? '/usr/bin').split(':').map((folder) => join(folder, name)))
    .find((file) => existsSync(file));

/** Why tests with a browser cannot run here, or false. In CI there is no such excuse. */
export const missingBrowser = (): string | false =>
  process.env.CI === 'true' || executable() ? false : 'chromium is not installed';

export interface Page {
  /** Runs a script, awaits what it gives, and returns it by value. Rejects with what it throws. */
  evaluate(script: string): Promise<any>;
  /** URLs of all requests and WebSockets since the page began. */
  readonly requested: string[];
  /** What the page wrote to its console, and errors that nobody caught. */
  readonly said: string[];
}

export interface Browser {
  /** Opens a page and waits until it is loaded. */
  open(url: string): Promise<Page>;
  close(): Promise<void>;
}

type Message = {
  id?: number;
  method?: string;
  params?: any;
  result?: any;
  error?: { message: string };
  sessionId?: string;
};

export async function startBrowser(): Promise<Browser> {
  const file = executable();
  if (!file) throw new Error('chromium is not installed: apt-get install chromium');
  const folder = mkdtempSync(join(tmpdir(), 'hauki-browser-'));
  const child: ChildProcess = spawn(
    file,
    [
      '--headless=new',
      '--remote-debugging-pipe',
      `--user-data-dir=${folder}`,
      // Its own sandbox does not start for root; what runs in it is our own page.
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-extensions',
      '--disable-sync',
      '--use-mock-keychain',
      'about:blank',
    ],
    {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
      // A group of its own, so that all its processes can be ended.
      detached: true,
      // What it keeps beside its user data goes the same way.
      env: { ...process.env, TMPDIR: folder, HOME: folder, XDG_CONFIG_HOME: folder, XDG_CACHE_HOME: folder },
    },
  );
  const into = child.stdio[3] as Writable;
  const waiting = new Map<number, (message: Message) => void>();
  const listeners = new Set<(message: Message) => void>();
  let count = 0;
  let rest = '';
  into.on('error', () => {});
  (child.stdio[4] as Readable).setEncoding('utf8').on('data', (chunk: string) => {
    const texts = (rest + chunk).split('\0');
    rest = texts.pop()!;
    for (const text of texts) {
      const message = JSON.parse(text) as Message;
      if (message.id === undefined) for (const listener of listeners) listener(message);
      else waiting.get(message.id)?.(message);
    }
  });
  const send = (method: string, params: object = {}, sessionId?: string): Promise<any> =>
    new Promise((resolve, reject) => {
      const id = ++count;
      const timer = setTimeout(() => done({ error: { message: 'no answer in time' } }), COMMAND_TIMEOUT_MS);
      const done = ({ result, error }: Message) => {
        clearTimeout(timer);
        waiting.delete(id);
        if (error) reject(new Error(`${method}: ${error.message}`));
        else resolve(result);
      };
      waiting.set(id, done);
      into.write(`${JSON.stringify({ id, method, params, ...(sessionId && { sessionId }) })}\0`);
    });
  child.once('exit', () => {
    for (const done of [...waiting.values()]) done({ error: { message: 'the browser has ended' } });
  });

  return {
    async open(url) {
      const { targetId } = await send('Target.createTarget', { url: 'about:blank' });
      const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true });
      const requested: string[] = [];
      const said: string[] = [];
      const loaded = new Promise<void>((resolve) =>
        listeners.add(({ method, params, sessionId: of }) => {
          if (of !== sessionId) return;
          if (method === 'Network.requestWillBeSent') requested.push(params.request.url);
          else if (method === 'Network.webSocketCreated') requested.push(params.url);
          else if (method === 'Runtime.exceptionThrown') said.push(params.exceptionDetails.exception?.description);
          else if (method === 'Runtime.consoleAPICalled') said.push(params.args.map((a: any) => a.value).join(' '));
          else if (method === 'Page.loadEventFired') resolve();
        }),
      );
      for (const domain of ['Network', 'Runtime', 'Page']) await send(`${domain}.enable`, {}, sessionId);
      await send('Page.navigate', { url }, sessionId);
      await loaded;
      return {
        requested,
        said,
        async evaluate(script) {
          const how = { expression: script, awaitPromise: true, returnByValue: true };
          const { result, exceptionDetails } = await send('Runtime.evaluate', how, sessionId);
          if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
          return result.value;
        },
      };
    },
    async close() {
      if (child.exitCode === null && child.signalCode === null) {
        const ended = once(child, 'exit');
        // Asked first: it then waits for its own children.
        await send('Browser.close').catch(() => {});
        const timer = setTimeout(() => child.kill('SIGKILL'), CLOSE_TIMEOUT_MS);
        await ended;
        clearTimeout(timer);
      }
      try {
        process.kill(-child.pid!, 'SIGKILL');
      } catch {
        // Nothing of the group is left, as it should be.
      }
      rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
    },
  };
}
