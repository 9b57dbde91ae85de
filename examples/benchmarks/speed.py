"""Time of energy, forces and stress: eqpot beside MACE, alternating in one run.

    python -m venv peers && peers/bin/pip install torch==2.13.0 mace-torch
    python examples/benchmarks/speed.py --peers peers/bin/python

Each program is a process of its own; calls alternate between them, so that a machine that slows
down slows both. Medians are over all rounds; the spread is that of the rounds.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class Worker:
    """A program in its own process."""

    def __init__(self, python: str, program: str, n_threads: int, preset: str) -> None:
        threads = {name: str(n_threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.process = subprocess.Popen(
            [python, "-W", "ignore", str(HERE / "worker.py"), program, str(n_threads), preset],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | threads,
            text=True,
        )
        self.versions = self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker {self.process.args} ended: see its message above")
        return json.loads(line)

    def run(self, system: str, n_calls: int) -> Any:
        """Return the times of some calls."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"system": system, "n_calls": n_calls}) + "\n")
        self.process.stdin.flush()
        return self._answer()


def cpu_name() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Return the commit that is measured."""
    command = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", required=True, help="Python in whose environment MACE is")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--preset", default="medium", help="preset of eqpot")
    parser.add_argument("--json", type=Path, help="write all times to this file")
    chosen = parser.parse_args()
    workers = {
        "eqpot": Worker(sys.executable, "eqpot", chosen.threads, chosen.preset),
        "mace": Worker(chosen.peers, "mace", chosen.threads, ""),
    }
    calls = {"molecule": (20, 20), "water": (10, 1), "silicon": (10, 2)}  # eqpot, mace
    result: dict[str, Any] = {
        "cpu": cpu_name(),
        "threads": chosen.threads,
        "preset": chosen.preset,
        "commit": commit(),
        "versions": {name: worker.versions for name, worker in workers.items()},
        "systems": {},
    }
    print(
        f"{result['cpu']}, {chosen.threads} thread(s), preset {chosen.preset}, "
        f"commit {result['commit']}"
    )
    for name, worker in workers.items():
        print(f"{name}: {worker.versions}")
    print("\n| system | atoms | eqpot / ms | MACE / ms | eqpot / MACE (range of rounds) |")
    print("|---|---|---|---|---|")
    for system, n_calls in calls.items():
        for worker, n in zip(workers.values(), n_calls, strict=True):
            worker.run(system, min(n, 5))  # first calls compile
        rounds: dict[str, list[list[float]]] = {name: [] for name in workers}
        answer: dict[str, Any] = {}
        for _ in range(chosen.rounds):
            for (name, worker), n in zip(workers.items(), n_calls, strict=True):
                answer = worker.run(system, n)
                rounds[name].append([1e3 * second for second in answer["seconds"]])
        median = {
            name: statistics.median(time for times in many for time in times)
            for name, many in rounds.items()
        }
        ratios = [
            statistics.median(ours) / statistics.median(theirs)
            for ours, theirs in zip(rounds["eqpot"], rounds["mace"], strict=True)
        ]
        result["systems"][system] = {"n_atoms": answer["n_atoms"], "ms": rounds, "ratios": ratios}
        print(
            f"| {system} | {answer['n_atoms']} | {median['eqpot']:.1f} | {median['mace']:.0f} | "
            f"{median['eqpot'] / median['mace']:.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |",
            flush=True,
        )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
