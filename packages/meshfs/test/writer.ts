/** A process to be killed: writes pages without end and tells what was acknowledged. See wiki-folder.test.ts. */
import { writeSync } from 'node:fs';
import { join } from 'node:path';
import { openEmbedded } from '@hauki/backplane';
import { createMeshFs } from '../src/index.ts';

const root = process.argv[2]!;
const backplane = await openEmbedded(join(root, 'data'));
const mesh = await createMeshFs(backplane, { wiki_folder: join(root, 'wiki') });

async function write(lane: number): Promise<never> {
  for (let at = 0; ; at++) {
    const pointer = `gem-pointer://wiki/lane${lane}/page${at % 3}.md`;
    const content = `${process.pid} ${lane} ${at} `.repeat(1 + ((at * 997) % 9000));
    const { version, digest } = await mesh.write({ pointer, content });
    writeSync(1, `${pointer} ${version} ${digest}\n`);
  }
}

await Promise.all([write(0), write(1), write(1), write(2)]);
