"""Derivatives: whether forces and stress are those of the energy, by finite differences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eqpot.data import Frame
from eqpot.potential import Potential
from eqpot.verification.prediction import Deadline, Prediction, predict

_N_DIRECTIONS = 3
_STEP = 2e-3  # Å, or strain
_N_LEVELS = 4
_SHORTEST_STEP = _STEP / 2 ** (_N_LEVELS - 1)
_LEAST_STRESS = 1e-4  # eV/Å³


@dataclass(frozen=True)
class Consistency:
    """The largest differences over frames, beyond what the rounding of the energy explains.

    Attributes
    ----------
    n_frames, n_directions
        Frames, and random directions of all of them together.
    forces
        Between the slope of the energy along random directions and the force along them, relative
        to the root mean square of the forces.
    net_force
        Largest component of the sum of all forces, relative to the same.
    stress
        Between strain derivative and stress, relative to the largest component; ``None`` where no
        frame is periodic in all directions.
    """

    n_frames: int
    n_directions: int
    forces: float
    net_force: float
    stress: float | None


def check_derivatives(potential: Potential, frames: Sequence[Frame], seconds: float) -> Consistency:
    """Compare forces and stress with finite differences of the energy.

    Parameters
    ----------
    potential
        In float64.
    frames
        Compared while there is time, up to three directions and all six strains of each.
    seconds
        For all frames; one direction and one strain of the first are always done.
    """
    rng = np.random.default_rng(0)
    deadline = Deadline(seconds)
    n_frames = n_directions = 0
    largest = {"forces": 0.0, "net_force": 0.0}
    stresses = []
    for frame in frames:
        if not deadline.allows():
            break
        n_frames += 1
        bare = replace(frame, energy=None, forces=None, stress=None)
        at_rest = predict(potential, bare)
        for index in range(_N_DIRECTIONS):
            if index > 0 and not deadline.allows():
                break
            n_directions += 1
            direction = rng.normal(size=bare.positions.shape)
            direction /= np.linalg.norm(direction)
            slope = extrapolated_slope(_along(potential, bare, direction))
            difference = abs(slope + float((at_rest.forces * direction).sum()))
            difference = max(0.0, difference - at_rest.rounding / _SHORTEST_STEP)
            largest["forces"] = max(largest["forces"], difference / at_rest.rms_force)
        net = float(np.abs(at_rest.forces.sum(axis=0)).max()) / at_rest.rms_force
        largest["net_force"] = max(largest["net_force"], net)
        if frame.pbc.all():
            stresses.append(_stress_difference(potential, bare, at_rest, deadline))
    return Consistency(n_frames, n_directions, **largest, stress=max(stresses, default=None))


def extrapolated_slope(function: Callable[[float], float], first: float = _STEP) -> float:
    """Return the derivative of a function at 0, by Richardson's extrapolation.

    Central differences at four steps, each half the one before, leave an error of eighth order in
    the first.

    Parameters
    ----------
    function
        Of a displacement.
    first
        Largest displacement.

    References
    ----------
    Press et al., Numerical Recipes, 3rd edition, section 5.7.

    Examples
    --------
    >>> import math
    >>> abs(extrapolated_slope(math.sin) - 1.0) < 1e-11
    True
    """
    rows: list[list[float]] = []
    for level in range(_N_LEVELS):
        step = first / 2**level
        row = [(function(step) - function(-step)) / (2 * step)]
        for order in range(1, level + 1):
            row.append(row[-1] + (row[-1] - rows[-1][order - 1]) / (4**order - 1))
        rows.append(row)
    return rows[-1][-1]


def _along(
    potential: Potential, frame: Frame, direction: NDArray[np.float64]
) -> Callable[[float], float]:
    def energy(step: float) -> float:
        moved = replace(frame, positions=frame.positions + step * direction)
        return predict(potential, moved).energy

    return energy


def _stress_difference(
    potential: Potential, frame: Frame, at_rest: Prediction, deadline: Deadline
) -> float:
    volume = abs(float(np.linalg.det(frame.cell)))
    stress = at_rest.stress
    largest = 0.0
    # a shear first: it shows a transposed or wrongly ordered stress
    for index, (a, b) in enumerate(((1, 2), (0, 0), (0, 2), (1, 1), (0, 1), (2, 2))):
        if index > 0 and not deadline.allows():
            break
        shape = np.zeros((3, 3))
        shape[a, b] += 0.5
        shape[b, a] += 0.5

        def energy(step: float, shape: NDArray[np.float64] = shape) -> float:
            strain = np.eye(3) + step * shape
            strained = replace(frame, positions=frame.positions @ strain, cell=frame.cell @ strain)
            return predict(potential, strained).energy

        difference = abs(extrapolated_slope(energy) - volume * float(stress[a, b]))
        difference = max(0.0, difference - at_rest.rounding / _SHORTEST_STEP)
        largest = max(largest, difference / volume)
    return largest / max(float(np.abs(stress).max()), _LEAST_STRESS)
