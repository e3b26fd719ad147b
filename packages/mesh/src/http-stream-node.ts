/** HTTP requests whose answers are streams, by `node:http`, and the connections that all requests share. */
import { Agent as HttpAgent, request as requestHttp } from 'node:http';
import { Agent as HttpsAgent, request as requestHttps } from 'node:https';
import type { HttpStreamer } from './http-stream.ts';

/** Connections to cores are kept for the next request; idle ones do not hold the process. */
const plain = { request: requestHttp, agent: new HttpAgent({ keepAlive: true }) };
const secure = { request: requestHttps, agent: new HttpsAgent({ keepAlive: true }) };

/** What requests a URL. */
export const clientOf = ({ protocol }: URL) => (protocol === 'https:' ? secure : plain);

export const stream: HttpStreamer = (method, url, headers, body, { idle_ms, signal }) => {
  return new Promise((resolve, reject) => {
    const { request, agent } = clientOf(url);
    const length = body === undefined ? {} : { 'content-length': String(body.length) };
    const options = { method, headers: { ...headers, ...length }, agent, signal };
    const outgoing = request(url, options, (answer) => {
      const header = (name: string) => {
        const value = answer.headers[name];
        return Array.isArray(value) ? value.join(', ') : value;
      };
      resolve({ status: answer.statusCode ?? 0, header, body: answer });
    });
    outgoing.setTimeout(idle_ms, () => {
      outgoing.destroy(Object.assign(new Error(`nothing came for ${idle_ms} ms`), { name: 'TimeoutError' }));
    });
    outgoing.on('error', (error: NodeJS.ErrnoException) =>
      reject(error.name === 'TimeoutError' ? error : new Error(error.code ?? error.message)),
    );
    outgoing.end(body);
  });
};
