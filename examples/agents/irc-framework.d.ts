/** irc-framework brings no types; as much of it as the agent uses. */
declare module 'irc-framework' {
  export class IrcClient {
    on(event: string, run: (event: any) => void): void;
    connect(options: { host?: string; port: number; nick: string; auto_reconnect: boolean }): void;
    join(channel: string): void;
    say(target: string, text: string): void;
    quit(reason: string): void;
  }
  const framework: { Client: typeof IrcClient };
  export default framework;
}
