/** irc-framework's own build for browsers: one file, without Node's modules. As much of it as we use. */
declare module 'irc-framework/dist/browser/static/browser.js' {
  export interface IrcMessage {
    nick: string;
    target: string;
    message: string;
    type: string;
  }
  export interface IrcClient {
    user: { nick: string };
    connection: { end(data?: string | null, had_error?: boolean): void };
    on(event: 'message', run: (message: IrcMessage) => void): void;
    on(event: 'pong', run: (pong: { message: string }) => void): void;
    on(event: 'join' | 'part', run: (event: { nick: string; channel: string }) => void): void;
    on(event: 'kick', run: (event: { kicked: string; channel: string }) => void): void;
    on(event: 'irc error', run: (event: { error: string; channel?: string; reason?: string }) => void): void;
    on(event: 'registered' | 'nick in use' | 'nick invalid' | 'socket close', run: () => void): void;
    connect(options: object): void;
    join(channel: string): void;
    say(target: string, text: string): void;
    raw(...words: string[]): void;
    changeNick(nick: string): void;
    quit(reason: string): void;
  }
  const framework: { Client: new () => IrcClient };
  export default framework;
}
