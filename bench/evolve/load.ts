/**
 * Constant load in a process of its own: a request every few milliseconds to each URL, whether the one before was
 * answered or not. Told `report`, it says what came of them.
 */
interface Spec {
  urls: string[];
  token: string;
  every_ms: number;
}

const spec = JSON.parse(process.env.LOAD!) as Spec;
const stats = spec.urls.map(() => ({ sent: 0, failed: 0, times: [] as number[], why: '' }));
const headers = { authorization: `Bearer ${spec.token}` };

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

const timer = setInterval(() => spec.urls.forEach((_, i) => void ask(i)), spec.every_ms);
process.on('message', (message) => {
  if (message === 'reset') for (const one of stats) Object.assign(one, { sent: 0, failed: 0, times: [], why: '' });
  if (message !== 'report') return;
  clearInterval(timer);
  // Those under way are waited for.
  setTimeout(() => process.send!(stats), 1_000);
});
process.on('disconnect', () => process.exit(0));
process.send!('ready');
