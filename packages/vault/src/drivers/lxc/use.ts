/** What a vault has used, in the kernel's words of either version of cgroups, and what is kept of it after its end. */
import { join } from 'node:path';
import { read } from '../files.ts';

/** CPU time, from v1's nanoseconds or v2's statistics, and memory; undefined without the latter. */
export function useOf(nanoseconds: string | undefined, statistics: string | undefined, memory: string | undefined) {
  if (memory === undefined) return undefined;
  const microseconds = /^usage_usec (\d+)/m.exec(statistics ?? '')?.[1];
  const cpu_ms = nanoseconds === undefined ? Number(microseconds ?? 0) / 1e3 : Number(nanoseconds) / 1e6;
  return { cpu_ms, memory_bytes: Number(memory) };
}

/** What was copied from a container's cgroups (`Cgroups.keeps`): the counter of memory's end, CPU time, the most memory. */
export function keptIn(folder: string): { oom_text?: string; usage?: { cpu_ms: number; memory_bytes: number } } {
  const of = (...files: string[]) => files.map((file) => read(join(folder, file))).find((text) => text !== undefined);
  const oom_text = of('memory.oom_control', 'memory.events');
  const usage = useOf(
    of('cpuacct.usage'),
    of('cpu.stat'),
    of('memory.max_usage_in_bytes', 'memory.peak', 'memory.current'),
  );
  return { ...(oom_text === undefined ? {} : { oom_text }), ...(usage ? { usage } : {}) };
}
