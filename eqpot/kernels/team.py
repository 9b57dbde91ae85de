"""Threads that do one task together."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import torch


class Team:
    """Threads that begin a task together; each lets its libraries use one thread.

    Parameters
    ----------
    n_threads
        How many.
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._process = os.getpid()
        n_before = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(n_threads, "eqpot", initializer=_use_one_thread)
        self.run(lambda meet: meet())
        # each thread keeps its number; the last that was set is that of threads to come
        torch.set_num_threads(n_before)

    def is_of(self, n_threads: int) -> bool:
        """Return whether the team has so many threads, in this process: a fork has none."""
        return self.n_threads == n_threads and self._process == os.getpid()

    def run(self, task: Callable[[Callable[[], object]], object]) -> None:
        """Let each thread do a task, and wait until all have.

        Parameters
        ----------
        task
            Is given a function that returns when all threads have called it.

        Raises
        ------
        Exception
            What a thread raised; the others then end where they meet next.
        """
        barrier = threading.Barrier(self.n_threads)

        def part() -> None:
            try:
                task(barrier.wait)
            except BaseException:
                barrier.abort()
                raise

        futures = [self._pool.submit(part) for _ in range(self.n_threads)]
        try:
            wait(futures)
        finally:
            wait(futures)  # an interrupt must not leave threads behind that write to buffers
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in errors:
            if not isinstance(error, threading.BrokenBarrierError):
                raise error


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # the first question settles it: a thread then takes no other number
