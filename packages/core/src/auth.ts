/**
 * Who asks (design, decision 14). Two tokens are made at the first start, each in a file of mode 0600 in the data
 * folder: `admin.token` for people and their scripts, `node.token` for agents, which may do nothing but be nodes. All
 * others are made from these and narrower (`tokens.ts`); what a token may do says `rights.ts`.
 * Host and Origin are checked too, so that a web page cannot reach the core through its visitor's browser.
 */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { BadInput, Forbidden, Unauthorised } from '@hauki/protocol';
import { type Asked, originCheck } from '@hauki/rpc/node';
import { ADMIN, demand, NODE, type Principal, type Scope } from './rights.ts';
import { hashOf, newSecret, type TokenStore } from './tokens.ts';

export type { Principal, Scope } from './rights.ts';

/** What a route's `config` says about who may use it; one that says nothing is refused to everybody. */
export interface RouteAccess {
  /** Needs no token. */
  open?: boolean;
  /** Needs a token with this scope, or with one of these; `any`: any token. Targets are the route's own to check. */
  scope?: Scope | readonly Scope[] | 'any';
}

declare module 'fastify' {
  interface FastifyContextConfig extends RouteAccess {
    /** The body comes as text. */
    raw?: boolean;
  }
  interface FastifyRequest {
    /** Who asks; unset on open routes. */
    principal: Principal;
  }
}

/** What an Authorization header can carry. */
const TOKEN = /^[\x21-\x7e]{1,256}$/;

/** The token in a file, which is made if need be. Throws BadInput for one that nobody could ask with. */
function loadToken(file: string): string {
  if (existsSync(file)) {
    const kept = readFileSync(file, 'utf8').trim();
    if (TOKEN.test(kept)) return kept;
    throw new BadInput({
      what: file,
      why: `it is ${kept === '' ? 'empty' : 'damaged'}: no token stands in it. Write the token there again; or remove the file and start again, then a new one is made, and whoever has the old one is refused`,
    });
  }
  const token = newSecret();
  const temporary = `${file}.tmp`;
  // What a killed start left.
  rmSync(temporary, { force: true });
  const fd = openSync(temporary, 'wx', 0o600);
  writeSync(fd, `${token}\n`);
  fsyncSync(fd);
  closeSync(fd);
  renameSync(temporary, file);
  return token;
}

export class Auth {
  /** By the hashes of their tokens: how long it takes to look for one tells nothing of a token. */
  readonly #first: Map<string, Principal>;
  /** What a connection last asked with, and the hash of the token in it. */
  readonly #hashed = new WeakMap<object, { header: string; token: string; hash: string }>();
  /** Refuses requests that name another host, and those of pages of another origin. */
  readonly checkOrigin: ReturnType<typeof originCheck>;
  readonly #tokens: TokenStore | undefined;

  /** `hosts`: names under which the core may be asked for, besides loopback's. `tokens`: those made from the first two. */
  constructor(data_dir: string, hosts: readonly string[], tokens?: TokenStore) {
    this.#first = new Map(
      [ADMIN, NODE].map((principal) => [hashOf(loadToken(join(data_dir, `${principal.id}.token`))), principal]),
    );
    this.checkOrigin = originCheck('core', hosts);
    this.#tokens = tokens;
  }

  /** Whose token this is, wherever it came from (a header, a first frame). Throws Unauthorised; says nothing of it. */
  bearer(token: string, hash = hashOf(token)): Principal {
    // An empty token file must not let in whoever says nothing.
    const found = token === '' ? undefined : (this.#first.get(hash) ?? this.#tokens?.findHash(hash));
    if (!found)
      throw new Unauthorised({
        why: 'This token is not known here: it is wrong, was revoked, or has expired. `hauki token` prints the right one',
      });
    return found;
  }

  /** Who sends this request. Throws Unauthorised, saying what to do; the token is in no message. */
  authenticate(request: Pick<Asked, 'headers' | 'socket'>): Principal {
    const header = request.headers.authorization;
    if (header === undefined)
      throw new Unauthorised({ why: 'A token is needed: send "Authorization: Bearer …". `hauki token` prints it' });
    // What a connection asks with is as a rule the same each time.
    let hashed = this.#hashed.get(request.socket);
    if (hashed?.header !== header) {
      const token = /^Bearer ([\x21-\x7e]{1,256})$/i.exec(header)?.[1];
      if (token === undefined) throw new Unauthorised({ why: 'The Authorization header is not "Bearer <token>"' });
      hashed = { header, token, hash: hashOf(token) };
      this.#hashed.set(request.socket, hashed);
    }
    return this.bearer(hashed.token, hashed.hash);
  }

  /** Who sends this request, if its token has the scope. Throws Unauthorised or Forbidden. */
  principal(request: IncomingMessage, scope: Scope = 'admin'): Principal {
    const principal = this.authenticate(request);
    // An admin may make a node's token, but its own is too mighty to lie on nodes.
    if (scope === 'node' && !principal.scopes.includes('node'))
      throw new Forbidden({
        why: `A token with the scope ${principal.scopes.join(', ')} may not be a node: \`hauki token create --name … --scope node\` makes one that may`,
        scope,
      });
    demand(principal, { scope });
    return principal;
  }

  /** Who may pass the door of a route, by what the route declares; undefined at an open one. */
  admit(request: IncomingMessage, { open, scope }: RouteAccess, route: string): Principal | undefined {
    if (open) return undefined;
    const principal = this.authenticate(request);
    if (scope === undefined) throw new Forbidden({ why: `${route} declares no scope, so nobody may use it` });
    if (scope !== 'any') demand(principal, { scope });
    return principal;
  }
}
