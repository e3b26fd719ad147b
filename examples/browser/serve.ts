/** A page that clones a worker, with the SDK bundled for it. Run it: node examples/browser/serve.ts, beside hauki up */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { bundleClient } from '../../scripts/client-size.ts';

/** Serves the page on loopback; 0: a free port. Resolves with its URL. */
export async function servePage(port = 0): Promise<{ url: string; close(): void }> {
  const { chunks } = await bundleClient();
  const scripts = new Map(chunks.map(({ file, code }) => [`/${file}`, code]));
  const page = readFileSync(new URL('index.html', import.meta.url));
  const server = createServer((request, response) => {
    const script = scripts.get(request.url!.split('?')[0]!);
    response.writeHead(200, { 'content-type': script ? 'text/javascript' : 'text/html; charset=utf-8' });
    response.end(script ?? page);
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as { port: number }).port}/`;
  return {
    url,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

if (import.meta.main) console.log(`Open ${(await servePage(8080)).url} in a browser`);
