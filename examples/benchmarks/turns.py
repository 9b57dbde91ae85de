"""Processes that take turns: each program works in its own, one at a time, in one run."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from peers import Variant, install, python_of

HERE: Final = Path(__file__).resolve().parent
MAX_CALLS: Final = 20
"""Most calls in one turn."""
N_LEFT_OUT: Final = 1
"""Calls at the start of each turn that a worker leaves out, at least."""
MIN_ROUNDS: Final = 3
"""Fewest turns of each program, whatever the time."""


@dataclass
class Field:
    """The variants of a comparison, where they run, and those that failed.

    Attributes
    ----------
    variants
        By name; the first is what the others are set in relation to.
    folder
        Of environments and models.
    pythons
        Interpreters to take in place of installed environments, by program.
    threads
        Of each process whose variant has no number of its own.
    failures
        Reason by place and name; filled while measuring.
    """

    variants: Mapping[str, Variant]
    folder: Path
    pythons: dict[str, Path]
    threads: int
    failures: dict[str, str] = field(default_factory=dict)

    def threads_of(self, name: str) -> int:
        """Return the number of threads of a variant."""
        return self.variants[name].threads or self.threads

    def worker(self, name: str, mode: str, place: str, **task: Any) -> "Worker":
        """Return the process of a variant, in a folder of its own; installs what is missing.

        Raises
        ------
        RuntimeError
            If there is no environment, or the process ends early.
        """
        variant = self.variants[name]
        if variant.program != "eqpot" and variant.program not in self.pythons:
            install(variant.program, self.folder)
        folder = self.folder.resolve() / "models" / f"{name}-{place}"
        folder.mkdir(parents=True, exist_ok=True)
        task |= {
            "program": variant.program,
            "options": variant.options,
            "folder": str(folder),
            "threads": self.threads_of(name),
        }
        python = python_of(variant.program, self.folder, self.pythons)
        command = [str(python), str(HERE / "worker.py"), mode, json.dumps(task)]
        return Worker(name, command, task["threads"])

    def attempt(self, name: str, place: str, act: Callable[[], Any]) -> Any:
        """Return what ``act`` returns; note a failure and return ``None``."""
        try:
            return act()
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1][:300]
            self.failures[f"{name}, {place}"] = reason
            print(f"{name}, {place}: failed: {error}", file=sys.stderr)
            return None


class Worker:
    """One program in its own process; see ``worker.py`` for the words.

    Parameters
    ----------
    name
        For messages.
    command
        That starts it.
    threads
        Of its libraries.

    Raises
    ------
    RuntimeError
        If the process does not start.
    """

    def __init__(self, name: str, command: list[str], threads: int) -> None:
        self.name = name
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the worker)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=os.environ | dict.fromkeys(names, str(threads)),
        )
        try:
            self.facts = self._answer()
        except BaseException:
            self.close()
            raise

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            tail = "".join(self.errors.readlines()[-15:])
            raise RuntimeError(f"the process of {self.name} ended early:\n{tail}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to a request.

        Raises
        ------
        RuntimeError
            If the process has ended.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the missing answer tells why
        return self._answer()

    def close(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # a request that was not read
                    stream.close()


@dataclass(frozen=True)
class Length:
    """How much is measured.

    Attributes
    ----------
    n_rounds
        Turns of each program.
    n_warmup
        Calls before, which compile and are left out.
    seconds
        For all turns together; fewer rounds and calls are made to keep to it.
    """

    n_rounds: int
    n_warmup: int
    seconds: float

    def plan(self, lap: float) -> tuple[int, int]:
        """Return rounds and calls in a turn, if one call of every program takes ``lap`` seconds.

        The calls that are left out come on top of these, within the same time.
        """
        n_most = int(self.seconds / ((1 + N_LEFT_OUT) * lap))
        n_rounds = max(min(self.n_rounds, n_most), min(self.n_rounds, MIN_ROUNDS))
        n_calls = int(self.seconds / (n_rounds * lap)) - N_LEFT_OUT
        return n_rounds, max(1, min(MAX_CALLS, n_calls))


def take_turns(
    comparison: Field, workers: dict[str, Worker], place: str, length: Length
) -> dict[str, Any]:
    """Return what programs need for a call, measured in turns; ends the workers.

    A worker that fails is noted and left out.

    Returns
    -------
    dict
        Rounds, calls in a turn, and by variant ``milliseconds`` and ``ratio`` to the first variant
        (median, and minimum and maximum over calls and rounds), ``memory_mib``, ``seconds`` and
        ``options``.
    """
    rounds: dict[str, list[list[float]]] = {name: [] for name in workers}
    memory: dict[str, float] = {}
    prints: dict[str, float] = {}

    def turn(name: str, n_calls: int) -> list[float]:
        answer = workers[name].ask(calls=n_calls)
        prints[name] = answer.get("fingerprint", 0.0)
        seconds: list[float] = answer["seconds"]
        return seconds

    def lap(n_calls: int) -> dict[str, list[float]]:
        seconds = {}
        for name in list(workers):
            found = comparison.attempt(name, place, partial(turn, name, n_calls))
            if found is None:
                workers.pop(name).close()
                rounds.pop(name), prints.pop(name, None)
            else:
                seconds[name] = found
        if prints and max(prints.values()) - min(prints.values()) > 1e-8:
            raise AssertionError(f"the programs did not see the same positions: {prints}")
        return seconds

    try:
        warm = lap(length.n_warmup)
        n_rounds, n_calls = length.plan(sum(seconds[-1] for seconds in warm.values()) or 1.0)
        for _ in range(n_rounds):
            for name, seconds in lap(n_calls).items():
                rounds[name].append(seconds)
        for name, worker in workers.items():
            memory[name] = worker.ask(stop=True)["memory_mib"]
    finally:
        for worker in workers.values():
            worker.close()
    return {
        "n_rounds": n_rounds,
        "calls_per_round": n_calls,
        "n_warmup": length.n_warmup,
        "variants": {
            name: {
                **summary(rounds, name, next(iter(comparison.variants))),
                "memory_mib": memory[name],
                "seconds": rounds[name],
                "options": comparison.variants[name].options,
            }
            for name in rounds
        },
    }


def summary(rounds: dict[str, list[list[float]]], name: str, first: str) -> dict[str, Any]:
    """Return time and ratio of one variant."""
    calls = [1e3 * seconds for turn in rounds[name] for seconds in turn]
    found: dict[str, Any] = {"milliseconds": spread(calls)}
    if first in rounds:
        pairs = zip(rounds[name], rounds[first], strict=True)
        ratios = [statistics.median(own) / statistics.median(other) for own, other in pairs]
        found["ratio"] = spread(ratios)
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
