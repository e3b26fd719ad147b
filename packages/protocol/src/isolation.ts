/** How well a vault holds what runs in it: a level for each driver and machine, the weakest first. */

/**
 * `none`: for trusted code only. `process`: a sandboxed process with a filter of system calls, sharing the kernel.
 * `vm`: a virtual machine for the language, without any system call. `container`: ids, namespaces and limits of its own.
 */
export const ISOLATION_LEVELS = ['none', 'process', 'vm', 'container'] as const;

export type IsolationLevel = (typeof ISOLATION_LEVELS)[number];

/** The drivers, the preferred first. One whose level is `none` is taken only when it is asked for by name. */
export const DRIVERS_BY_PREFERENCE = ['lxc', 'quickjs', 'process'] as const;

/** Whether `level` is at least `wanted`; a level that nobody knows never is. */
export function isolatesAtLeast(level: string, wanted: IsolationLevel): boolean {
  const at = ISOLATION_LEVELS.indexOf(level as IsolationLevel);
  return at >= 0 && at >= ISOLATION_LEVELS.indexOf(wanted);
}
