"""Work along small displacements: energy differences that forces and stresses foretell.

Between two structures close to each other the trapezoidal rule gives

``E_2 - E_1 = -½ Σ_i (F_1i + F_2i) · Δr_i + ½ (V_1 σ_1 + V_2 σ_2) : ε``,

exact for a quadratic surface, wrong only by the third power of the displacement. No model, no fit:
what is compared are the labels alone. Frames of one molecule are laid over each other first
(Kabsch 1976); frames of one crystal are compared in fractional coordinates, where a change of
the cell is the strain ε.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eqpot.data.frames import Frame

Array = NDArray[np.float64]

_NEAREST: Final = 4
"""Pairs taken for each frame: its nearest ones."""
_LARGEST_STRAIN: Final = 0.12
_LARGEST_SHIFT: Final = 0.5
"""Å, root mean square over atoms: farther apart no parabola joins two structures."""
_MOST_IN_GROUP: Final = 200


@dataclass(frozen=True)
class Pairs:
    """Pairs of neighbouring structures; every array has one entry a pair.

    Attributes
    ----------
    first, second
        Indices of the frames.
    energy
        Difference of the energy labels, eV; NaN without.
    work
        What the forces foretell, eV.
    curvature
        ``-Σ (F_2 - F_1) · Δr``, eV: positive on average around minima.
    change
        ``Σ |F_2 - F_1|²``, (eV/Å)².
    shift
        ``Σ |Δr|²``, Å².
    strain
        ε, shape (n_pairs, 3, 3).
    mean_virial
        ½ (V_1 σ_1 + V_2 σ_2), eV, shape (n_pairs, 3, 3); NaN without stress labels.
    volume
        Mean volume, Å³; NaN without periodicity.
    n_atoms
        Atoms of either frame.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    energy: Array
    work: Array
    curvature: Array
    change: Array
    shift: Array
    strain: Array
    mean_virial: Array
    volume: Array
    n_atoms: Array


def pair_up(frames: Sequence[Frame]) -> Pairs:
    """Return the pairs of frames with equal atoms in equal order that lie close to each other.

    Parameters
    ----------
    frames
        Frames with forces.
    """
    groups: dict[tuple[bytes, bytes], list[int]] = {}
    for index, frame in enumerate(frames):
        if len(frame) > 1 and frame.forces is not None and frame.pbc.all() == frame.pbc.any():
            key = (frame.atomic_numbers.tobytes(), frame.pbc.tobytes())
            groups.setdefault(key, []).append(index)
    rows: list[tuple[object, ...]] = []
    for members in groups.values():
        chosen = members[:_MOST_IN_GROUP]
        if len(chosen) < 2:
            continue
        group = [frames[k] for k in chosen]
        for a, b in _nearest(group):
            row = (
                _crystal_pair(group[a], group[b])
                if group[a].pbc.any()
                else _molecule_pair(group[a], group[b])
            )
            if row is not None:
                rows.append((chosen[a], chosen[b], *row))
    if not rows:
        empty = np.zeros(0)
        none = np.zeros(0, dtype=np.int64)
        flat = np.zeros((0, 3, 3))
        return Pairs(none, none, empty, empty, empty, empty, empty, flat, flat, empty, empty)
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Pairs(*columns)


def _nearest(group: Sequence[Frame]) -> list[tuple[int, int]]:
    """Return pairs of the nearest frames, by interatomic distances or fractional coordinates."""
    n = len(group)
    found = set()
    periodic = bool(group[0].pbc.any())
    if periodic:
        inverse = [np.linalg.inv(f.cell) for f in group]
        fractional = np.array([f.positions @ g for f, g in zip(group, inverse, strict=True)])
    else:
        n_atoms = len(group[0])
        i, j = np.triu_indices(n_atoms, 1)
        if len(i) > 600:
            picked = np.random.default_rng(0).choice(len(i), 600, replace=False)
            i, j = i[picked], j[picked]
        features = np.array(
            [np.linalg.norm(f.positions[i] - f.positions[j], axis=1) for f in group]
        )
    for k in range(n):
        if periodic:
            delta = fractional - fractional[k]
            delta -= np.round(delta)
            # a common shift of all atoms is none; its wrapped mean is near enough here
            delta -= delta.mean(axis=1, keepdims=True)
            distance = ((delta @ group[k].cell) ** 2).sum(axis=(1, 2)) / len(group[k])
            distance = distance + np.array(
                [np.abs(inverse[k] @ f.cell - np.eye(3)).max() ** 2 * 25.0 for f in group]
            )
        else:
            distance = ((features - features[k]) ** 2).mean(axis=1)
        distance[k] = np.inf
        for other in np.argsort(distance)[:_NEAREST].tolist():
            found.add((min(k, other), max(k, other)))
    return sorted(found)


def _molecule_pair(one: Frame, two: Frame) -> tuple[object, ...] | None:
    a = one.positions - one.positions.mean(axis=0)
    b = two.positions - two.positions.mean(axis=0)
    u, _, vt = np.linalg.svd(b.T @ a)
    turn = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt)) or 1.0]) @ vt
    delta = b @ turn - a
    assert one.forces is not None and two.forces is not None
    return _row(one, two, delta, one.forces, two.forces @ turn, np.zeros((3, 3)), turn)


def _crystal_pair(one: Frame, two: Frame) -> tuple[object, ...] | None:
    # cell_2 = cell_1 · S · R: a symmetric stretch, then a rotation, which is taken back
    w, stretches, vt = np.linalg.svd(np.linalg.solve(one.cell, two.cell))
    turn = w @ vt
    if np.linalg.det(turn) < 0.0 or np.abs(stretches - 1.0).max() > _LARGEST_STRAIN:
        return None
    back = turn.T
    cell = two.cell @ back
    mean_cell = 0.5 * (one.cell + cell)
    strain = np.linalg.solve(mean_cell, cell - one.cell)
    delta = two.positions @ np.linalg.inv(two.cell) - one.positions @ np.linalg.inv(one.cell)
    delta -= np.round(delta)
    delta = delta @ mean_cell
    delta -= delta.mean(axis=0)
    assert one.forces is not None and two.forces is not None
    turned = two.forces @ back
    return _row(one, two, delta, one.forces, turned, 0.5 * (strain + strain.T), back)


def _row(
    one: Frame,
    two: Frame,
    delta: Array,
    forces_one: Array,
    forces_two: Array,
    strain: Array,
    turn: Array,
) -> tuple[object, ...] | None:
    if (delta**2).sum() > _LARGEST_SHIFT**2 * len(one):
        return None
    energy = np.nan
    if one.energy is not None and two.energy is not None:
        energy = two.energy - one.energy
    volumes = [abs(np.linalg.det(frame.cell)) for frame in (one, two)]
    virial = np.full((3, 3), np.nan)
    if one.stress is not None and two.stress is not None:
        turned = turn.T @ two.stress @ turn
        virial = 0.5 * (volumes[0] * one.stress + volumes[1] * turned)
    change = forces_two - forces_one
    return (
        energy,
        -0.5 * float(((forces_one + forces_two) * delta).sum()),
        -float((change * delta).sum()),
        float((change**2).sum()),
        float((delta**2).sum()),
        strain,
        virial,
        0.5 * sum(volumes) if one.pbc.all() else np.nan,
        float(len(one)),
    )
