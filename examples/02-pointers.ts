/** Source kept in MeshFS, cloned by its pointer, several times in a loop; `cloneDistributed` is `clone`. */
import { connect } from '@hauki/mesh';

const POINTER = 'gem-pointer://wiki/workers/square';

await using mesh = await connect();
await mesh.meshfs.write(POINTER, 'export const square = (n: number) => n * n;', { language: 'typescript' });

const workers = [];
for (let i = 0; i < 5; i++)
  workers.push(mesh.cloneDistributed<{ square(n: number): number }>(POINTER, { routing: 'p2p_preferred' }));

const squares = await Promise.all(workers.map((worker, i) => worker.square(i)));
console.log(`squares: ${squares.join(' ')}`);
