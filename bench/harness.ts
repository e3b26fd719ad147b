/** What benchmarks share: rows beside a peer, measured in the same run, printed as a table and kept as JSON. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';

export interface Row {
  metric: string;
  unit: string;
  ours: number;
  /** What it is measured beside; null where there is nothing of the kind. */
  peer: string | null;
  peer_value: number | null;
  /** Ours divided by the peer's. */
  ratio: number | null;
  /** What we mean to reach, where the project named a number. */
  goal?: number;
}

const round = (n: number) => (n >= 100 ? Math.round(n) : Number(n.toPrecision(3)));

/** A row; `peer` names the peer and its figure. */
export function row(metric: string, unit: string, ours: number, peer?: [string, number], goal?: number): Row {
  return {
    metric,
    unit,
    ours: round(ours),
    peer: peer?.[0] ?? null,
    peer_value: peer ? round(peer[1]) : null,
    ratio: peer ? round(ours / peer[1]) : null,
    ...(goal === undefined ? {} : { goal: round(goal) }),
  };
}

export function percentile(samples: number[], p: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil((p / 100) * sorted.length) - 1)] ?? Number.NaN;
}

/** Milliseconds that `run` takes. */
export async function timed(run: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await run();
  return performance.now() - began;
}

/** Says on standard error what goes on, so that standard output is the table alone. */
export const note = (text: string) => console.error(`  ${text}`);

/** What it was measured on. */
export const machine = (): string =>
  `${cpus()[0]?.model ?? 'unknown'}, ${availableParallelism()} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}`;

/** Time that the processors were asked for, in ticks, and what of it the host gave to other machines (proc_stat(5)). */
function asked(): { ticks: number; stolen: number } {
  try {
    const line = /^cpu +(.*)$/m.exec(readFileSync('/proc/stat', 'utf8'))![1]!;
    const [user, nice, system, , , irq, softirq, stolen] = line.split(' ').map(Number) as number[];
    return { ticks: user! + nice! + system! + irq! + softirq! + stolen!, stolen: stolen! };
  } catch {
    return { ticks: 0, stolen: 0 };
  }
}
const at_first = asked();

/** Time of the processors that the host has given to other machines since it began, in ticks of 10 ms. */
export const stolenTicks = (): number => asked().stolen;

/** Of the time that the processors were asked for since this process began, what other machines of the same host had. */
function stolenPercent(): number {
  const now = asked();
  return round((100 * (now.stolen - at_first.stolen)) / Math.max(1, now.ticks - at_first.ticks));
}

/** Keeps what was measured as JSON, under its name. */
export function keepResult(name: string, measured: object): void {
  const folder = fileURLToPath(new URL('./results/', import.meta.url));
  mkdirSync(folder, { recursive: true });
  const result = {
    name,
    when: new Date().toISOString(),
    machine: machine(),
    stolen_percent: stolenPercent(),
    ...measured,
  };
  writeFileSync(`${folder}${name}.json`, `${JSON.stringify(result, undefined, 2)}\n`);
}

/** Prints the rows, and keeps them unless they are only a part of what the benchmark measures. */
export function finish(name: string, rows: Row[], keep = true): void {
  if (keep) keepResult(name, { rows });
  const head = ['metric', 'unit', 'ours', 'goal', 'peer', 'peer value', 'ratio'];
  const cells = rows.map((r) =>
    [r.metric, r.unit, r.ours, r.goal ?? '', r.peer ?? '', r.peer_value ?? '', r.ratio ?? ''].map(String),
  );
  const widths = head.map((h, i) => Math.max(h.length, ...cells.map((c) => c[i]!.length)));
  console.log(`\n${name}, on ${machine()}; ${stolenPercent()} % of the processors' time went to others on its host\n`);
  for (const line of [head, widths.map((w) => '─'.repeat(w)), ...cells])
    console.log(
      line
        .map((c, i) => c.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    );
}
