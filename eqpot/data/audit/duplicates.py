"""Structures that are there more than once, however they are turned, moved or numbered.

Each frame has four numbers that rotation, translation, reflection and renumbering leave as they
are. Frames that agree in them are compared in the sorted distances around every atom, which
decides. Mirror images count as the same: no label that is trained on tells them apart.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from eqpot.data.audit.findings import Finding, named
from eqpot.data.audit.scan import Scan
from eqpot.data.frames import Frame
from eqpot.data.neighbors import neighbor_list

Array = NDArray[np.float64]

SAME_DISTANCE: Final = 2e-4
"""Å: distances closer than this are the same, as files round."""
_SAME_INVARIANT: Final = 2e-5
_NEXT: Final = 4
"""How many frames on in the sorted list are compared: rounding may change places."""
_MOST_COMPARED: Final = 20_000
_CUTOFF: Final = 6.0
_ALL_DISTANCES: Final = 300
_SAME_ENERGY: Final = 2e-3
"""eV, and a twentieth of this per atom: below, two energies are the same calculation."""
_SAME_FORCE: Final = 0.02
"""eV/Å, or a hundredth of the largest force."""


def check_duplicates(
    sets: Mapping[str, Sequence[Frame]], scans: Mapping[str, Scan]
) -> list[Finding]:
    """Return duplicates within sets, overlap between them, and structures with two labels."""
    names = list(sets)
    which = np.concatenate([np.full(scans[n].n_frames, k) for k, n in enumerate(names)])
    index = np.concatenate([np.arange(scans[n].n_frames) for n in names])
    pairs, complete = _same_structures(sets, scans, names, which, index)
    groups = _group(pairs, len(which))
    findings = []
    findings += _within(sets, names, which, index, groups)
    findings += _between(sets, names, which, index, groups)
    findings += _two_labels(sets, names, which, index, groups)
    if not complete:
        findings.append(
            Finding(
                "note",
                "duplicates",
                "duplicates.sampled",
                f"more than {_MOST_COMPARED} pairs of frames may be the same structure; only so "
                "many were compared, so the true number of duplicates is larger",
                "",
                tuple(names),
            )
        )
    return findings


def _same_structures(
    sets: Mapping[str, Sequence[Frame]],
    scans: Mapping[str, Scan],
    names: Sequence[str],
    which: NDArray[np.int64],
    index: NDArray[np.int64],
) -> tuple[list[tuple[int, int]], bool]:
    invariants = np.concatenate([scans[name].invariants for name in names])
    isolated = np.concatenate([scans[name].isolated for name in names])
    known: dict[tuple[tuple[int, int], ...], int] = {}
    composition = np.concatenate(
        [
            np.array([known.setdefault(c, len(known)) for c in scans[name].compositions], int)[
                scans[name].composition
            ]
            for name in names
        ]
    )
    order = np.lexsort((invariants[:, 0], composition))
    order = order[~isolated[order]]
    pairs: list[tuple[int, int]] = []
    n_compared = 0
    last: tuple[int, Frame] | None = None
    for step in range(1, _NEXT + 1):
        one, two = order[:-step], order[step:]
        near = composition[one] == composition[two]
        tolerance = _SAME_INVARIANT * np.abs(invariants[one]) + 1e-9
        near &= (np.abs(invariants[one] - invariants[two]) <= tolerance).all(axis=1)
        for a, b in zip(one[near].tolist(), two[near].tolist(), strict=True):
            if n_compared >= _MOST_COMPARED:
                return pairs, False
            n_compared += 1
            if last is None or last[0] != a:
                last = (a, sets[names[which[a]]][int(index[a])])
            other = sets[names[which[b]]][int(index[b])]
            if same_structure(last[1], other):
                pairs.append((a, b))
    return pairs, True


def same_structure(one: Frame, two: Frame) -> bool:
    """Return whether two frames are one structure but for rotation, reflection, shift and order.

    Atoms are matched by element and by the sorted distances to the atoms of each element around
    them: all of them without periodicity, those within 6 Å with it.
    """
    if len(one) != len(two) or (one.pbc != two.pbc).any():
        return False
    if (np.sort(one.atomic_numbers) != np.sort(two.atomic_numbers)).any():
        return False
    all_distances = not one.pbc.any() and len(one) <= _ALL_DISTANCES
    around_one, around_two = (_surroundings(frame, all_distances) for frame in (one, two))
    for z in np.unique(one.atomic_numbers).tolist():
        rows_one = _padded(around_one[z], around_two[z])
        rows_two = _padded(around_two[z], around_one[z])
        if rows_one.shape[1] == 0:
            continue
        apart = cdist(rows_one, rows_two, metric="chebyshev") <= SAME_DISTANCE
        if not (apart.any(axis=0).all() and apart.any(axis=1).all()):
            return False
    return True


def _surroundings(frame: Frame, all_distances: bool) -> dict[int, list[list[Array]]]:
    """Return by element, atom and neighbouring element the sorted distances."""
    numbers = frame.atomic_numbers
    elements = np.unique(numbers).tolist()
    if all_distances:
        full = cdist(frame.positions, frame.positions)
        np.fill_diagonal(full, np.inf)
        i, j = np.nonzero(np.isfinite(full))
        r = full[i, j]
    else:
        (i, j), shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, _CUTOFF)
        cell = np.where(frame.pbc[:, None], frame.cell, 0.0)
        r = np.linalg.norm(frame.positions[j] - frame.positions[i] + shifts @ cell, axis=1)
    order = np.lexsort((r, numbers[j], i))
    i, kind, r = i[order], numbers[j][order], r[order]
    found: dict[int, list[list[Array]]] = {z: [] for z in elements}
    starts = np.searchsorted(i, np.arange(len(numbers) + 1))
    for atom, z in enumerate(numbers.tolist()):
        part = slice(starts[atom], starts[atom + 1])
        found[z].append([r[part][kind[part] == other] for other in elements])
    return found


def _padded(rows: list[list[Array]], others: list[list[Array]]) -> Array:
    """Return rows of equal length: what lies beyond the cutoff is put at the cutoff."""
    widths = [
        max((len(row[k]) for row in (*rows, *others)), default=0) for k in range(len(rows[0]))
    ]
    padded = np.full((len(rows), sum(widths)), _CUTOFF)
    for n, row in enumerate(rows):
        start = 0
        for width, distances in zip(widths, row, strict=True):
            padded[n, start : start + len(distances)] = distances
            start += width
    return padded


def _group(pairs: Sequence[tuple[int, int]], n: int) -> list[list[int]]:
    parent: dict[int, int] = {}

    def root(k: int) -> int:
        while parent.get(k, k) != k:
            k = parent[k]
        return k

    for a, b in pairs:
        parent[root(max(a, b))] = root(min(a, b))
    groups: dict[int, list[int]] = {}
    for k in sorted({k for pair in pairs for k in pair}):
        groups.setdefault(root(k), []).append(k)
    return list(groups.values())


def _source(
    sets: Mapping[str, Sequence[Frame]],
    names: Sequence[str],
    which: NDArray[np.int64],
    index: NDArray[np.int64],
    k: int,
) -> str:
    name = names[which[k]]
    return sets[name][int(index[k])].source or f"{name}, frame {index[k]}"


def _within(
    sets: Mapping[str, Sequence[Frame]],
    names: Sequence[str],
    which: NDArray[np.int64],
    index: NDArray[np.int64],
    groups: Sequence[Sequence[int]],
) -> list[Finding]:
    findings = []
    for number, name in enumerate(names):
        again = [
            member for group in groups for member in [k for k in group if which[k] == number][1:]
        ]
        if again:
            findings.append(
                Finding(
                    "warning",
                    "duplicates",
                    "duplicates",
                    f"{name}: {len(again)} frames repeat a structure of the set (turned, moved or "
                    "renumbered copies count)",
                    "remove them: they add weight, no information, and a random split puts copies "
                    "on both sides",
                    (name,),
                    len(again),
                    named([_source(sets, names, which, index, k) for k in again[:20]]),
                )
            )
    return findings


def _between(
    sets: Mapping[str, Sequence[Frame]],
    names: Sequence[str],
    which: NDArray[np.int64],
    index: NDArray[np.int64],
    groups: Sequence[Sequence[int]],
) -> list[Finding]:
    findings = []
    for later in range(len(names)):
        for earlier in range(later):
            shared = [
                k
                for group in groups
                if any(which[m] == earlier for m in group)
                for k in group
                if which[k] == later
            ]
            if shared:
                # two test sets may share frames, and so may two files to train on; what was
                # trained on, or chosen by, must not be tested on
                same_role = role(names[earlier]) == role(names[later])
                findings.append(
                    Finding(
                        "warning" if same_role else "error",
                        "overlap",
                        "overlap",
                        f"{len(shared)} frames of {names[later]} are structures of "
                        f"{names[earlier]} too (turned, moved or renumbered copies count)",
                        "remove them from one of the two: errors on frames that were trained on "
                        "say nothing",
                        (names[earlier], names[later]),
                        len(shared),
                        named([_source(sets, names, which, index, k) for k in shared[:20]]),
                    )
                )
    return findings


def role(name: str) -> str:
    """Return what a set is for by the beginning of its name: train, validation or else test."""
    return next((r for r in ("train", "validation") if name.startswith(r)), "test")


def _two_labels(
    sets: Mapping[str, Sequence[Frame]],
    names: Sequence[str],
    which: NDArray[np.int64],
    index: NDArray[np.int64],
    groups: Sequence[Sequence[int]],
) -> list[Finding]:
    differing = []
    largest = 0.0
    example = ""
    for group in groups:
        first = sets[names[which[group[0]]]][int(index[group[0]])]
        for k in group[1:]:
            other = sets[names[which[k]]][int(index[k])]
            what = label_difference(first, other)
            if what is not None:
                differing.append(k)
                if not example or what[0] > largest:
                    largest, example = what
    if not differing:
        return []
    concerned = tuple(names[k] for k in sorted({int(which[k]) for k in differing}))
    return [
        Finding(
            "warning",
            "labels",
            "labels.contradict",
            f"{len(differing)} frames are structures that have other labels elsewhere in the "
            f"data: {example}",
            "find out which calculation is right (another charge, spin, functional or k-mesh, or "
            "one that did not converge?) and keep that; a model can learn one energy for one "
            "structure",
            concerned,
            len(differing),
            named([_source(sets, names, which, index, k) for k in differing[:20]]),
        )
    ]


def label_difference(one: Frame, two: Frame) -> tuple[float, str] | None:
    """Return how far the labels of one structure differ and in words, or None where they agree."""
    n_atoms = len(one)
    if one.energy is not None and two.energy is not None:
        apart = abs(one.energy - two.energy)
        if apart > _SAME_ENERGY * (1.0 + 0.05 * n_atoms):
            return apart, f"energies differ by up to {apart:.4g} eV"
    if one.forces is not None and two.forces is not None:
        sizes = [np.sort(np.linalg.norm(f, axis=1)) for f in (one.forces, two.forces)]
        apart = float(np.abs(sizes[0] - sizes[1]).max())
        if apart > max(_SAME_FORCE, 0.01 * float(sizes[0].max())):
            return apart, f"forces differ by up to {apart:.4g} eV/Å"
    if one.stress is not None and two.stress is not None:
        eigenvalues = [np.linalg.eigvalsh(0.5 * (s + s.T)) for s in (one.stress, two.stress)]
        apart = float(np.abs(eigenvalues[0] - eigenvalues[1]).max())
        if apart > max(1e-3, 0.02 * float(np.abs(eigenvalues[0]).max())):
            return apart, f"stresses differ by up to {apart:.4g} eV/Å³"
    return None
