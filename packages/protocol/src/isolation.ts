/** How strongly a vault holds its worker in, in four steps that can be compared and asked for. */

/** Weakest first. What each means: `ISOLATION`; what a driver does for it: its own sentence. */
export const ISOLATION_LEVELS = ['none', 'process', 'vm', 'container'] as const;

export type IsolationLevel = (typeof ISOLATION_LEVELS)[number];

export const ISOLATION: Record<IsolationLevel, string> = {
  none: 'nothing is held in: for code that is trusted. Chosen only where its driver is asked for by name',
  process: 'an ordinary process in namespaces of its own, with what its runtime refuses',
  vm: 'an interpreter in WebAssembly, which has no system calls',
  container: 'an unprivileged container with its own ids, an allowlist of system calls and limits of the kernel',
};

/** Whether a level holds at least as strongly as another. What is no level holds nothing. */
export const isAtLeast = (level: string | undefined, least: IsolationLevel): boolean =>
  Math.max(0, (ISOLATION_LEVELS as readonly (string | undefined)[]).indexOf(level)) >= ISOLATION_LEVELS.indexOf(least);
