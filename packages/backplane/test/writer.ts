/** A process to be killed: writes keys and objects without end and tells what was acknowledged. See conformance.ts. */
import { randomBytes } from 'node:crypto';
import { writeSync } from 'node:fs';
import { openEmbedded } from '../src/index.ts';

const [folder, run] = process.argv.slice(2) as [string, string];
const backplane = await openEmbedded(folder);
const kv = backplane.kv('writer');

async function writeKeys(lane: number): Promise<never> {
  for (let at = 0; ; at++) {
    const key = `${run}/${lane}/${at}`;
    const revision = await kv.put(key, `value-${at}`, { expect: 'absent' });
    writeSync(1, `kv ${key} value-${at} ${revision}\n`);
  }
}

async function writeObjects(): Promise<never> {
  for (let at = 0; ; at++) {
    const digest = await backplane.objects.put(randomBytes(1 + ((at * 7919) % 400_000)));
    writeSync(1, `object ${digest}\n`);
  }
}

await Promise.all([writeKeys(0), writeKeys(1), writeObjects(), writeObjects(), writeObjects()]);
