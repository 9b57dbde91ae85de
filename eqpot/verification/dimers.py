"""Dimers: the curve of every pair of elements, from deep overlap to three bond lengths.

A potential knows nothing of distances shorter than those of its data. What it says there decides
whether hot or pressed matter stays together: the curve should rise to a wall without a hole in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Final

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from eqpot import keys
from eqpot.data import Frame, collate, frame_to_graph
from eqpot.data.neighbors import neighbor_list
from eqpot.elements import SYMBOLS
from eqpot.graph import graph_to
from eqpot.potential import Potential
from eqpot.verification.prediction import Deadline

N_POINTS: Final = 140
NOISE: Final = 1e-2
"""eV/Å; forces below count as none where changes of sign are counted, as in the MLIP Arena."""

_SHORTEST, _LONGEST = 0.2, 3.0  # bond lengths
_CLOSE = 0.7  # bond lengths; the triple bonds of N2 and CO are at 0.77, nothing sound is shorter
_REACH = 4.0  # Å


@dataclass(frozen=True)
class Dimer:
    """The curve of a pair of elements.

    Attributes
    ----------
    symbols
        Of the two elements.
    bond_length
        Sum of the covalent radii, Å.
    distances
        Å, ascending.
    energies
        Less those of the isolated atoms, eV.
    forces
        Along the axis, positive where the atoms repel each other, eV/Å.
    shortest_in_data
        Shortest distance of such a pair in the training data, Å; ``None`` where none is near.
    n_sign_changes
        Of the force: one for a bond, none for a pair that only repels.
    hole_distance
        Where, going inwards, atoms closer than any bond attract each other again, Å; ``None`` where
        the wall stands.
    hole_barrier
        Height of the wall before the hole, eV: above the energy at the shortest distance in the
        data, or of the atoms far apart where the data hold no such pair.
    """

    symbols: tuple[str, str]
    bond_length: float
    distances: NDArray[np.float64]
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]
    shortest_in_data: float | None
    n_sign_changes: int
    hole_distance: float | None
    hole_barrier: float | None


@dataclass(frozen=True)
class Dimers:
    """Curves of pairs, and how many pairs there was no time for."""

    curves: list[Dimer]
    n_left_out: int
    n_frames_read: int


def dimer_curves(potential: Potential, train: Sequence[Frame], seconds: float) -> Dimers:
    """Return the curves of all pairs of elements, those of the commonest elements first.

    Parameters
    ----------
    potential
        In float64.
    train
        Frames it was trained on, for the shortest distances in them.
    seconds
        A third for reading distances, the rest for curves; what there is no time for is left out.
    """
    deadline = Deadline(seconds / 3)
    shortest, counts, n_read = shortest_distances(train, min(potential.r_max, _REACH), deadline)
    elements = sorted(potential.atomic_numbers, key=lambda z: (-counts.get(z, 0), z))
    pairs = sorted(
        combinations_with_replacement(range(len(elements)), 2), key=lambda pair: (pair[1], pair[0])
    )
    deadline = Deadline(seconds * 2 / 3)
    curves = []
    for first, second in pairs:
        if not deadline.allows():
            break
        curves.append(_curve(potential, elements[first], elements[second], shortest))
    return Dimers(curves, len(pairs) - len(curves), n_read)


def shortest_distances(
    frames: Sequence[Frame], reach: float, deadline: Deadline
) -> tuple[dict[tuple[int, int], float], dict[int, int], int]:
    """Return shortest distances in Å by pair of Z, atoms by Z, and the number of frames read.

    Frames are read from end to end of the set in strides, so that what there is time for is spread
    over all of it. Pairs further apart than ``reach`` are not seen.
    """
    shortest = np.full((len(SYMBOLS), len(SYMBOLS)), np.inf)
    counts = np.zeros(len(SYMBOLS), dtype=np.int64)
    n_read = 0
    stride = max(1, round(len(frames) ** 0.5))
    for index in (i for start in range(stride) for i in range(start, len(frames), stride)):
        if not deadline.allows():
            break
        frame = frames[index]
        n_read += 1
        counts += np.bincount(frame.atomic_numbers, minlength=len(SYMBOLS))
        (i, j), shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, reach)
        cell = np.where(frame.pbc[:, None], frame.cell, 0.0)
        vectors = frame.positions[j] - frame.positions[i] + shifts @ cell
        z = frame.atomic_numbers
        np.minimum.at(shortest, (z[i], z[j]), np.linalg.norm(vectors, axis=1))
    shortest = np.minimum(shortest, shortest.T)
    pairs = {
        (int(a), int(b)): float(shortest[a, b])
        for a, b in np.argwhere(np.isfinite(shortest))
        if a <= b
    }
    return pairs, {int(z): int(counts[z]) for z in np.flatnonzero(counts)}, n_read


def _curve(
    potential: Potential, one: int, other: int, shortest: Mapping[tuple[int, int], float]
) -> Dimer:
    bond = float(covalent_radii[one] + covalent_radii[other])
    distances = np.linspace(_SHORTEST * bond, min(_LONGEST * bond, potential.r_max), N_POINTS)
    numbers = np.array([one, other])
    graphs = [
        frame_to_graph(Frame(numbers, np.array([[0.0, 0, 0], [r, 0, 0]])), potential.r_max)
        for r in distances.tolist()
    ]
    out = potential(graph_to(collate(graphs), potential.species_of.device))
    e0 = dict(zip(potential.atomic_numbers, potential.reference_energies, strict=True))
    energies = out[keys.ENERGY].double().cpu().numpy() - e0[one] - e0[other]
    forces = out[keys.FORCES].double().cpu().numpy()[1::2, 0]
    in_data = shortest.get((min(one, other), max(one, other)))
    known = in_data if in_data is not None else float(distances[-1])
    closest = min(_CLOSE * bond, known)
    hole_distance, hole_barrier = find_hole(distances, energies, forces, closest, known)
    return Dimer(
        (SYMBOLS[one], SYMBOLS[other]),
        bond,
        distances,
        energies,
        forces,
        in_data,
        count_sign_changes(forces),
        hole_distance,
        hole_barrier,
    )


def count_sign_changes(forces: NDArray[np.float64]) -> int:
    """Return how often a force changes its sign along a curve, forces below the noise left out.

    Examples
    --------
    >>> count_sign_changes(np.array([5.0, 1.0, 0.001, -0.5, -0.001, 0.0]))
    1
    """
    signs = np.sign(forces[np.abs(forces) >= NOISE])
    return int((signs[1:] != signs[:-1]).sum())


def find_hole(
    distances: NDArray[np.float64],
    energies: NDArray[np.float64],
    forces: NDArray[np.float64],
    closest: float,
    known: float,
) -> tuple[float | None, float | None]:
    """Return distance (Å) and barrier (eV) of the hole that lies inside ``closest``, if any does.

    Parameters
    ----------
    distances, energies, forces
        A curve; see :class:`Dimer`.
    closest
        Å; further out, attraction is a bond.
    known
        Å; where atoms are known to be, or come from: there the climb to the barrier begins.
    """
    attracting = np.flatnonzero((distances < closest) & (forces < -NOISE))
    if len(attracting) == 0:
        return None, None
    edge = int(attracting[-1])
    # the attraction may reach further out, up to the top of the wall
    while distances[edge] < known and edge + 1 < len(forces) and forces[edge + 1] < -NOISE:
        edge += 1
    wall = (distances >= distances[edge]) & (distances <= max(known, distances[edge]))
    barrier = float(energies[wall].max() - np.interp(known, distances, energies))
    return float(distances[edge]), max(0.0, barrier)
