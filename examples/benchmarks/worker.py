"""One program in a process and an environment of its own; started by ``turns.py`` only.

    python worker.py prepare|speed|training|accuracy '{"program": ..., "options": {...}, ...}'

Answers go as JSON lines to the standard output, requests come so to the standard input:

- ``prepare`` writes a model with fresh weights and answers ``n_weights``;
- ``speed`` and ``training`` answer ``{"calls": k}`` with ``seconds`` of k calls or steps, after
  some that are left out, and ``{"stop": true}`` with ``memory_mib``, the growth of the peak memory
  since the imports;
- ``accuracy`` trains for a budget and answers errors.
"""

import json
import os
import platform
import resource
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from programs import Budget, Program, open_program
from systems import SYSTEMS, Walk, mean_neighbors

SETTLING: Final = 0.25
"""Seconds at the start of each turn whose calls are left out; one call at least."""


class Line:
    """The line to the process that asks.

    Parameters
    ----------
    answers
        The standard output as it was before libraries print on it.
    """

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers

    def answer(self, **message: Any) -> None:
        """Send an answer."""
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()

    def request(self) -> dict[str, Any]:
        """Wait for a request; the end of the line is one to stop."""
        request: dict[str, Any] = json.loads(sys.stdin.readline() or '{"stop": true}')
        return request


def peak_memory() -> float:
    """Return the largest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def prepare(program: Program, task: dict[str, Any], line: Line) -> None:
    """Write a model with fresh weights."""
    n_weights = program.prepare(SYSTEMS[task["system"]](), Path(task["folder"]))
    line.answer(n_weights=n_weights)


def speed(program: Program, task: dict[str, Any], line: Line) -> None:
    """Evaluate a system, each time at other positions."""
    before = peak_memory()
    atoms = SYSTEMS[task["system"]]()
    facts = {"n_atoms": len(atoms), "mean_neighbors": mean_neighbors(atoms)}
    atoms.info["charge"] = 0  # TorchMD-Net asks for it
    atoms.calc = program.open(Path(task["folder"]))
    has_stress = bool(atoms.pbc.any()) and "stress" in atoms.calc.implemented_properties
    facts |= {"threads": torch.get_num_threads(), "versions": versions(program)}
    line.answer(**facts, has_stress=has_stress)
    walk = Walk(atoms)
    while "stop" not in (request := line.request()):
        settle(atoms, has_stress)
        seconds = [evaluate(atoms, walk, has_stress) for _ in range(request["calls"])]
        line.answer(seconds=seconds, fingerprint=walk.fingerprint())
    line.answer(memory_mib=peak_memory() - before)


def settle(atoms: Atoms, has_stress: bool) -> None:
    """Evaluate near the present positions until the cores and their caches are this program's.

    Another program had its turn, maybe with fewer threads. As in a simulation, what counts are
    calls that follow calls.
    """
    positions, start = atoms.positions.copy(), time.perf_counter()
    beside = Walk(atoms)
    evaluate(atoms, beside, has_stress)
    while time.perf_counter() - start < SETTLING:
        evaluate(atoms, beside, has_stress)
    atoms.positions = positions


def evaluate(atoms: Atoms, walk: Walk, has_stress: bool) -> float:
    """Move the atoms, compute forces, energy and stress, and return the seconds."""
    walk.step()
    start = time.perf_counter()
    forces = atoms.get_forces()
    energy = atoms.get_potential_energy()
    if has_stress:
        atoms.get_stress()
    seconds = time.perf_counter() - start
    if not (np.isfinite(energy) and np.isfinite(forces).all() and np.abs(forces).max() > 0):
        raise ValueError(f"energy and forces must be finite and not zero, got energy {energy}")
    return seconds


class Gate:
    """Where a trainer waits between its steps until it is asked for more of them."""

    def __init__(self, line: Line, before: float) -> None:
        self._line, self._before = line, before
        self._left = 0
        self._seconds: list[float] = []
        self._start = 0.0

    def pass_step(self) -> None:
        """Count a step; called by the trainer after each."""
        if self._left > 0:
            self._seconds.append(time.perf_counter() - self._start)
            self._left -= 1
            if self._left == 0:
                self._line.answer(seconds=self._seconds[1:])  # the first finds others' caches
        if self._left == 0:
            request = self._line.request()
            if "stop" in request:
                self._line.answer(memory_mib=peak_memory() - self._before)
                os._exit(0)  # a trainer that is stopped half-way has nothing to leave
            self._left, self._seconds = 1 + request["calls"], []
        self._start = time.perf_counter()


def training(program: Program, task: dict[str, Any], line: Line) -> None:
    """Train until told to stop."""
    line.answer(versions=versions(program))
    gate = Gate(line, peak_memory())
    forever = Budget(seconds=86400.0, n_epochs=10**6)
    program.train(Path(task["frames"]), Path(task["folder"]), forever, gate.pass_step)


def accuracy(program: Program, task: dict[str, Any], line: Line) -> None:
    """Train for a budget and compute errors on test frames."""
    steps: list[float] = []
    folder = Path(task["folder"])
    budget = Budget(task["seconds"], task["n_epochs"])
    program.train(Path(task["frames"]), folder, budget, lambda: steps.append(time.monotonic()))
    calculator = program.open(folder)
    errors = {Path(name).stem: rmse(calculator, name) for name in task["tests"]}
    line.answer(
        errors=errors,
        n_steps=len(steps),
        training_seconds=steps[-1] - steps[0],
        versions=versions(program),
    )


def rmse(calculator: Any, name: str) -> dict[str, float]:
    """Return root mean square errors, meV/atom and meV/Å, over the frames of a file."""
    energies, forces = [], []
    for frame in read(name, ":"):
        atoms = Atoms(frame.symbols, frame.positions, cell=frame.cell, pbc=frame.pbc)
        atoms.info["charge"] = 0
        atoms.calc = calculator
        forces.append(atoms.get_forces() - frame.get_forces())
        difference = atoms.get_potential_energy() - frame.get_potential_energy()
        energies.append(difference / len(atoms))
    return {
        "energy": 1e3 * float(np.sqrt(np.mean(np.square(energies)))),
        "forces": 1e3 * float(np.sqrt(np.mean(np.square(np.concatenate(forces))))),
    }


def versions(program: Program) -> dict[str, str]:
    """Return the versions of what takes part."""
    found = {"python": platform.python_version()}
    for name in program.packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # only on the path, or another program of the framework
            found[name] = str(getattr(sys.modules.get(name), "__version__", "unknown"))
    return found


def main() -> None:
    """Do what the command line asks."""
    warnings.simplefilter("ignore")
    line = Line(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)  # what libraries print is not to stand among the answers
    task = json.loads(sys.argv[2])
    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    program = open_program(task["program"], task["options"])
    modes = {"prepare": prepare, "speed": speed, "training": training, "accuracy": accuracy}
    modes[sys.argv[1]](program, task, line)


if __name__ == "__main__":
    main()
