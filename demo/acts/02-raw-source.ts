/** Act 2: a worker whose source stands in the script, called directly, over the relay, and by a plain HTTP client. */
import { type Act, holds, median, ms, progress, table } from '../stage.ts';

const SOURCE = `
  let calls = 0;
  export function fibonacci(n: number): string {
    calls++;
    let [a, b] = [0n, 1n];
    for (let i = 0; i < n; i++) [a, b] = [b, a + b];
    return a.toString();
  }
  export const counted = () => calls;
`;
const CALLS = 300;
const F90 = '2880067194370816120';

interface Sums {
  fibonacci(n: number): string;
  counted(): number;
}

export const rawSource: Act = {
  title: 'Raw source: one worker, three ways to call it',
  async play({ mesh, local, driver }) {
    const own = mesh.clone<Sums>({ source: SOURCE, language: 'typescript' }, { driver });
    const { worker, route } = await mesh.details(own);
    const relayed = mesh.visit<Sums>(worker, { routing: 'relay_only' });
    const post = async (method: string, params: unknown[]) => {
      const answer = await fetch(`${local.url}/api/v2/ephemeral/${worker}`, {
        method: 'POST',
        headers: { authorization: `Bearer ${local.token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
      });
      return ((await answer.json()) as { result: string }).result;
    };
    const ways: [string, () => Promise<string>][] = [
      [`ghost, ${route} route`, () => own.fibonacci(90)],
      ['ghost, relay route', () => relayed.fibonacci(90)],
      ['plain JSON-RPC over HTTP', () => post('fibonacci', [90])],
    ];
    const rows: string[][] = [];
    for (const [name, call] of ways) {
      const took: number[] = [];
      for (let i = 0; i < CALLS; i++) {
        const began = performance.now();
        holds(`${name} answers rightly`, (await call()) === F90);
        took.push(performance.now() - began);
      }
      progress(`${CALLS} calls by ${name}`, true);
      rows.push([name, String(CALLS), ms(median(took)), F90]);
    }
    holds('all three reached the same worker', (await own.counted()) === CALLS * ways.length);
    table(['way', 'calls', 'median', 'fibonacci(90)'], rows);
    await mesh.destruct(own);
    const late = await own.fibonacci(1).then(
      () => 'answered',
      (error: Error) => error.message,
    );
    console.log(`\n  after destruct: ${late}`);
    holds('a call to a dead worker says so', late.includes('is dead'));
  },
};
