/** Errors are typed, and say what was wrong: in the source, in a call, in the worker, or with the worker. */
import { connect, isError, NoSuchMethod, RemoteError, SourceRejected, WorkerDied, withOptions } from '@hauki/mesh';

await using mesh = await connect();

try {
  await mesh.clone({ source: 'export const broken = (' });
} catch (error) {
  if (isError(error, SourceRejected)) console.log(`refused at ${error.fields.stage}: ${error.message}`);
}

interface Moody {
  fail(): never;
  ponder(): never;
}
const source = `
  export const fail = () => { throw new RangeError('too moody'); };
  export const ponder = () => new Promise(() => {});`;
const moody = mesh.clone<Moody>({ source });

await moody.fail().catch((e: unknown) => isError(e, RemoteError) && console.log(`it threw: ${e.message}`));
await (moody as any).sing().catch((e: unknown) => isError(e, NoSuchMethod) && console.log(e.message));
await withOptions(moody, { timeout_ms: 200 })
  .ponder()
  .catch((e: Error) => console.log(e.message));

const pondering = moody.ponder();
const told = pondering.catch((e: unknown) => isError(e, WorkerDied) && console.log(`died: ${e.fields.cause}`));
await mesh.destruct(moody);
await told;
