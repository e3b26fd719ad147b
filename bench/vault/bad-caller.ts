/**
 * The caller of a bad neighbour, in a process of its own: it clones a worker that misbehaves in one way, over and over
 * where that ends it, until this process is killed. Arguments: core, token, driver, way.
 */
import { connect } from '@hauki/mesh';

const WAYS = {
  spins: 'export const go = () => { for (;;) {} };',
  allocates: `export const go = async () => {
    for (;;) {
      const all = [];
      try { for (let i = 0; i < 2000; i++) all.push(new Array(10_000).fill(i)); } catch {}
      await null;
    }
  };`,
  'floods its log': `export const go = async () => { for (;;) { hauki.log('x'.repeat(4000)); await null; } };`,
  'floods its caller': 'export const go = async function* () { for (;;) yield new Uint8Array(60_000); };',
} as const;

export type Way = keyof typeof WAYS;
export const WAY_NAMES = Object.keys(WAYS) as Way[];

if (import.meta.main) {
  const [core, token, driver, way] = process.argv.slice(2) as [string, string, 'quickjs' | 'lxc', Way];
  const mesh = await connect({ core, token });
  process.once('disconnect', () => process.exit(0));
  for (;;) {
    const worker = mesh.clone<{ go(): any }>({ source: WAYS[way] }, { driver });
    try {
      const going = await worker;
      process.send?.('going');
      const result = going.go();
      if (way === 'floods its caller') for await (const _ of await result);
      else await result;
    } catch {
      // The vault was ended for what it does; the next one does the same.
    }
    await mesh.destruct(worker).catch(() => {});
  }
}
