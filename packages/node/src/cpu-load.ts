/** How busy this machine's cores are, from one look to the next. */
import { cpus } from 'node:os';

export class CpuLoad {
  #before = cpus().map((c) => c.times);

  /** Since the last look: 0 idle … 1 all cores busy. */
  share(): number {
    const times = cpus().map((c) => c.times);
    let busy = 0;
    let all = 0;
    times.forEach((now, i) => {
      const before = this.#before[i] ?? now;
      const idle = now.idle - before.idle;
      const total = Object.values(now).reduce((a, b) => a + b, 0) - Object.values(before).reduce((a, b) => a + b, 0);
      busy += total - idle;
      all += total;
    });
    this.#before = times;
    return all > 0 ? busy / all : 0;
  }
}
