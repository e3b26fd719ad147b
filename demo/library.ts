/** Serves the documents that `npm ci` brought, over HTTP on loopback: real text that nobody here wrote. */
import { createReadStream, existsSync, globSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, normalize, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../node_modules', import.meta.url));
/** Enough to be worth fifty scouts, few enough for a demo. */
const MOST = 600;
/**
 * The parser's expressions take an interpreter up to a second for twice that in one go, on a machine that others take half
 * of twice as long, and a QuickJS vault may take two.
 */
const MOST_BYTES = 16_000;

export interface Library extends AsyncDisposable {
  host: string;
  base: string;
  paths: string[];
  served: { requests: number; bytes: number };
}

export async function openLibrary(): Promise<Library> {
  const paths = globSync('**/*.{md,markdown}', { cwd: ROOT })
    .filter((path) => statSync(join(ROOT, path)).size <= MOST_BYTES)
    .map((path) => path.split(sep).join('/'))
    .filter((path) => /^[\w@./-]+$/.test(path))
    .sort()
    .slice(0, MOST);
  const served = { requests: 0, bytes: 0 };
  const server = createServer((request, response) => {
    served.requests++;
    const file = normalize(join(ROOT, decodeURIComponent(request.url ?? '/')));
    if (!file.startsWith(ROOT + sep) || !existsSync(file)) return response.writeHead(404).end();
    const { size } = statSync(file);
    if (statSync(file).isDirectory() || request.method === 'HEAD') return response.writeHead(200).end();
    served.bytes += size;
    response.writeHead(200, { 'content-type': 'text/markdown; charset=utf-8', 'content-length': size });
    return createReadStream(file).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    host,
    base: `http://${host}`,
    paths,
    served,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
