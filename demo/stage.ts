/** What the acts of the demo share: the mesh, and the way they speak. Live lines on a terminal, plain lines elsewhere. */
import { styleText } from 'node:util';
import type { LocalMesh } from '@hauki/cli';
import type { Mesh } from '@hauki/mesh';

export interface Stage {
  local: LocalMesh;
  mesh: Mesh;
  driver: 'lxc' | 'quickjs';
}

export interface Act {
  title: string;
  /** Plays the act; throws when what it shows does not hold. */
  play(stage: Stage): Promise<void>;
}

const live = process.stdout.isTTY === true;
const paint = (style: Parameters<typeof styleText>[0], text: string) => (live ? styleText(style, text) : text);

export function heading(text: string): void {
  console.log(`\n${paint(['bold', 'cyan'], text)}`);
}

let last = 0;

/** Progress: rewrites one line on a terminal; elsewhere prints now and then, and always the last word. */
export function progress(text: string, final = false): void {
  if (live) {
    process.stdout.write(`\r\x1b[2K  ${text}${final ? '\n' : ''}`);
    return;
  }
  if (!final && Date.now() - last < 2_000) return;
  last = Date.now();
  console.log(`  ${text}`);
}

/** A table with a ruled head. */
export function table(head: string[], rows: (string | number)[][]): void {
  const all = [head, ...rows.map((row) => row.map(String))];
  const widths = head.map((_, i) => Math.max(...all.map((row) => row[i]?.length ?? 0)));
  const line = (row: string[]) =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('   ')
      .trimEnd();
  console.log(`\n  ${paint('bold', line(head))}\n  ${widths.map((w) => '─'.repeat(w)).join('───')}`);
  for (const row of all.slice(1)) console.log(`  ${line(row)}`);
}

export const bytes = (n: number) =>
  n < 10_000 ? `${n} B` : n < 10_000_000 ? `${(n / 1024).toFixed(1)} KiB` : `${(n / 1048576).toFixed(1)} MiB`;
export const ms = (n: number) =>
  n < 10 ? `${n.toFixed(2)} ms` : n < 1_000 ? `${n.toFixed(0)} ms` : `${(n / 1_000).toFixed(2)} s`;

export function median(list: number[]): number {
  return [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)] ?? 0;
}

/** A promise of the demo: what does not hold ends it. */
export function holds(claim: string, truth: boolean): void {
  if (!truth) throw new Error(`this does not hold: ${claim}`);
}
