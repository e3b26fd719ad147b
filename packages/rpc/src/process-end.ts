/** When a process of a mesh is to end: it is told so, or left alone. */

/** Calls `stop` with the reason: once, whatever else comes meanwhile. */
export function whenToEnd(stop: (reason: string) => unknown): void {
  let stopping = false;
  const end = (reason: string) => {
    if (stopping) return;
    stopping = true;
    void stop(reason);
  };
  process.on('SIGTERM', () => end('SIGTERM'));
  // Ctrl-C reaches the whole group of processes: one with a parent leaves the order to it.
  for (const signal of ['SIGINT', 'SIGHUP'] as const)
    process.on(signal, () => {
      if (!process.send) end(signal);
    });
  const alone = () => end('the parent is gone');
  process.on('disconnect', alone);
  // It may have gone before anybody listened for it.
  if (process.connected === false) alone();
}
