/** A process to be killed: writes keys and objects, and sweeps, without end, and tells what was acknowledged. See conformance.ts. */
import { randomBytes } from 'node:crypto';
import { writeSync } from 'node:fs';
import { openEmbedded } from '../src/index.ts';

const [folder, run] = process.argv.slice(2) as [string, string];
const backplane = await openEmbedded(folder);
const kv = backplane.kv('writer');
const named = backplane.kv('named');
const told = new Set<string>();

async function writeKeys(lane: number): Promise<never> {
  for (let at = 0; ; at++) {
    const key = `${run}/${lane}/${at}`;
    const revision = await kv.put(key, `value-${at}`, { expect: 'absent' });
    writeSync(1, `kv ${key} value-${at} ${revision}\n`);
  }
}

async function writeObjects(): Promise<never> {
  for (let at = 0; ; at++) {
    using object = await backplane.objects.prepare(randomBytes(1 + ((at * 7919) % 400_000)));
    await backplane.commit([], [object]);
    told.add(object.digest); // before it is let go of
    writeSync(1, `object ${object.digest}\n`);
  }
}

/** Streams of unknown size, and rows: each told only once an entry names it. */
async function commitObjects(): Promise<never> {
  for (let at = 0; ; at++) {
    const bytes = randomBytes(1 + ((at * 7919) % 90_000));
    const stream = async function* () {
      for (let from = 0; from < bytes.length; from += 10_000) yield bytes.subarray(from, from + 10_000);
    };
    using object = await backplane.objects.prepare(stream());
    await backplane.commit([{ namespace: 'named', key: object.digest, value: '' }], [object]);
    writeSync(1, `object ${object.digest}\n`);
  }
}

/** Sweeps without end, wanting what entries name and what the other lanes told. */
async function sweep(): Promise<never> {
  for (;;) {
    await backplane.objects.sweep(async (candidates) => {
      for (const digest of candidates) if (told.has(digest) || (await named.get(digest))) candidates.delete(digest);
    });
  }
}

await Promise.all([
  writeKeys(0),
  writeKeys(1),
  writeObjects(),
  writeObjects(),
  commitObjects(),
  commitObjects(),
  sweep(),
]);
