/** The SDK's powers in Node: TCP, TLS, the file with the token, the bundler. */
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { ConnectionLost, fromWire } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { type FrameTransport, sessionKey } from '@hauki/rpc/client';
import { askIfSilent, dialUpgrade, secureStream, streamTransport } from '@hauki/rpc/node';
import { CloneLink } from './clone-link.ts';
import { adminTokenFile, defaultDataDir, isThisMachine } from './data-dir.ts';
import { type CoreClient, unanswered } from './http.ts';
import { clientOf } from './http-stream-node.ts';
import type { Link, Powers, Routing } from './powers.ts';

/** A direct connection that has not opened by then is left for the relay. */
const DIRECT_MS = 3_000;
/** A core may answer a clone twice, a line each: when its vault is there, and when its worker is loaded. */
const IN_PARTS = 'application/x-ndjson';
const ACCEPT = `application/json, ${IN_PARTS}`;

function dialTcp(host: string, port: number, timeout_ms: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, noDelay: true });
    const timer = setTimeout(() => socket.destroy(new Error(`no connection within ${timeout_ms} ms`)), timeout_ms);
    socket.once('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      reject(new ConnectionLost({ why: `${host}:${port}: ${error.code ?? error.message}` }));
    });
    socket.once('connect', () => {
      clearTimeout(timer);
      askIfSilent(socket);
      resolve(socket);
    });
  });
}

/** Takes the direct route where that is allowed and opens, else the relay where that is. */
export async function eitherRoute(
  routing: Routing,
  direct: () => Promise<FrameTransport>,
  relay: () => Promise<FrameTransport>,
): Promise<Link> {
  if (routing !== 'relay_only')
    try {
      return { link: await direct(), route: 'direct' };
    } catch (error) {
      if (routing === 'p2p_only') throw error;
    }
  return { link: await relay(), route: 'relay' };
}

/** A mesh's own, for as long as it is used. */
const links = new WeakMap<CoreClient, CloneLink>();

export const powers: Powers = {
  // Not fetch: a clone waits for this, and node:http answers in half the time.
  http(method, url, headers, body, timeout_ms) {
    return new Promise((resolve, reject) => {
      const { request, agent } = clientOf(url);
      const last = Promise.withResolvers<any>();
      // Perhaps nobody waits for it: the first part was enough.
      last.promise.catch(() => {});
      const failed = (error: NodeJS.ErrnoException) => {
        clearTimeout(timer);
        const failure = error.name === 'TimeoutError' ? error : new Error(error.code ?? error.message);
        reject(failure);
        last.reject(unanswered(url.origin, failure, `${method} ${url.pathname}`, timeout_ms));
      };
      const outgoing = request(url, { method, headers: { ...headers, accept: ACCEPT }, agent }, (answer) => {
        const { statusCode: status = 0 } = answer;
        const in_parts = answer.headers['content-type'] === IN_PARTS;
        const chunks: Buffer[] = [];
        let begun = false;
        const take = (part: 0 | -1, told: (body: any) => void) => {
          const text = Buffer.concat(chunks).toString('utf8');
          try {
            told(JSON.parse(in_parts ? text.trimEnd().split('\n').at(part)! : text));
          } catch (error) {
            failed(error as Error);
          }
        };
        answer.on('data', (chunk: Buffer) => {
          chunks.push(chunk);
          if (!in_parts || begun || !chunk.includes('\n')) return;
          begun = true;
          take(0, (body) => resolve({ status, body: { ...body, more: last.promise } }));
        });
        answer.on('error', failed);
        answer.on('end', () => {
          clearTimeout(timer);
          take(-1, (body) => {
            resolve({ status, body });
            if (body.error) last.reject(fromWire(body.error));
            else last.resolve(body);
          });
        });
      });
      // Not a signal: those cost more than the request.
      const timer = setTimeout(() => {
        const error = Object.assign(new Error(`no answer within ${timeout_ms} ms`), { name: 'TimeoutError' });
        failed(error);
        outgoing.destroy(error);
      }, timeout_ms);
      outgoing.on('error', failed);
      outgoing.end(body);
    });
  },

  clone(core, wanted, timeout_ms) {
    const link = links.get(core) ?? new CloneLink(core);
    links.set(core, link);
    return link.ask(wanted, timeout_ms);
  },

  defaults(named) {
    const core = named ?? process.env.HAUKI_URL ?? 'http://127.0.0.1:8000';
    if (process.env.HAUKI_TOKEN) return { core, token: process.env.HAUKI_TOKEN };
    if (!isThisMachine(core)) return { core };
    try {
      return { core, token: readFileSync(adminTokenFile(defaultDataDir()), 'utf8').trim() };
    } catch {
      return { core };
    }
  },

  direct: true,

  async dial(core, { secret }, { jti, routes: { direct, relay } }, routing) {
    // Where a route leaves what is trusted, it runs inside TLS keyed by the ticket.
    const key = direct.tls && (await sessionKey(secret, jti));
    const over = async (dialled: Promise<Duplex>, timeout_ms: number) => {
      const stream = await dialled;
      return streamTransport(key ? await secureStream(stream, jti, key, timeout_ms) : stream);
    };
    return eitherRoute(
      routing,
      () => over(dialTcp(direct.host, direct.port, DIRECT_MS), DIRECT_MS),
      () => over(dialUpgrade(core.base, relay.path, core.token, LIMITS.handshake_ms), LIMITS.handshake_ms),
    );
  },

  async bundle(file, driver) {
    if (file.endsWith('.py')) {
      const { source, language } = await (await import('./bundle-python.ts')).bundlePython(file);
      return { source, language };
    }
    const { bundle } = await import('./bundle.ts');
    return bundle(file, { driver });
  },

  onIdle(run) {
    if (at_idle.size === 0) process.on('beforeExit', idle);
    at_idle.add(run);
    return () => {
      at_idle.delete(run);
      if (at_idle.size === 0) process.off('beforeExit', idle);
    };
  },
};

/** One listener for all meshes of the process: Node warns where there are more than ten. */
const at_idle = new Set<() => void>();
const idle = () => {
  for (const run of at_idle) run();
};
