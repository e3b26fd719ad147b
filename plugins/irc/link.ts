/**
 * A place in one channel of one server, kept for as long as it is wanted: connected again after whatever ended it, and
 * joined again. What is said is confirmed by the server or said again.
 *
 * What always holds: one line is on its way at a time, and no more leave than the pace allows (RFC 1459, section 8.10);
 * `say` resolves only when the server has taken the line (it answers a PING that went behind it), so that a line is lost
 * with no connection, and said twice only where the connection ended before the server's answer came.
 */
import { pause } from '@hauki/mesh/pause';
import framework, { type IrcClient, type IrcMessage } from 'irc-framework/dist/browser/static/browser.js';
import { Pace } from './pace.ts';
import { type ByteStream, transportOver } from './transport.ts';

export interface LinkOptions {
  channel: string;
  nick: string;
  /** Milliseconds from one line to the next, after a few at once. */
  pace_ms: number;
  dial(): Promise<ByteStream>;
  heard(message: IrcMessage): void;
  /** It is in the channel. */
  entered(): void;
  log(line: string): void;
}

/** First wait before a server is tried again, doubled up to the second; each time a bit more or less, by chance. */
const AGAIN_MS = { first: 500, most: 60_000 };
/** For the server's word that a line has arrived. */
const CONFIRM_MS = 30_000;
/** A channel that does not let it in is tried again, a better nick too. */
const REJOIN_MS = 5_000;
/** Answers that wait. More are not given. */
const ANSWERS = 8;

interface Live {
  client: IrcClient;
  joined: boolean;
  /** Aborted when the connection is over. */
  over: AbortSignal;
}

export class Link {
  readonly options: LinkOptions;
  readonly #pace: Pace;
  readonly #closed = new AbortController();
  #live: Live | undefined;
  /** Run at each change: joined, lost, closed. */
  readonly #watchers = new Set<() => void>();
  readonly #pongs = new Map<string, (sent: boolean) => void>();
  #count = 0;
  #answers = 0;
  #kept: Promise<void>;
  /** Connections that came about. */
  connections = 0;

  constructor(options: LinkOptions) {
    this.options = options;
    this.#pace = new Pace(options.pace_ms);
    this.#kept = this.#keep();
  }

  get joined(): boolean {
    return this.#live?.joined ?? false;
  }

  /** Its nick on the server, while it is there. */
  get nick(): string | undefined {
    return this.#live?.joined ? this.#live.client.user.nick : undefined;
  }

