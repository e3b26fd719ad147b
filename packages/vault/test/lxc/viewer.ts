/** A process with views of its own, or that takes away those of the dead, for tests that kill it. Arguments as JSON. */
import { sweepViews, viewOf } from '../../src/drivers/lxc/root-view.ts';

const { rootfs, dir, count, sweep } = JSON.parse(process.argv[2]!);
if (sweep) console.log(await sweepViews(dir));
else {
  for (let i = 0; i < count; i++) await viewOf(rootfs, undefined, dir);
  console.log('made');
  setInterval(() => {}, 1_000);
}
