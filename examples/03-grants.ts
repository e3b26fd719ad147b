/** A worker has no power but those it was granted: here one host to fetch from, one folder to write to. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect } from '@hauki/mesh';

const server = createServer((_request, response) => response.end('the weather is fine')).listen(0, '127.0.0.1');
await new Promise((resolve) => server.once('listening', resolve));
const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;

const source = `
  export async function save(url, pointer) {
    const text = await (await fetch(url)).text();
    await hauki.meshfs.write(pointer, text);
    return text;
  }`;

await using mesh = await connect();
const grants = { fetch: [host], meshfs: { write: ['gem-pointer://wiki/reports/'] } };
const scout = mesh.clone<{ save(url: string, pointer: string): string }>({ source }, { grants });

console.log(await scout.save(`http://${host}/`, 'gem-pointer://wiki/reports/weather'));
console.log((await mesh.meshfs.resolve('gem-pointer://wiki/reports/weather')).content);
await scout.save('http://127.0.0.1:1/', 'gem-pointer://wiki/reports/x').catch((e: Error) => console.log(e.message));
await scout.save(`http://${host}/`, 'gem-pointer://wiki/other/x').catch((e: Error) => console.log(e.message));
server.close();
