"""What a potential says of a frame, and which frames of a set to ask it about."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import ase
import numpy as np
from numpy.typing import NDArray

from eqpot import keys
from eqpot.data import Frame, frame_to_graph
from eqpot.graph import graph_to
from eqpot.potential import Potential

LEAST_RMS_FORCE: Final = 1e-3
"""eV/Å; deviations of forces are relative to their root mean square, but never to less."""

_MOST_READ: Final = 1000
_LARGE: Final = 300


@dataclass(frozen=True)
class Prediction:
    """Energy in eV, forces in eV/Å (n_atoms, 3) and stress in eV/Å³ (3, 3) of a frame."""

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]

    @property
    def rounding(self) -> float:
        """How well the energy can be known at best, eV: 64 units in its last place."""
        return 64.0 * float(np.spacing(abs(self.energy)))

    @property
    def rms_force(self) -> float:
        """Root mean square of the components of the forces, eV/Å, not below a floor."""
        return max(float(np.sqrt((self.forces**2).mean())), LEAST_RMS_FORCE)


def predict(potential: Potential, frame: Frame) -> Prediction:
    """Return energy, forces and stress of a frame, computed on the device of the potential."""
    graph = frame_to_graph(frame, potential.r_max)
    out = potential(graph_to(graph, potential.species_of.device))
    energy, forces, stress = (
        out[name].double().cpu().numpy() for name in (keys.ENERGY, keys.FORCES, keys.STRESS)
    )
    return Prediction(float(energy[0]), forces, stress[0])


def sample(frames: Sequence[Frame]) -> list[Frame]:
    """Return all frames, or a thousand evenly spaced ones of a larger set."""
    step = -(-len(frames) // _MOST_READ)
    return [frames[index] for index in range(0, len(frames), max(1, step))]


def representatives(frames: Sequence[Frame], n_frames: int) -> list[Frame]:
    """Return a few frames with more than one atom, each kind of structure in its turn.

    Within a kind, frames of up to 300 atoms come first: a check that calls the potential some
    dozen times shall end in seconds.
    """
    kinds: dict[str, list[Frame]] = {}
    for frame in sample(frames):
        if len(frame) > 1:
            kinds.setdefault(frame.config_type, []).append(frame)
    for members in kinds.values():
        members.sort(key=lambda frame: max(_LARGE, len(frame)))
    rounds = itertools.zip_longest(*kinds.values())
    in_turn = (frame for members in rounds for frame in members if frame is not None)
    return list(itertools.islice(in_turn, n_frames))


def calmest(frames: Sequence[Frame]) -> Frame | None:
    """Return the frame nearest to rest, to start dynamics from: that of the least rms force.

    Frames of 8 to 300 atoms are preferred, so that a run means something and ends in seconds.
    """
    candidates = [frame for frame in sample(frames) if len(frame) > 1]
    handy = [frame for frame in candidates if 8 <= len(frame) <= _LARGE]

    def unrest(frame: Frame) -> tuple[bool, float]:
        if frame.forces is None:
            return True, float(len(frame))
        return False, float(np.sqrt((frame.forces**2).mean()))

    return min(handy or candidates, key=unrest, default=None)


def atoms_of(frame: Frame) -> ase.Atoms:
    """Return the structure of a frame without its labels."""
    return ase.Atoms(frame.atomic_numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)


class Deadline:
    """A moment until which a check may begin another frame; the first is always allowed.

    Parameters
    ----------
    seconds
        From now.
    """

    def __init__(self, seconds: float) -> None:
        self._started = time.monotonic()
        self._seconds = seconds
        self._asked = False

    def allows(self) -> bool:
        """Return whether there is time for one more."""
        first, self._asked = not self._asked, True
        return first or self.elapsed < self._seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started
