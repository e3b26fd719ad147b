/** What Linux tells of processes and threads in their `stat` files (proc_pid_stat(5)). */
import { readFileSync } from 'node:fs';

/** From the state on: the name in parentheses before it may hold anything. Undefined where there is no such file. */
function fieldsOf(file: string): string[] | undefined {
  try {
    const stat = readFileSync(file, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined;
  }
}

/** When the process started, in clock ticks since boot; 0 when it is dead. A pid alone may have been given again. */
export function startTime(pid: number): number {
  const [state, ...rest] = fieldsOf(`/proc/${pid}/stat`) ?? ['X'];
  return state === 'Z' || state === 'X' ? 0 : Number(rest[18]);
}

/** Milliseconds of processor time; undefined when it is gone. Clock ticks are 10 ms on every Linux that Node runs on. */
export function cpuTime_ms(file: string): number | undefined {
  const fields = fieldsOf(file);
  return fields && (Number(fields[11]) + Number(fields[12])) * 10;
}
