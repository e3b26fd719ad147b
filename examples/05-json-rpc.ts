/** Any JSON-RPC 2.0 client can call a worker over the relay: one HTTP POST, a bearer token, no SDK. */
import { connect } from '@hauki/mesh';

await using mesh = await connect();
const counter = mesh.clone<{ add(n: number): number }>({
  source: 'let sum = 0; export const add = (n) => (sum += n);',
});
const { worker } = await mesh.details(counter);
await counter.add(40);

const answer = await fetch(`${mesh.core}/api/v2/ephemeral/${worker}`, {
  method: 'POST',
  headers: { authorization: `Bearer ${process.env.HAUKI_TOKEN}`, 'content-type': 'application/json' },
  body: '{"jsonrpc": "2.0", "id": 1, "method": "add", "params": [2]}',
});
console.log(await answer.text());
