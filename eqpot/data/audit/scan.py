"""One pass over a set: a few numbers for each frame, and a sample of frames to look at closely.

Everything that needs all frames is computed here while they stream by, so a store of millions of
frames is read once and never held. What costs more is done on the sample.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from eqpot.data.frames import Frame, LabelCounts
from eqpot.data.neighbors import neighbor_list

Array = NDArray[np.float64]

SAMPLE: Final = 400
"""Frames looked at closely."""
SAMPLE_ATOMS: Final = 40_000
"""Atoms that the sample may hold, which bounds its memory."""
_CONTACT_CUTOFF: Final = 4.5
_ALL_PAIRS: Final = 250
"""Up to so many atoms without periodicity, every distance enters the fingerprint."""
N_INVARIANTS: Final = 4


@dataclass
class GroupTotals:
    """Sums over the frames of one element or configuration type."""

    n_frames: int = 0
    n_atoms: int = 0
    n_force_atoms: int = 0
    sum_force_squares: float = 0.0

    @property
    def force_rms(self) -> float | None:
        """Root mean square of a force component, eV/Å."""
        if self.n_force_atoms == 0:
            return None
        return float(np.sqrt(self.sum_force_squares / (3 * self.n_force_atoms)))


@dataclass
class Scan:
    """Numbers of a set, by frame and in sum.

    Attributes
    ----------
    n_atoms, energy, max_force, force_rms, net_force, torque, n_zero_forces
        One entry a frame. Energy and forces are NaN where absent. ``net_force`` and ``torque``
        are relative to what random forces of that size would give; the torque is NaN under
        periodicity.
    closest, nearest
        Of each frame, the shortest distance and the median distance to the nearest neighbour, in
        units of the sum of covalent radii; inf without any pair.
    composition, config
        Index of the composition and of the configuration type.
    compositions, configs
        What these indices mean.
    invariants
        Shape (n_frames, 4): numbers that rotation, translation, reflection and the order of atoms
        leave as they are.
    isolated
        Whether a frame is an isolated atom.
    stress_size, volume
        Largest stress entry, eV/Å³, and volume, Å³; NaN where absent.
    sample
        Indices of the frames looked at closely.
    sampled
        Those frames.
    """

    name: str
    counts: LabelCounts = field(default_factory=LabelCounts)
    n_atoms: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    energy: Array = field(default_factory=lambda: np.zeros(0))
    max_force: Array = field(default_factory=lambda: np.zeros(0))
    force_rms: Array = field(default_factory=lambda: np.zeros(0))
    net_force: Array = field(default_factory=lambda: np.zeros(0))
    torque: Array = field(default_factory=lambda: np.zeros(0))
    n_zero_forces: Array = field(default_factory=lambda: np.zeros(0))
    closest: Array = field(default_factory=lambda: np.zeros(0))
    nearest: Array = field(default_factory=lambda: np.zeros(0))
    stress_size: Array = field(default_factory=lambda: np.zeros(0))
    volume: Array = field(default_factory=lambda: np.zeros(0))
    composition: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    config: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    compositions: list[tuple[tuple[int, int], ...]] = field(default_factory=list)
    configs: list[str] = field(default_factory=list)
    invariants: Array = field(default_factory=lambda: np.zeros((0, N_INVARIANTS)))
    isolated: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    sample: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sampled: list[Frame] = field(default_factory=list)
    by_element: dict[int, GroupTotals] = field(default_factory=dict)
    by_config: dict[str, GroupTotals] = field(default_factory=dict)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.counts.n_frames


_NUMBERS: Final = (
    "energy",
    "max_force",
    "force_rms",
    "net_force",
    "torque",
    "n_zero_forces",
    "closest",
    "nearest",
    "stress_size",
    "volume",
)


def scan(name: str, frames: Sequence[Frame], *, sample: int = SAMPLE, seed: int = 0) -> Scan:
    """Return the numbers of a set, read once from first to last.

    Parameters
    ----------
    name
        Name of the set, for messages.
    frames
        The frames; a store is read as a stream.
    sample
        Frames to look at closely.
    seed
        Of the generator that draws them.
    """
    result = Scan(name)
    columns = {column: array("d") for column in _NUMBERS}
    n_atoms, composition, config = array("q"), array("q"), array("q")
    isolated = array("b")
    invariants = array("d")
    composition_index: dict[tuple[tuple[int, int], ...], int] = {}
    config_index: dict[str, int] = {}
    wanted = _drawn(len(frames), sample, seed)
    atoms_left = SAMPLE_ATOMS
    kept: list[int] = []
    for index, frame in enumerate(frames):
        result.counts.add(frame)
        numbers, counts = np.unique(frame.atomic_numbers, return_counts=True)
        key = tuple(zip(numbers.tolist(), counts.tolist(), strict=True))
        composition.append(composition_index.setdefault(key, len(composition_index)))
        config.append(config_index.setdefault(frame.config_type, len(config_index)))
        n_atoms.append(len(frame))
        isolated.append(frame.is_isolated_atom)
        values = _force_numbers(frame)
        values["energy"] = np.nan if frame.energy is None else frame.energy
        periodic = bool(frame.pbc.all())
        values["volume"] = float(abs(np.linalg.det(frame.cell))) if periodic else np.nan
        values["stress_size"] = (
            np.nan if frame.stress is None else float(np.abs(frame.stress).max())
        )
        values["closest"], values["nearest"], four = _geometry(frame)
        for column, numbers_of in columns.items():
            numbers_of.append(values[column])
        invariants.extend(four)
        _add_totals(result, frame, key)
        if index in wanted and len(frame) <= atoms_left:
            atoms_left -= len(frame)
            kept.append(index)
            result.sampled.append(frame)
    for column, numbers_of in columns.items():
        setattr(result, column, np.frombuffer(numbers_of, dtype=np.float64).copy())
    result.n_atoms = np.array(n_atoms, dtype=np.int64)
    result.composition = np.array(composition, dtype=np.int64)
    result.config = np.array(config, dtype=np.int64)
    result.isolated = np.array(isolated, dtype=np.bool_)
    result.compositions = list(composition_index)
    result.configs = list(config_index)
    result.invariants = np.array(invariants, dtype=np.float64).reshape(-1, N_INVARIANTS)
    result.sample = np.array(kept, dtype=np.int64)
    return result


def _drawn(n_frames: int, sample: int, seed: int) -> set[int]:
    """Return indices drawn at random, in runs of two: neighbours in a trajectory lie close."""
    if n_frames <= sample:
        return set(range(n_frames))
    generator = np.random.default_rng(seed)
    starts = 2 * generator.choice(n_frames // 2, size=sample // 2, replace=False)
    return {*starts.tolist(), *(starts + 1).tolist()}


def _force_numbers(frame: Frame) -> dict[str, float]:
    names = ("max_force", "force_rms", "net_force", "torque", "n_zero_forces")
    if frame.forces is None:
        return dict.fromkeys(names, np.nan)
    forces = frame.forces
    squares = (forces**2).sum(axis=1)
    total = float(squares.sum())
    values = {
        "max_force": float(np.sqrt(squares.max())),
        "force_rms": float(np.sqrt(total / forces.size)),
        "net_force": 0.0,
        "torque": np.nan,
        "n_zero_forces": float((squares == 0.0).sum()),
    }
    if total > 0.0:
        values["net_force"] = float(np.linalg.norm(forces.sum(axis=0)) / np.sqrt(total))
        if not frame.pbc.any() and len(frame) > 1:
            arms = frame.positions - frame.positions.mean(axis=0)
            scale = float(np.sqrt(((arms**2).sum(axis=1) * squares).sum()))
            if scale > 0.0:
                twist = np.cross(arms, forces).sum(axis=0)
                values["torque"] = float(np.linalg.norm(twist)) / scale
    return values


def _geometry(frame: Frame) -> tuple[float, float, list[float]]:
    """Return closest contact, typical nearest distance, and invariants of a frame."""
    n_atoms = len(frame)
    numbers = frame.atomic_numbers
    volume = 0.0
    if not frame.pbc.any() and 1 < n_atoms <= _ALL_PAIRS:
        r = pdist(frame.positions)
        upper = np.triu_indices(n_atoms, 1)
        i = np.concatenate([upper[0], upper[1]])
        j = np.concatenate([upper[1], upper[0]])
        r = np.concatenate([r, r])
    else:
        edges, shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, _CONTACT_CUTOFF)
        i, j = edges
        cell = np.where(frame.pbc[:, None], frame.cell, 0.0)
        r = np.linalg.norm(frame.positions[j] - frame.positions[i] + shifts @ cell, axis=1)
        if frame.pbc.all():
            volume = float(abs(np.linalg.det(frame.cell)))
    if len(r) == 0:
        return np.inf, np.inf, [0.0, 0.0, 0.0, volume / n_atoms]
    scaled = r / (covalent_radii[numbers[i]] + covalent_radii[numbers[j]])
    nearest = np.full(n_atoms, np.inf)
    np.minimum.at(nearest, i, scaled)
    # functions that fade before the cutoff, so that an edge at the cutoff does not matter
    fade = np.clip(1.0 - r / _CONTACT_CUTOFF, 0.0, None) ** 3 if volume else 1.0 / (1.0 + r)
    weight = np.sqrt(numbers[j].astype(np.float64))
    around = np.bincount(i, weight * fade, minlength=n_atoms)
    soft = np.bincount(i, weight * fade * r, minlength=n_atoms)
    own = np.sqrt(numbers.astype(np.float64))
    four = [
        float((own * around).sum()) / n_atoms,
        float((own * soft).sum()) / n_atoms,
        float((around**2).sum()) / n_atoms,
        volume / n_atoms,
    ]
    return float(scaled.min()), float(np.median(nearest)), four


def _add_totals(result: Scan, frame: Frame, composition: tuple[tuple[int, int], ...]) -> None:
    squares = None if frame.forces is None else (frame.forces**2).sum(axis=1)
    kind = result.by_config.setdefault(frame.config_type, GroupTotals())
    kind.n_frames += 1
    kind.n_atoms += len(frame)
    if squares is not None:
        kind.n_force_atoms += len(frame)
        kind.sum_force_squares += float(squares.sum())
    for z, count in composition:
        element = result.by_element.setdefault(z, GroupTotals())
        element.n_frames += 1
        element.n_atoms += count
        if squares is not None:
            element.n_force_atoms += count
            element.sum_force_squares += float(squares[frame.atomic_numbers == z].sum())


def sources(frames: Sequence[Frame], indices: Sequence[int], most: int = 20) -> list[str]:
    """Return where the first of these frames come from."""
    return [frames[int(k)].source or f"frame {int(k)}" for k in list(indices)[:most]]


def element_counts(scans: Sequence[Scan]) -> Counter[int]:
    """Return number of frames by atomic number over several sets."""
    total: Counter[int] = Counter()
    for one in scans:
        for z, totals in one.by_element.items():
            total[z] += totals.n_frames
    return total
