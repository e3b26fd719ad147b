/**
 * A process's log as a person at a terminal reads it: time, level, message, and the fields behind it. In files and pipes
 * it stays JSON lines, for programs.
 */
import { printable } from './output.ts';

const LEVELS: Record<number, string> = { 10: 'trace', 20: 'debug', 30: 'info', 40: 'warn', 50: 'error', 60: 'fatal' };

/** One line of a log. What is none of ours stays as it is. */
export function readableLine(line: string): string {
  let told: Record<string, unknown>;
  try {
    told = JSON.parse(line);
    if (typeof told?.time !== 'number' || typeof told.msg !== 'string') return printable(line);
  } catch {
    return printable(line);
  }
  const { time, level, msg, name: _name, pid: _pid, hostname: _hostname, ...fields } = told;
  const rest = Object.entries(fields).map(([key, value]) => {
    const text = typeof value === 'string' && /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value);
    return ` ${key}=${text}`;
  });
  const at = new Date(time as number).toISOString().slice(11, 23);
  return printable(`${at} ${(LEVELS[level as number] ?? '').padEnd(5)} ${msg}${rest.join('')}`);
}

/** Takes what a process writes, as it comes, and hands on its lines, readable. */
export function readableLog(write: (text: string) => void): (chunk: Buffer) => void {
  const decoder = new TextDecoder();
  let begun = '';
  return (chunk) => {
    const lines = (begun + decoder.decode(chunk, { stream: true })).split('\n');
    begun = lines.pop()!;
    for (const line of lines) write(`${readableLine(line)}\n`);
  };
}
