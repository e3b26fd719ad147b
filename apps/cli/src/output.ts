/** What people see: tables and colour on a terminal, plain text in a pipe, JSON where it was asked for. */
import { inspect, isDeepStrictEqual, styleText } from 'node:util';
import {
  describe,
  isError,
  MeshError,
  NoNodeFits,
  NotText,
  SourceRejected,
  Unauthorised,
  VaultFailed,
} from '@hauki/mesh';
import { sourceOf } from '@hauki/rpc';

/** Exit codes, also shown by --help. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  not_found: 3,
  refused: 4,
  unreachable: 5,
  deadline: 6,
  alive: 7,
} as const;

/** Text that a guest or a document said, without what would steer the terminal or show it in another order. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '');
}

/** What a value is written out as at most: a message has fewer, but a few that share their members may stand for any number. */
const SHOWN_MEMBERS = 4_000_000;

/** Whether a value written out, what is shared as often as it is there, has more members than are shown. */
function isEndless(value: unknown): boolean {
  const left = [value];
  let members = 0;
  while (left.length > 0) {
    const one = left.pop();
    if (typeof one !== 'object' || one === null || ArrayBuffer.isView(one) || sourceOf(one)) continue;
    const held = one instanceof Map ? [...one].flat() : one instanceof Set ? [...one] : Object.values(one);
    members += held.length;
    if (members > SHOWN_MEMBERS) return true;
    for (const member of held) left.push(member);
  }
  return false;
}

/** A value for people: a text as it is, JSON where that says all of it, else as Node shows it, not too deep where it has no end. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return value;
  // Node would show its proxy.
  if (sourceOf(value)) return String(value);
  if (isEndless(value)) return inspect(value);
  try {
    const text = JSON.stringify(value, undefined, 2);
    if (isDeepStrictEqual(JSON.parse(text), value)) return text;
  } catch {
    // A bigint, a function, what contains itself.
  }
  return inspect(value, { depth: null, maxArrayLength: null, maxStringLength: null });
}

type Style = Parameters<typeof styleText>[0];

/** Colour, where standard output is a terminal and NO_COLOR is not set. */
export function paint(style: Style, text: string): string {
  return process.stdout.isTTY && !process.env.NO_COLOR ? styleText(style, text) : text;
}

/** How wide the terminal is; a pipe is as wide as what goes through it. */
const screen = () => (process.stdout.isTTY && process.stdout.columns) || Number.POSITIVE_INFINITY;

/** What a cell needs at least to be folded where it stands, and not below its row. */
const FOLDED_CHARS = 20;

/** A line broken at its spaces into such as fit, those behind the first indented by `indent`. A longer word stays whole. */
export function fold(line: string, indent: number, columns = screen()): string {
  let left = line;
  let out = '';
  while (left.length > columns) {
    const from = out === '' ? left.search(/\S/) : indent;
    let at = left.lastIndexOf(' ', columns);
    if (at <= from) at = left.indexOf(' ', columns);
    if (at === -1) break;
    out += `${left.slice(0, at).trimEnd()}\n`;
    left = `${' '.repeat(indent)}${left.slice(at).trimStart()}`;
  }
  return out + left;
}

/** A page of help whose sentences and second columns are folded. Commands are not, so that they can be copied. */
export function foldPage(page: string, columns = screen()): string {
  const folded = (line: string) => {
    const first = /^ *\S.* {2,}(?=\S)/.exec(line.slice(0, columns - FOLDED_CHARS))?.[0];
    return first === undefined && line.startsWith(' ') ? line : fold(line, first?.length ?? 0, columns);
  };
  return page
    .replaceAll(/^\S.*(?:\n\S.*)+/gm, (sentences) =>
      sentences.split('\n').some((line) => line.length > columns) ? sentences.replaceAll('\n', ' ') : sentences,
    )
    .split('\n')
    .map(folded)
    .join('\n');
}

