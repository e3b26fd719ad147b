/** A worker has no power but those it was granted: here one host, one method, one folder, and a key that it never sees. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect } from '@hauki/mesh';

const server = createServer(({ headers }, response) => {
  response.end(headers.authorization === 'Bearer sunny-42' ? 'the weather is fine' : 'who are you?');
}).listen(0, '127.0.0.1');
await new Promise((resolve) => server.once('listening', resolve));
const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;

const source = `
  const headers = { authorization: 'Bearer {{secret:KEY}}' };
  export async function save(url, pointer) {
    const text = await (await fetch(url, { headers })).text();
    await hauki.meshfs.write(pointer, text);
    return text;
  }
  export const post = (url) => fetch(url, { method: 'POST' });`;

await using mesh = await connect();
const grants = {
  fetch: [{ to: host, methods: ['GET'], per_minute: 60 }],
  meshfs: { write: ['gem-pointer://wiki/reports/'] },
};
const secrets = { KEY: { value: 'sunny-42', to: [host] } };
type Scout = { save(url: string, pointer: string): string; post(url: string): void };
const scout = mesh.clone<Scout>({ source }, { grants, secrets });

console.log(await scout.save(`http://${host}/`, 'gem-pointer://wiki/reports/weather'));
console.log((await mesh.meshfs.resolve('gem-pointer://wiki/reports/weather')).content);
const refused = (e: Error) => console.log(e.message);
await scout.save('http://127.0.0.1:1/', 'gem-pointer://wiki/reports/x').catch(refused);
await scout.save(`http://${host}/`, 'gem-pointer://wiki/other/x').catch(refused);
await scout.post(`http://${host}/`).catch(refused);
server.close();
