/** When a process of a mesh is to end: it is told so, or left alone. */

/** Calls `stop` with the reason, more than once where there are several. */
export function whenToEnd(stop: (reason: string) => unknown): void {
  process.on('SIGTERM', () => void stop('SIGTERM'));
  // Ctrl-C reaches the whole group of processes: one with a parent leaves the order to it.
  for (const signal of ['SIGINT', 'SIGHUP'] as const)
    process.on(signal, () => {
      if (!process.send) void stop(signal);
    });
  const alone = () => void stop('the parent is gone');
  process.on('disconnect', alone);
  // It may have gone before anybody listened for it.
  if (process.connected === false) alone();
}
