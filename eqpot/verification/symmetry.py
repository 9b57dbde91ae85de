"""Symmetry: how far a potential is from turning, mirroring, moving and renumbering with atoms."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eqpot.data import Frame
from eqpot.potential import Potential
from eqpot.verification.prediction import Deadline, Prediction, predict

_LEAST_STRESS = 1e-4  # eV/Å³


@dataclass(frozen=True)
class Deviation:
    """The largest deviation over frames.

    Attributes
    ----------
    energy
        eV/atom, beyond the rounding of the total energy.
    forces
        Relative to the root mean square of the forces.
    stress
        Relative to the largest component of the stress; ``None`` where no frame is periodic in all
        directions.
    """

    energy: float
    forces: float
    stress: float | None


@dataclass(frozen=True)
class Symmetry:
    """Deviations by operation: ``rotation``, ``reflection``, ``translation``, ``permutation``."""

    n_frames: int
    operations: dict[str, Deviation]


def check_symmetry(potential: Potential, frames: Sequence[Frame], seconds: float) -> Symmetry:
    """Return how far results are from following a rotation, reflection, shift and renumbering.

    Parameters
    ----------
    potential
        In float64, so that what remains is rounding.
    frames
        Each is moved once by each operation, while there is time.
    seconds
        For all frames; the first is always done.
    """
    rng = np.random.default_rng(0)
    deadline = Deadline(seconds)
    found: dict[str, list[Deviation]] = {}
    n_frames = 0
    for frame in frames:
        if not deadline.allows():
            break
        n_frames += 1
        before = predict(potential, frame)
        turn = _random_rotation(rng)
        order = rng.permutation(len(frame))
        keep, one = np.arange(len(frame)), np.eye(3)
        for name, matrix, shift, numbering in (
            ("rotation", turn, np.zeros(3), keep),
            ("reflection", -turn, np.zeros(3), keep),
            ("translation", one, rng.uniform(-3.0, 3.0, 3), keep),
            ("permutation", one, np.zeros(3), order),
        ):
            moved = replace(
                frame,
                atomic_numbers=frame.atomic_numbers[numbering],
                positions=frame.positions[numbering] @ matrix.T + shift,
                cell=frame.cell @ matrix.T,
                energy=None,
                forces=None,
                stress=None,
            )
            expected = Prediction(
                before.energy,
                before.forces[numbering] @ matrix.T,
                matrix @ before.stress @ matrix.T,
            )
            deviation = _deviation(expected, predict(potential, moved), bool(frame.pbc.all()))
            found.setdefault(name, []).append(deviation)
    return Symmetry(n_frames, {name: _largest(parts) for name, parts in found.items()})


def _deviation(expected: Prediction, found: Prediction, periodic: bool) -> Deviation:
    stress = None
    if periodic:
        size = max(float(np.abs(expected.stress).max()), _LEAST_STRESS)
        stress = float(np.abs(found.stress - expected.stress).max()) / size
    difference = max(0.0, abs(found.energy - expected.energy) - expected.rounding)
    return Deviation(
        difference / len(expected.forces),
        float(np.abs(found.forces - expected.forces).max()) / expected.rms_force,
        stress,
    )


def _largest(parts: Sequence[Deviation]) -> Deviation:
    stresses = [part.stress for part in parts if part.stress is not None]
    return Deviation(
        max(part.energy for part in parts),
        max(part.forces for part in parts),
        max(stresses, default=None),
    )


def _random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    rotation: NDArray[np.float64] = q * np.sign(np.linalg.det(q))
    return rotation
