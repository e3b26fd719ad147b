/**
 * A kernel's voice on IRC: it says in `#ops` that the kernel is online and what it has become, and answers `!status` and
 * `!routes`. It informs; nothing that is said to it changes anything.
 *
 *   hauki evolve plugins/irc.ts --connect hauki:16667 --read gem-pointer://kernel/ --write gem-pointer://irc/ \
 *     --read gem-pointer://irc/ --time --random
 *
 * The grants say all that it may do: connect to that one server, read its kernel's status and changes, and keep what it
 * has announced under `gem-pointer://irc/`. `PUT settings` changes channel, heartbeat and pace while it runs.
 */
import './irc/globals.ts';
import type { KernelPage, KernelSummary } from '@hauki/microkernel';
import { Announcer, type Cursor } from './irc/announcer.ts';
import { Link } from './irc/link.ts';
import { answerTo, summary } from './irc/speech.ts';
import type { ByteStream } from './irc/transport.ts';

declare const hauki: {
  connect(target: string): Promise<ByteStream>;
  meshfs: {
    resolve(pointer: string): Promise<{ content: string }>;
    write(pointer: string, content: string, media_type?: string): Promise<object>;
  };
};

const DEFAULT_SERVER = 'hauki:16667';
const settings = { channel: '#ops', heartbeat_s: 300, pace_ms: 2_000 };
type Settings = typeof settings;
const BOUNDS = { heartbeat_s: [0, 86_400], pace_ms: [10, 60_000] } as const;

let link: Link | undefined;
let server = DEFAULT_SERVER;
/** What the link was made for. */
let place = '';
let page: KernelPage | undefined;
let module_name = '';
let heartbeat: ReturnType<typeof setInterval> | undefined;
let problem: string | null = null;

const log = (line: string) => {
  problem = line;
  console.log(line);
};
const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

async function read<T>(pointer: string): Promise<T> {
  return JSON.parse((await hauki.meshfs.resolve(pointer)).content);
}
const kept = async <T>(name: string): Promise<T | undefined> =>
  read<T>(`gem-pointer://irc/${module_name}/${name}`).catch((error) => {
    if (error.name === 'PointerUnknown') return undefined;
    throw error;
  });
const keep = (name: string, value: object) =>
  hauki.meshfs.write(`gem-pointer://irc/${module_name}/${name}`, JSON.stringify(value), 'application/json');
const status = () => read<KernelSummary>('gem-pointer://kernel/status');

/** What of a wish can be a setting. Throws RangeError. */
function wished(given: Record<string, unknown>): Partial<Settings> {
  for (const [name, value] of Object.entries(given)) {
    const [least, most] = BOUNDS[name as keyof typeof BOUNDS] ?? [];
    if (name === 'channel') {
      if (typeof value !== 'string' || !/^[#&][^\s,:\p{C}]{1,49}$/u.test(value))
        throw new RangeError('channel: a name as in #ops');
    } else if (least === undefined) throw new RangeError(`there is no setting ${name.slice(0, 40)}`);
    else if (!Number.isInteger(value) || (value as number) < least || (value as number) > most)
      throw new RangeError(`${name}: a whole number from ${least} to ${most}`);
  }
  return given as Partial<Settings>;
}

async function leave(reason: string): Promise<void> {
  const left = link;
  link = undefined;
  clearInterval(heartbeat);
  await Promise.race([left?.close(reason), wait(1_000)]);
}

/** Sees to it that there is a link as it is wanted now. */
async function move(to: string): Promise<void> {
  const wanted = JSON.stringify([to, settings]);
  if (link && wanted === place) return;
  [server, place] = [to, wanted];
  await leave('moving');
  enter(page!.kernel);
}

function enter(name: string): void {
  const opened: Link = new Link({
    channel: settings.channel,
    nick: name,
    pace_ms: settings.pace_ms,
    dial: async () => {
      try {
        return await hauki.connect(server);
      } catch (error) {
        log(`${server}: ${(error as Error).message}`);
        throw error;
      }
    },
    heard: ({ nick, target, message, type }) => {
      if (type !== 'privmsg') return;
      const to = target.toLowerCase() === settings.channel.toLowerCase() ? settings.channel : nick;
      void answerTo(message, name, status)
        .then((lines) => {
          for (const line of lines) opened.answer(to, line);
        })
        .catch((error) => log(`not answered: ${error.message}`));
    },
    // What was wrong with the connection is so no longer.
    entered: () => {
      problem = null;
    },
    log,
  });
  link = opened;
  if (settings.heartbeat_s > 0)
    heartbeat = setInterval(() => {
      if (!opened.joined) return;
      void status()
        .then((now) => opened.answer(settings.channel, summary(now)))
        .catch((error) => log(`no heartbeat: ${error.message}`));
    }, settings.heartbeat_s * 1000);
}

const announcer = new Announcer({
  page: (after) => read(`gem-pointer://kernel/events/${after}`),
  async say(line, signal) {
    if (!link) throw new Error('there is no connection');
    await link.say(line, signal);
  },
  async load(name) {
    module_name = name;
    return kept<Cursor>('announced');
  },
  save: async (_, cursor) => void (await keep('announced', cursor)),
  async serves(self, now) {
    if (!self) return link ? leave('not serving') : undefined;
    if (module_name === '') {
      module_name = self.module;
      Object.assign(settings, await kept<Settings>('settings'));
    }
    page = now;
    await move(self.grants.connect[0] ?? DEFAULT_SERVER);
  },
  wait,
  log,
});
void announcer.run();

/** Another version takes over: this one says nothing more, and leaves the server. What was said is kept already. */
export async function dehydrate(): Promise<null> {
  await announcer.handOver();
  await leave('another version takes over');
  return null;
}

export function hydrate(): void {}

export function onEnd(reason: string): Promise<void> {
  announcer.stop();
  return leave(reason);
}

export const routes = ['GET /', 'GET /settings', 'PUT /settings'];

export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === '/' && request.method === 'GET')
      return Response.json({
        kernel: page?.kernel ?? null,
        server,
        channel: settings.channel,
        joined: link?.joined ?? false,
        nick: link?.nick ?? null,
        announced: announcer.cursor?.announced ?? null,
        online_announced: announcer.cursor !== undefined && announcer.cursor.boot === page?.boot,
        problem,
      });
    if (pathname !== '/settings') return new Response('there is / and /settings\n', { status: 404 });
    if (request.method === 'PUT') {
      try {
        Object.assign(settings, wished((await request.json()) as Record<string, unknown>));
      } catch (error) {
        return Response.json({ error: (error as Error).message }, { status: 400 });
      }
      if (module_name !== '') await keep('settings', settings);
      if (link) await move(server);
    }
    return Response.json(settings);
  },
};
