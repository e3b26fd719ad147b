/**
 * A worker agent: watches `#ops`, picks the kernel that holds the least, posts a data scraper to it, and uses its new
 * route. What it may do its token says, not the channel: `hauki token create --name scout --scope evolve --expires 1h`.
 *
 *   HAUKI_TOKEN=… HAUKI_URL=… node examples/agents/ops-agent.ts 127.0.0.1:6667
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from '@hauki/mesh';
import IRC from 'irc-framework';

const [host, port] = (process.argv[2] ?? 'hauki:16667').split(':');
const source = readFileSync(new URL('../plugins/data_scraper.ts', import.meta.url), 'utf8');
const page = '<title>Ports</title><h1>Tides</h1><a href="/oulu">Oulu</a> <a href="/kemi">Kemi &amp; Ajos</a>';
/** Kernels that have not answered after so long are not asked for more; news of one may take longer. */
const [ANSWERS_MS, NEWS_MS] = [15_000, 60_000];

const irc = new IRC.Client();
// Many servers take nine characters at most.
const nick = `scout${process.pid.toString(36).slice(-4)}`;
const heard: string[] = [];
irc.on(
  'privmsg',
  ({ target, message }: { target: string; message: string }) => target === '#ops' && heard.push(message),
);
irc.connect({ ...(host ? { host } : {}), port: Number(port), nick, auto_reconnect: false });
const { promise: joined, resolve: there, reject: never } = Promise.withResolvers<void>();
irc.on('registered', () => irc.join('#ops'));
irc.on('join', () => there());
irc.on('irc error', ({ reason }: { reason?: string }) => never(new Error(`${host}:${port} says: ${reason}`)));
irc.on('close', () => never(new Error(`${host}:${port} does not answer, or has ended the connection`)));
await joined;

await using mesh = await connect();
const expected = (await mesh.kernels.list()).length;
irc.say('#ops', '!status');
const kernels = new Map<string, number>();
for (const until = Date.now() + ANSWERS_MS; kernels.size < expected && Date.now() < until; await sleep(50))
  for (const line of heard) {
    const [, kernel, modules] = /^\[(Microkernel-[a-z0-9-]+)\] up [^,]*, (\d+) modules?/.exec(line) ?? [];
    if (kernel) kernels.set(kernel, Number(modules));
  }
const [idle] = [...kernels].sort(([, a], [, b]) => a - b).map(([kernel]) => kernel);
if (!idle) throw new Error(`no kernel answers on #ops of ${host}:${port}`);
console.log(`${idle} holds the least of ${kernels.size}`);

const tests = [{ path: '/', method: 'POST', body: page, expect: { text: '"title":"Ports"' } }];
await mesh.kernels.evolve({ kernel: idle, target_module: 'data_scraper.ts', content: source, tests });
const news = `[${idle}] Evolved. New routes available at `;
for (const until = Date.now() + NEWS_MS; !heard.some((line) => line.startsWith(news)); await sleep(50))
  if (Date.now() > until) throw new Error(`${idle} says nothing on #ops`);
const route = heard.find((line) => line.startsWith(news))!.slice(news.length);
console.log(`it says: ${news}${route}`);

const authorization = `Bearer ${process.env.HAUKI_TOKEN}`;
const answer = await fetch(process.env.HAUKI_URL + route, { method: 'POST', body: page, headers: { authorization } });
console.log(`scraped: ${await answer.text()}`);
irc.quit('done');