/**
 * Columns side by side; the first row is the head. Cells are text. On a terminal where they do not fit, the last ones
 * stand below their row, each behind its head; a last one that nearly fits is folded, and empty columns are left out.
 */
export function table(rows: string[][], columns = screen()): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const begin = (column: number) => widths.slice(0, column).reduce((sum, width) => sum + width + 2, 0);
  const last = widths.length - 1;
  if (begin(last) + widths[last]! > columns) {
    const used = widths.map((_, column) => column === 0 || rows.slice(1).some((row) => row[column]));
    if (used.includes(false))
      return table(
        rows.map((row) => row.filter((_, column) => used[column])),
        columns,
      );
  }
  const folds = begin(last) + Math.min(widths[last]!, FOLDED_CHARS) <= columns;
  let beside = widths.length;
  while (!folds && beside > 1 && begin(beside) - 2 > columns) beside--;
  return rows
    .map((row, i) => {
      const cells = row.slice(0, beside).map((cell, column) => cell.padEnd(widths[column]!));
      const line = cells.join('  ').trimEnd();
      if (i === 0) return paint('bold', line);
      return [folds ? fold(line, begin(last), columns) : line, ...below(rows[0]!, row, beside, columns)].join('\n');
    })
    .join('\n');
}

/** The cells of a row from a column on, each behind its head, in as few lines as they fit. */
function below(head: string[], row: string[], from: number, columns: number): string[] {
  const lines: string[] = [];
  for (const [i, cell] of row.entries()) {
    if (i < from || cell === '') continue;
    const said = `${head[i]} ${cell}`;
    const line = lines.at(-1);
    if (line !== undefined && line.length + 2 + said.length <= columns) lines[lines.length - 1] = `${line}  ${said}`;
    else lines.push(`  ${said}`);
  }
  return lines.map((line) => fold(line, 4, columns));
}

/** Bytes as a person says them. */
export function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  for (; bytes >= 1024 && at < units.length - 1; at++) bytes /= 1024;
  return `${at === 0 ? bytes : bytes.toFixed(1)} ${units[at]}`;
}

/** From here on a copy shows how far it is. */
const PROGRESS_BYTES = 8 * 1024 * 1024;

/** Shows on a terminal how far a copy is; called without bytes, it clears its line. `total` may be unknown. */
export function progress(what: string, total: number | undefined): (bytes?: number) => void {
  if (!process.stderr.isTTY || (total !== undefined && total < PROGRESS_BYTES)) return () => {};
  const began = performance.now();
  let shown = 0;
  return (bytes) => {
    const now = performance.now();
    if (bytes === undefined) {
      if (shown > 0) process.stderr.write('\r\x1b[K');
      return;
    }
    if (now - shown < 100) return;
    shown = now;
    const part = total ? `${Math.floor((100 * bytes) / total)} % of ${size(total)}` : size(bytes);
    const speed = `${size((1000 * bytes) / (now - began))}/s`;
    process.stderr.write(`\r\x1b[K${printable(what)}  ${part}  ${speed}`);
  };
}

/** Milliseconds as a person says them. */
export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 120_000) return `${(ms / 1_000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  return ms < 7_200_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 3_600_000)} h`;
}

/** Milliseconds from `500ms`, `30s`, `10m`, `2h`. Undefined for anything else. */
export function parseDuration(text: string): number | undefined {
  const [, number, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text) ?? [];
  if (number === undefined) return undefined;
  const ms = Math.round(Number(number) * { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }[unit as 'ms' | 's' | 'm' | 'h']);
  return Number.isSafeInteger(ms) ? ms : undefined;
}

/** How deep what a worker threw is shown: causes of causes, and what their properties hold. */
const THROWN_DEPTH = 4;

