/**
 * Constant load in a process of its own: a request every few milliseconds to each URL, whether the one before was
 * answered or not. Told `report`, it says what came of the requests since the last report and goes on; told `end`, it
 * says so and sends no more. Where it may (root), it runs before all others: it has a core's fifth to do, and a request
 * that is late because its sender waits for the processor would be counted against the one who serves it.
 */
import { setPriority } from 'node:os';

interface Spec {
  urls: string[];
  token: string;
  every_ms: number;
}

const PRIORITY = -10;

const spec = JSON.parse(process.env.LOAD!) as Spec;
const headers = { authorization: `Bearer ${spec.token}` };
const fresh = () => spec.urls.map(() => ({ sent: 0, failed: 0, times: [] as number[], why: '' }));
let stats = fresh();
const under_way = new Set<Promise<void>>();

async function ask(i: number): Promise<void> {
  const one = stats[i]!;
  one.sent++;
  const began = performance.now();
  try {
    const answer = await fetch(spec.urls[i]!, { headers, signal: AbortSignal.timeout(10_000) });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${answer.status} ${text.slice(0, 200)}`);
    one.times.push(performance.now() - began);
  } catch (error) {
    one.failed++;
    one.why ||= String(error);
  }
}

try {
  setPriority(PRIORITY);
} catch {
  // Not root: then it is one among the others.
}
const timer = setInterval(() => {
  for (const i of spec.urls.keys()) {
    const asked: Promise<void> = ask(i).finally(() => under_way.delete(asked));
    under_way.add(asked);
  }
}, spec.every_ms);
process.on('message', (message) => {
  if (message === 'end') clearInterval(timer);
  const told = stats;
  stats = fresh();
  void Promise.all(under_way).then(() => process.send!(told));
});
process.on('disconnect', () => process.exit(0));
process.send!('ready');
