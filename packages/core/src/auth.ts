/**
 * Who may do what (design, decision 14). Two tokens are made at the first start, each in a file of mode 0600 in the data
 * folder: `admin.token` for people and their scripts, `node.token` for agents, which may do nothing but be nodes.
 * Host and Origin are checked too, so that a web page cannot reach the core through its visitor's browser.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { Forbidden, Unauthorised } from '@hauki/protocol';

export type Scope = 'admin' | 'node';

export interface Principal {
  name: string;
  scope: Scope;
}

const digest = (token: string) => createHash('sha256').update(token).digest();

function loadToken(file: string): string {
  if (existsSync(file)) return readFileSync(file, 'utf8').trim();
  const token = `hauki_${randomBytes(32).toString('base64url')}`;
  const temporary = `${file}.${process.pid}.tmp`;
  // What a crashed start of the same process id left: in a container that id is always the same.
  rmSync(temporary, { force: true });
  const fd = openSync(temporary, 'wx', 0o600);
  writeSync(fd, `${token}\n`);
  fsyncSync(fd);
  closeSync(fd);
  renameSync(temporary, file);
  return token;
}

export class Auth {
  readonly #tokens: { hash: Buffer; principal: Principal }[];
  readonly #hosts: Set<string>;

  /** `hosts`: names under which the core may be asked for, besides loopback's. */
  constructor(data_dir: string, hosts: readonly string[]) {
    this.#tokens = (['admin', 'node'] as const).map((scope) => ({
      hash: digest(loadToken(join(data_dir, `${scope}.token`))),
      principal: { name: scope, scope },
    }));
    this.#hosts = new Set(['localhost', '127.0.0.1', '[::1]', ...hosts.map((h) => h.toLowerCase())]);
  }

  /** Refuses requests that name another host, or come from a page of another origin. */
  checkOrigin(request: IncomingMessage): void {
    const named = (text: string) => text.toLowerCase().replace(/:\d+$/, '');
    const host = named(request.headers.host ?? '');
    if (!this.#hosts.has(host))
      throw new Forbidden({
        why: `This core does not answer for the host ${JSON.stringify(host)}; name it with --host-name`,
      });
    const { origin } = request.headers;
    if (origin === undefined) return;
    const from = URL.canParse(origin) ? named(new URL(origin).host) : '';
    if (!this.#hosts.has(from))
      throw new Forbidden({ why: `Requests from pages of ${JSON.stringify(origin)} are not taken` });
  }

  /** Who sends this request. Throws Unauthorised, saying what to do; the token is in no message. */
  principal(request: IncomingMessage, scope: Scope = 'admin'): Principal {
    const header = request.headers.authorization;
    if (header === undefined)
      throw new Unauthorised({ why: 'A token is needed: send "Authorization: Bearer …". `hauki token` prints it' });
    const token = /^Bearer ([\x21-\x7e]{1,256})$/i.exec(header)?.[1];
    if (token === undefined) throw new Unauthorised({ why: 'The Authorization header is not "Bearer <token>"' });
    return this.whose(token, scope);
  }

  /** Whose token this is, wherever it came from. Throws Unauthorised or Forbidden; the token is in no message. */
  whose(token: string, scope: Scope = 'admin'): Principal {
    const hash = digest(token);
    const found = this.#tokens.find((t) => timingSafeEqual(t.hash, hash))?.principal;
    if (!found) throw new Unauthorised({ why: 'This token is not known here. `hauki token` prints the right one' });
    if (found.scope !== scope) throw new Forbidden({ why: `A ${found.scope} token may not do this` });
    return found;
  }
}
