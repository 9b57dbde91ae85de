"""Agreement: the potential as it runs against the same in float64, and against its export."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eqpot.calculators import ASECalculator
from eqpot.data import Frame
from eqpot.potential import Potential
from eqpot.verification.prediction import LEAST_RMS_FORCE, Deadline, atoms_of


@dataclass(frozen=True)
class Agreement:
    """The largest differences over frames: energy in eV/atom, forces relative to their rms."""

    n_frames: int
    energy: float
    forces: float


def compare_precisions(
    working: Potential, exact: Potential, frames: Sequence[Frame], seconds: float
) -> Agreement:
    """Compare a potential in the type it runs in with the same in float64."""
    return _compare(ASECalculator(working), ASECalculator(exact), frames, seconds)


def compare_export(
    export: str | Path, potential: Potential, frames: Sequence[Frame], seconds: float
) -> Agreement:
    """Compare an exported program with the potential it came from, in the same type.

    Parameters
    ----------
    export
        A file of :func:`eqpot.export.export_torchscript`. **Loading it runs code from it.**
    potential
        What it was made from, on the CPU.
    frames
        Compared while there is time.
    seconds
        For all frames; the first is always done.
    """
    program = ASECalculator.from_torchscript(export, trust=True)
    return _compare(program, ASECalculator(potential), frames, seconds)


def _compare(
    one: ASECalculator, other: ASECalculator, frames: Sequence[Frame], seconds: float
) -> Agreement:
    deadline = Deadline(seconds)
    n_frames, energy, forces = 0, 0.0, 0.0
    for frame in frames:
        if not deadline.allows():
            break
        n_frames += 1
        results = []
        for calculator in (one, other):
            calculator.calculate(atoms_of(frame), ["energy", "forces"])
            results.append((calculator.results["energy"], calculator.results["forces"]))
        (energy_a, forces_a), (energy_b, forces_b) = results
        rms = max(float(np.sqrt((forces_b**2).mean())), LEAST_RMS_FORCE)
        energy = max(energy, abs(energy_a - energy_b) / len(frame))
        forces = max(forces, float(np.abs(forces_a - forces_b).max()) / rms)
    return Agreement(n_frames, energy, forces)
