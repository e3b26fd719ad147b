/**
 * What the kernel shows of a container's process: whether it is the guest yet, and how it is held.
 */
import { readFileSync, readlinkSync } from 'node:fs';

/** Whether LXC has handed over to the program of the vault. */
export function executes(pid: number): boolean {
  try {
    const path = readlinkSync(`/proc/${pid}/exe`);
    return !path.endsWith('/lxc-start');
  } catch {
    return false;
  }
}

/** What differs from the confinement every vault has, as the kernel tells it. */
export function confinement(pid: number, without_seccomp: boolean): string[] {
  const status = statusOf(pid);
  const wanted: [string, RegExp][] = [
    ['capabilities none', /^CapEff:\s*0+$/m],
    ['bounding set none', /^CapBnd:\s*0+$/m],
    ['NoNewPrivs 1', /^NoNewPrivs:\s*1$/m],
    ...(without_seccomp ? [] : ([['Seccomp 2', /^Seccomp:\s*2$/m]] as [string, RegExp][])),
  ];
  return wanted.filter(([, pattern]) => !pattern.test(status)).map(([name]) => `${name}: no`);
}

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8');
  } catch {
    return '';
  }
}