  /** Says a line in the channel. Resolves when the server has it; rejects with the signal's reason, or when it is closed. */
  async say(text: string, signal: AbortSignal): Promise<void> {
    for (;;) {
      await this.#whenJoined(signal);
      await this.#pace.take(signal);
      const live = this.#live;
      // Between a line's being sent and its confirmation nothing is given up but the connection.
      if (live?.joined && (await this.#sent(live, text))) return;
    }
  }

  /** Answers somebody, if there is room and time for it; nobody hears whether it arrived. */
  answer(target: string, text: string): void {
    if (this.#answers >= ANSWERS) return;
    this.#answers++;
    void this.#pace
      .take(this.#closed.signal)
      .then(() => this.#live?.joined && this.#live.client.say(target, text))
      .catch(() => {})
      .finally(() => this.#answers--);
  }

  /** Leaves the server. */
  async close(reason: string): Promise<void> {
    const live = this.#live;
    this.#closed.abort(new Error('the link is closed'));
    live?.client.quit(reason);
    this.#changed();
    await this.#kept;
  }

  #changed(): void {
    for (const run of [...this.#watchers]) run();
  }

  #whenJoined(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const stopped = [signal, this.#closed.signal].find(({ aborted }) => aborted);
        if (!this.joined && !stopped) return;
        this.#watchers.delete(look);
        signal.removeEventListener('abort', look);
        if (stopped) reject(stopped.reason);
        else resolve();
      };
      this.#watchers.add(look);
      signal.addEventListener('abort', look);
      look();
    });
  }

  /** Whether the server has taken the line. */
  async #sent(live: Live, text: string): Promise<boolean> {
    const token = `hauki-${++this.#count}`;
    const { client, over } = live;
    return new Promise((resolve) => {
      const done = (sent: boolean) => {
        clearTimeout(timer);
        over.removeEventListener('abort', lost);
        this.#pongs.delete(token);
        resolve(sent);
      };
      const lost = () => done(false);
      const timer = setTimeout(() => {
        this.options.log('the server does not answer; connecting again');
        client.connection.end(null, true);
        done(false);
      }, CONFIRM_MS);
      over.addEventListener('abort', lost);
      this.#pongs.set(token, done);
      client.say(this.options.channel, text);
      client.raw('PING', token);
    });
  }

  async #keep(): Promise<void> {
    const { signal } = this.#closed;
    let wait_ms = AGAIN_MS.first;
    while (!signal.aborted) {
      const was_joined = await this.#once();
      if (signal.aborted) return;
      wait_ms = was_joined ? AGAIN_MS.first : Math.min(wait_ms * 2, AGAIN_MS.most);
      // Fifty kernels that lost one server do not come back in one moment.
      await pause(wait_ms * (0.5 + Math.random()), signal);
    }
  }

  /** One connection, from its first line to its end. Resolves with whether it ever was in the channel. */
  #once(): Promise<boolean> {
    const { channel, nick, dial, heard, log } = this.options;
    const client = new framework.Client();
    const over = new AbortController();
    const live: Live = { client, joined: false, over: over.signal };
    const same = (one: string | undefined, other: string) => one?.toLowerCase() === other.toLowerCase();
    let registered = false;
    let was_joined = false;
    let tried = 0;
    const retry = setInterval(() => {
      if (!registered) return;
      if (!live.joined) client.join(channel);
      else if (client.user.nick !== nick) client.changeNick(nick);
    }, REJOIN_MS);
    const in_channel = (joined: boolean) => {
      live.joined = joined;
      was_joined ||= joined;
      if (joined) this.options.entered();
      this.#changed();
    };
    const next_nick = () => {
      if (registered) return;
      tried++;
      client.changeNick(
        tried === 1 ? nick.replace('Microkernel', 'mk') : `mk${Math.random().toString(36).slice(2, 8)}`,
      );
    };
    client.on('registered', () => {
      registered = true;
      client.join(channel);
    });
    client.on('nick in use', next_nick);
    client.on('nick invalid', next_nick);
    client.on('join', (event) => {
      if (same(event.nick, client.user.nick) && same(event.channel, channel)) in_channel(true);
    });
    client.on('part', (event) => {
      if (same(event.nick, client.user.nick) && same(event.channel, channel)) in_channel(false);
    });
    client.on('kick', (event) => {
      if (same(event.kicked, client.user.nick) && same(event.channel, channel)) in_channel(false);
    });
    client.on('irc error', ({ error, reason }) => {
      log(`the server refuses: ${error}: ${reason ?? ''}`);
      // The line on its way did not arrive: it waits until the channel is open again.
      if (error !== 'cannot_send_to_channel') return;
      for (const done of [...this.#pongs.values()]) done(false);
      in_channel(false);
    });
    client.on('pong', ({ message }) => this.#pongs.get(message)?.(true));
    client.on('message', (message) => {
      if (live.joined) heard(message);
    });
    return new Promise((resolve) => {
      client.on('socket close', () => {
        clearInterval(retry);
        live.joined = false;
        if (this.#live === live) this.#live = undefined;
        over.abort(new Error('the connection is over'));
        this.#changed();
        resolve(was_joined);
      });
      this.#live = live;
      this.connections++;
      client.connect({
        host: channel,
        port: 0,
        nick,
        username: 'hauki',
        gecos: nick,
        version: 'hauki',
        auto_reconnect: false,
        ping_interval: 20,
        ping_timeout: 60,
        message_max_length: 400,
        transport: transportOver(dial),
      });
      // What was closed while it was being opened.
      if (this.#closed.signal.aborted) client.connection.end(null, true);
    });
  }
}
