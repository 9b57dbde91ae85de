"""Threads that do one task together."""

import os
import threading
import warnings
import weakref
from collections.abc import Callable
from queue import SimpleQueue

import torch

Meet = Callable[[], object]
"""Returns when all threads have called it."""
_Queue = SimpleQueue[Callable[[], object] | None]


class Team:
    """Threads that begin a task together; each lets its libraries use one thread.

    They end with the team.

    Parameters
    ----------
    n_threads
        How many.
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._process = os.getpid()
        self._tasks: list[_Queue] = [SimpleQueue() for _ in range(n_threads)]
        weakref.finalize(self, _dismiss, self._tasks).atexit = False
        _warn_of_bound_threads(n_threads)
        n_before = torch.get_num_threads()
        try:
            for tasks in self._tasks:
                threading.Thread(target=_serve, args=(tasks,), daemon=True).start()
            self.run(lambda meet: meet())
        finally:
            # each thread keeps its number; the last that was set is that of threads to come
            torch.set_num_threads(n_before)

    def is_of(self, n_threads: int) -> bool:
        """Return whether the team has so many threads, in this process: a fork has none."""
        return self.n_threads == n_threads and self._process == os.getpid()

    def run(self, task: Callable[[Meet], object]) -> None:
        """Let each thread do a task, and wait until all have.

        Parameters
        ----------
        task
            Is given a function that returns when all threads have called it.

        Raises
        ------
        BaseException
            What a thread raised, or an interrupt; the others then end where they meet next.
        """
        barrier = threading.Barrier(self.n_threads)
        ended: SimpleQueue[BaseException | None] = SimpleQueue()

        def part() -> None:
            try:
                task(barrier.wait)
                ended.put(None)
            except BaseException as error:
                barrier.abort()
                ended.put(error)

        n_running, errors = 0, []
        try:
            for tasks in self._tasks:
                tasks.put(part)
                n_running += 1
            while n_running > 0:
                errors.append(ended.get())
                n_running -= 1
        except BaseException:  # none may be left behind that writes to buffers
            barrier.abort()
            for _ in range(n_running):
                ended.get()
            raise
        for error in errors:
            if error is not None and not isinstance(error, threading.BrokenBarrierError):
                raise error


def _serve(tasks: _Queue) -> None:
    """Do tasks until there is none."""
    torch.set_num_threads(1)
    torch.get_num_threads()  # the first question settles it: a thread then takes no other number
    while (task := tasks.get()) is not None:
        task()
        del task  # what it holds is not needed while waiting


def _dismiss(queues: list[_Queue]) -> None:
    for tasks in queues:
        tasks.put(None)


def _warn_of_bound_threads(n_threads: int) -> None:
    """Warn if OpenMP has bound the calling thread to fewer cores, which its threads inherit."""
    names = [name for name in ("OMP_PROC_BIND", "GOMP_CPU_AFFINITY") if name in os.environ]
    if names and hasattr(os, "sched_getaffinity"):
        n_cores = len(os.sched_getaffinity(0))
        if n_cores < n_threads:
            warnings.warn(
                f"{n_threads} threads must share {n_cores} core(s), since {names[0]} binds them; "
                f"unset {names[0]}",
                stacklevel=2,
            )
