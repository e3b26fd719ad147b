"""Threads for the worker's methods, so that one that blocks does not stop the others.

Jobs begin in the order in which they came. So many run at once; one that waits for another side (`hauki_peer._away`)
gives its place to the next meanwhile, up to a number of threads that leaves room below the vault's limit.
"""
import collections
import contextlib
import sys
import threading

import hauki_peer as peer

RUNNING = 24
THREADS = 40
"""An lxc vault has 64 (drivers/lxc/limits.ts), the worker's own included."""
_IDLE_S = 10.0


class Pool:
    def __init__(self, running: int = RUNNING, threads: int = THREADS):
        self._cond = threading.Condition()
        self._jobs: collections.deque = collections.deque()
        self._limit, self._most = running, threads
        self._threads = self._idle = self._running = 0

    def bound(self, running: int, threads: int) -> None:
        """Lowers its bounds, before it is used."""
        self._limit, self._most = running, threads

    def add(self, job) -> None:
        with self._cond:
            self._jobs.append(job)
            self._more()

    def _more(self) -> None:
        """Lets a thread go to work, where there is work and room; a new one where all are busy."""
        if not self._jobs or self._running >= self._limit:
            return
        if self._idle > 0:
            return self._cond.notify()
        if self._threads >= self._most:
            return
        self._threads += 1
        try:
            threading.Thread(target=self._work, name="hauki-worker", daemon=True).start()
        except RuntimeError:
            # The vault has no room for another thread: the others do it in time.
            self._threads -= 1

    def _work(self) -> None:
        peer._thread.turn = _Turn(self)
        while True:
            with self._cond:
                self._idle += 1
                there = self._cond.wait_for(lambda: self._jobs and self._running < self._limit, _IDLE_S)
                self._idle -= 1
                if not there:
                    # One stays, for a vault that has no room for another by then.
                    if self._threads > 1:
                        self._threads -= 1
                        return
                    continue
                job = self._jobs.popleft()
                self._running += 1
                self._more()
            try:
                job()
            except BaseException as error:  # noqa: BLE001: jobs answer for themselves; whatever escapes one, the thread stays.
                with contextlib.suppress(BaseException):
                    print(f"a job failed: {peer.name_of(error)}: {peer.text_of(error)}", file=sys.stderr)
            finally:
                job = None
                with self._cond:
                    self._running -= 1
                    self._more()


class _Turn:
    """A thread's place among those that run."""

    def __init__(self, pool: Pool):
        self._pool = pool

    def release(self) -> None:
        with self._pool._cond:
            self._pool._running -= 1
            self._pool._more()

    def acquire(self) -> None:
        with self._pool._cond:
            self._pool._running += 1