const EXIT_OF: Record<string, number> = {
  WorkerUnknown: EXIT.not_found,
  WorkerDied: EXIT.not_found,
  JobUnknown: EXIT.not_found,
  ModuleUnknown: EXIT.not_found,
  PointerUnknown: EXIT.not_found,
  PointerDeleted: EXIT.not_found,
  VersionUnknown: EXIT.not_found,
  PayloadLost: EXIT.not_found,
  NoSuchMethod: EXIT.not_found,
  TokenUnknown: EXIT.not_found,
  VolumeUnknown: EXIT.not_found,
  Unauthorised: EXIT.refused,
  Forbidden: EXIT.refused,
  ConnectionLost: EXIT.unreachable,
  DeadlineExceeded: EXIT.deadline,
  BadInput: EXIT.usage,
  PointerInvalid: EXIT.usage,
  PointerMissing: EXIT.usage,
};

/** A kernel that was named is not there; that nothing fits is another thing. */
function exitOf(error: unknown): number {
  if (!(error instanceof MeshError)) return EXIT.failed;
  if (isError(error, NoNodeFits) && 'kernel' in error.fields.wanted) return EXIT.not_found;
  return EXIT_OF[error.name] ?? EXIT.failed;
}

/** What a worker threw, where that says more than its message: with its cause, its errors, its own properties. */
const thrownBy = (error: unknown): string | undefined =>
  error instanceof MeshError && error.cause instanceof Error
    ? inspect(error.cause, { depth: THROWN_DEPTH })
    : undefined;

/** What a door says to whoever came with no token of its own, and where the command has its tokens from. */
const NO_TOKEN = /^(?:A token is needed|This token is not known here)/;
const WHICH_TOKEN =
  'A kernel’s token is found by its number and data folder (--id, --data), or is HAUKI_KERNEL_TOKEN; a core’s by --data, or is HAUKI_TOKEN';

/** Prints an error for people, or as JSON, and gives the exit code that says what kind it was. */
export function report(error: unknown, json: boolean): number {
  const code = exitOf(error);
  const thrown = thrownBy(error);
  if (json) {
    const { name, message, fields } =
      error instanceof MeshError ? error : { name: 'Error', message: describe(error), fields: {} };
    console.error(JSON.stringify({ error: { name, message, fields, ...(thrown === undefined ? {} : { thrown }) } }));
  } else {
    const text = printable(`hauki: ${describe(error)}`);
    console.error(process.stderr.isTTY && !process.env.NO_COLOR ? styleText('red', text) : text);
    if (isError(error, Unauthorised) && NO_TOKEN.test(error.message)) console.error(WHICH_TOKEN);
    const { log_tail, log } = (error instanceof MeshError ? error.fields : {}) as { log_tail?: unknown; log?: unknown };
    if (typeof log_tail === 'string' && log_tail !== '') console.error(printable(`Its last words:\n${log_tail}`));
    if (typeof log === 'string' && log !== '') console.error(printable(`It logged:\n${log}`));
    // Of a birth that failed. What other errors say of a worker is what its end, if any, has nothing to do with.
    const unborn = isError(error, SourceRejected) || isError(error, VaultFailed) ? error.fields.worker : undefined;
    if (unborn !== undefined) console.error(printable(`More: hauki why ${unborn}`));
    if (isError(error, NotText)) console.error(printable(`As a file: hauki fs cp ${error.fields.pointer} FILE`));
    // Without one of the worker's, the stack is that of this process: of no use to whoever wrote the worker.
    const remote = error instanceof MeshError ? (error.fields as { remote_stack?: unknown }).remote_stack : undefined;
    if (thrown !== undefined) console.error(printable(thrown));
    else if (typeof remote === 'string' && error instanceof Error && error.stack?.includes('\n    at ')) {
      // Behind the message, which is said above and may have several lines.
      const frames = error.stack.replace(/^.*?\n(?= +at )/s, '').split('\n');
      console.error(printable(frames.slice(0, 5).join('\n')));
    }
  }
  return code;
}
