/**
 * A script that clones, calls and lets go, over and over, until somebody kills it. It tells its parent what came of each:
 * `[load, outcome, text when it is a fault]`, and `['ran', id]` of a call whose run was certainly counted.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, withOptions } from '@hauki/mesh';
import { Book, KILLED } from './chaos-book.ts';

const { drivers, target, python, tag } = JSON.parse(process.argv[2]!) as {
  drivers: string[];
  target: string;
  python: string | undefined;
  tag: string;
};
const SOURCE = `const seen = new Map(); let n = 0;
  export const run = async (id) => {
    const times = (seen.get(id) ?? 0) + 1; seen.set(id, times);
    const told = await fetch('http://${target}/' + id + '/' + hauki.worker + '-' + ++n, { method: 'POST' }).then(() => true, () => false);
    return { id, times, told };
  };
  export const count = async function* (n) { for (let i = 0; i < n; i++) yield i; };`;
const PYTHON = `seen = {}
def run(id):
    seen[id] = seen.get(id, 0) + 1
    return {"id": id, "times": seen[id], "told": False}
def count(n):
    yield from range(n)
`;
interface Runner {
  run(id: string): { id: string; times: number; told: boolean };
  count(n: number): AsyncIterable<number>;
}
/** Also: it was killed as it loaded; and core and node were killed, so that nobody knows of it any more. */
const CLONING = [...KILLED, 'SourceRejected', 'WorkerUnknown'];
const CALL_MS = 8_000;
const CLONE_MS = 45_000;

const tell = (...what: string[]) => void process.send?.(what, () => {});
const book = new Book();
book.count = (load, outcome) => tell(load, outcome);
book.fault = (text) => tell('fault', text);
process.once('disconnect', () => process.exit(0));

let n = 0;
for (;;) {
  const meshed = await book.tried('connect', 10_000, KILLED, () => connect());
  if (!meshed) {
    await sleep(200);
    continue;
  }
  const mesh = meshed.value;
  for (let i = 0; i < 50; i++) {
    const driver = drivers[Math.floor(Math.random() * drivers.length)]!;
    const in_python = driver === python && Math.random() < 0.5;
    const load = `clone ${driver}${in_python ? ' python' : ''}`;
    const ghost = mesh.clone<Runner>(in_python ? { source: PYTHON, language: 'python' } : { source: SOURCE }, {
      ...{ driver: driver as 'lxc', memory_mib: driver === 'quickjs' ? 8 : 64, lease_ms: 5_000 },
      ...(in_python ? {} : { grants: { fetch: [target] } }),
    });
    const call = async (within_ms: number) => {
      const id = `${tag}${process.pid}x${n++}`;
      const done = await book.tried(
        `call ${driver}`,
        within_ms,
        CLONING,
        () => withOptions(ghost, { timeout_ms: CALL_MS }).run(id) as unknown as Promise<ReturnType<Runner['run']>>,
      );
      if (!done) return;
      const { value } = done;
      if (value.id !== id || value.times !== 1) book.fault(`${id} was answered with ${JSON.stringify(value)}`);
      if (value.told) tell('ran', id);
    };
    const cloned = book.tried(load, CLONE_MS, CLONING, () => ghost);
    await Promise.all([call(CLONE_MS), call(CLONE_MS), cloned]);
    if (await cloned) {
      await Promise.all([call(CALL_MS), call(CALL_MS)]);
      if (Math.random() < 0.3)
        await book.tried(`stream ${driver}`, 30_000, KILLED, async () => {
          const list = await Array.fromAsync(await withOptions(ghost, { timeout_ms: CALL_MS }).count(300));
          if (list.length !== 300 || list.some((item, at) => item !== at)) book.fault(`a stream gave ${list}`);
        });
      if (Math.random() < 0.8) await book.tried(`destruct ${driver}`, 30_000, KILLED, () => mesh.destruct(ghost));
    }
    await sleep(Math.random() * 200);
  }
  await book.tried('close', 60_000, KILLED, () => mesh.close());
}
