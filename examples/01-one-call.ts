/** One call, from a script to a vaulted worker and back. Run it: npx hauki run examples/01-one-call.ts */
import { fileURLToPath } from 'node:url';
import { connect } from '@hauki/mesh';
import type Greeter from './workers/greeter.ts';

await using mesh = await connect();
const greeter = mesh.clone<Greeter>({ file: fileURLToPath(new URL('workers/greeter.ts', import.meta.url)) });

// Called at once: the call waits for the worker to be born.
console.log(await greeter.greet('ada'));
console.log(`greetings so far: ${await greeter.count()}`);

const { worker, driver, route } = await mesh.details(greeter);
console.log(`${worker} lived in a ${driver} vault, reached over the ${route} route`);
await mesh.destruct(greeter);
