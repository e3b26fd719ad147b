/** The table of attempts: what a row is, and how it is judged. */
import type { DriverName } from '../support/mesh.ts';

/** What the attempt found out: got through (`open`), or what stopped it, in the words of whatever stopped it. */
export interface Outcome {
  open: boolean;
  said: string;
  /** Of a control: this machine's kernel does not have it at all, so nothing can be shown here. */
  absent?: boolean;
}

export interface Row {
  attempt: string;
  driver: DriverName;
  /** What is meant to block it. */
  by: string;
  outcome: Outcome;
  /** The same probe without that protection: it must get through, or the attempt proves nothing. */
  control: Outcome & { what: string };
}

/** One attempt, to be run in every driver that it names. */
export interface Attempt {
  name: string;
  by: Partial<Record<DriverName, string>>;
  run(driver: DriverName): Promise<Outcome>;
  /** The protection that is off in the control, in words. */
  control: { what: string; run(): Promise<Outcome> };
}

export const blocked = (said: unknown): Outcome => ({ open: false, said: short(said) });
export const opened = (said: unknown = 'open'): Outcome => ({ open: true, said: short(said) });

/** Runs an attempt whose success is told by a text that holds `proof` or is OPEN; whatever it throws has stopped it. */
export async function judged(proof: string, run: () => Promise<unknown> | PromiseLike<unknown>): Promise<Outcome> {
  try {
    const said = String(await run());
    return said.includes(proof) || /^OPEN\b/.test(said)
      ? opened(said.replaceAll(proof, '(the secret)'))
      : blocked(said);
  } catch (error) {
    return blocked((error as Error)?.message ?? error);
  }
}

function short(said: unknown): string {
  const text = String(said).replace(/\s+/g, ' ').trim();
  return text.length > 90 ? `${text.slice(0, 89)}…` : text || '(nothing)';
}

/** The fault of a row, or undefined. */
export function fault(row: Row): string | undefined {
  if (row.outcome.open) return `it got through: ${row.outcome.said}`;
  if (!row.control.open && !row.control.absent)
    return `the control (${row.control.what}) did not get through either: ${row.control.said}`;
  return undefined;
}

/** The table for people. */
export function render(rows: Row[]): string {
  const lines = rows.map((row) => {
    const wrong = fault(row);
    const mark = wrong ? 'FAILED ' : 'blocked';
    const answer = `${row.by}: ${row.outcome.said}`;
    return `${mark}  ${row.attempt.padEnd(52)}  ${row.driver.padEnd(7)}  ${answer}\n${' '.repeat(63)}  ${wrong ?? `control: ${row.control.what} – ${row.control.said}`}`;
  });
  const failed = rows.filter(fault).length;
  return `${lines.join('\n')}\n\n${rows.length} attempts in vaults, ${failed} not held; every one of them works in its control.\n`;
}
