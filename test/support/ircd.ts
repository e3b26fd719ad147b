/** What tests of IRC share: a real ngircd of their own on a free port, and somebody who watches a channel. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from './mesh.ts';
import { keptPort } from './ports.ts';

/** Where ngircd is installed; undefined where it is not. */
export const NGIRCD = ['/usr/sbin/ngircd', '/usr/bin/ngircd'].find((file) => existsSync(file));

/** Why tests of IRC cannot run here; false where they can. In CI that is a failure, not a skip. */
export const ircMissing: string | false = NGIRCD || process.env.CI ? false : 'ngircd is not installed';

export interface Ircd {
  port: number;
  /** Kills it as a crash would. */
  kill(): Promise<void>;
  /** Starts it again on the same port. */
  start(): Promise<void>;
  /** Ends it, and takes its folder away. */
  stop(): Promise<void>;
}

/** Starts an ngircd. The longest nick it lets in can be set. */
export async function startIrcd({ nick_chars = 31 } = {}): Promise<Ircd> {
  if (!NGIRCD) throw new Error('ngircd is not installed: apt-get install ngircd');
  const port = await keptPort();
  const folder = mkdtempSync(join(tmpdir(), 'hauki-ircd-'));
  chmodSync(folder, 0o755);
  const file = join(folder, 'ngircd.conf');
  writeFileSync(
    file,
    `[Global]
  Name = irc.hauki.test
  Info = a test of Hauki
  Listen = 127.0.0.1
  Ports = ${port}
  MotdPhrase = hello
[Limits]
  MaxNickLength = ${nick_chars}
  MaxConnectionsIP = 0
  MaxConnections = 0
  MaxJoins = 0
  MaxPenaltyTime = 0
[Options]
  DNS = no
  Ident = no
  PAM = no
`,
    { mode: 0o644 },
  );
  let child: ChildProcess | undefined;
  const ircd: Ircd = {
    port,
    async start() {
      const started = spawn(NGIRCD, ['-n', '-f', file], { stdio: 'ignore' });
      child = started;
      await until('ngircd listens', async () => {
        if (started.exitCode !== null) throw new Error(`ngircd ended with ${started.exitCode}`);
        const socket = connect(port, '127.0.0.1');
        const there = await Promise.race([
          once(socket, 'connect').then(() => true),
          once(socket, 'error').then(() => false),
        ]).catch(() => false);
        socket.destroy();
        return there;
      });
    },
    async kill() {
      if (!child || child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    },
    async stop() {
      await ircd.kill();
      rmSync(folder, { recursive: true, force: true });
    },
  };
  await ircd.start();
  return ircd;
}

/** Somebody in a channel. */
export class Watcher {
  /** What was said there, by whom, in its order, over all connections. */
  readonly heard: { nick: string; text: string }[] = [];
  /** Who came, left and was seen there. */
  readonly raw: string[] = [];
  readonly #port: number;
  readonly #nick: string;
  readonly #channel: string;
  readonly #tell: (nick: string, text: string) => void;
  #socket: Socket | undefined;
  #joined = false;

  /** `tell` is called with each line as it is heard. */
  constructor(
    port: number,
    {
      channel = '#ops',
      nick = `w${Math.random().toString(36).slice(2, 8)}`,
      tell = (_: string, __: string) => {},
    } = {},
  ) {
    this.#port = port;
    this.#channel = channel;
    this.#nick = nick;
    this.#tell = tell;
  }

  /** Connects, anew where it was connected before. Resolves when it is in the channel. */
  async join(): Promise<this> {
    this.leave();
    const socket = connect(this.#port, '127.0.0.1');
    this.#socket = socket;
    socket.on('error', () => {});
    let rest = '';
    socket.setEncoding('utf8').on('data', (text) => {
      const lines = (rest + text).split('\r\n');
      rest = lines.pop()!;
      for (const line of lines) this.#take(socket, line);
    });
    socket.write(`NICK ${this.#nick}\r\nUSER w 0 * :w\r\n`);
    await until(`${this.#nick} is in ${this.#channel}`, () => this.#joined);
    return this;
  }

  #take(socket: Socket, line: string): void {
    this.raw.push(line);
    const [, nick = '', command, rest = ''] = /^(?::([^ !]+)[^ ]* )?([A-Z0-9]+) ?(.*)$/.exec(line) ?? [];
    if (command === 'PING') socket.write(`PONG ${rest}\r\n`);
    else if (command === '001') socket.write(`JOIN ${this.#channel}\r\n`);
    else if (command === 'JOIN' && nick === this.#nick) this.#joined = true;
    else if (command === 'PRIVMSG' && rest.startsWith(`${this.#channel} :`)) {
      const text = rest.slice(this.#channel.length + 2);
      this.heard.push({ nick, text });
      this.#tell(nick, text);
    }
  }

  /** What was heard that fits. */
  lines(fits: RegExp | string): string[] {
    return this.heard
      .map(({ text }) => text)
      .filter((text) => (typeof fits === 'string' ? text.includes(fits) : fits.test(text)));
  }

  send(line: string): void {
    this.#socket?.write(`${line}\r\n`);
  }

  say(text: string): void {
    this.send(`PRIVMSG ${this.#channel} :${text}`);
  }

  leave(): void {
    this.#socket?.destroy();
    this.#socket = undefined;
    this.#joined = false;
  }
}
