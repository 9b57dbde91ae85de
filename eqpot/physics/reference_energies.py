"""Reference energies E0: the energy of each element's isolated atom, taken off before learning."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eqpot.data.frames import Frame
from eqpot.elements import SYMBOLS

RECIPE: Final = "recipe"
ISOLATED_ATOM: Final = "isolated atom"
LEAST_SQUARES: Final = "least squares"

_AGREE: Final = 1e-6
"""Two energies of one isolated atom may differ by this, in eV."""
_RANK: Final = 1e-8
"""Directions of composition whose singular value is below this part of the largest are not fitted:
frames do not vary along them."""


@dataclass(frozen=True)
class ReferenceEnergies:
    """E0 by element, and how each was obtained; ``str()`` gives a table.

    Attributes
    ----------
    energies
        E0 by atomic number, eV, ascending in Z.
    origins
        ``"recipe"``, ``"isolated atom"`` or ``"least squares"``, by atomic number.
    undetermined
        Groups of elements whose E0 the fit cannot tell apart, as the frames hold them in
        proportions that do not vary enough. Only sums over such frames mean something.
    """

    energies: dict[int, float]
    origins: dict[int, str]
    undetermined: tuple[tuple[int, ...], ...] = ()

    def __str__(self) -> str:
        lines = [
            f"E0({SYMBOLS[z]}) = {energy:.6f} eV from {self.origins[z]}"
            for z, energy in self.energies.items()
        ]
        for group in self.undetermined:
            names = ", ".join(SYMBOLS[z] for z in group)
            lines.append(
                f"the frames cannot tell apart E0 of {names}: the fit shares their energy equally "
                "where it must; give isolated atoms or E0 to separate them"
            )
        return "\n".join(lines)


def reference_energies(
    frames: Iterable[Frame], given: Mapping[str, float] | None = None
) -> ReferenceEnergies:
    """Return E0 of each element of the frames.

    In order of preference: what the recipe gives; the energies of isolated atoms among the
    frames; for the elements left, a least-squares fit of the energies per atom by composition,

    ``min over E0 of Σ_f (E_f / n_f - Σ_Z c_fZ E0_Z / n_f)²``,

    c_fZ being the number of atoms Z in frame f of n_f atoms. The fit is of differences from the
    mean energy per atom, so nothing is lost to the size of total energies, and has the smallest
    norm among equal ones: frames of a single composition share their energy equally by atom.

    Parameters
    ----------
    frames
        Frames that train; read once, one at a time.
    given
        E0 in eV by chemical symbol, from the recipe.

    Returns
    -------
    ReferenceEnergies
        E0 of every element of the frames, and of all that were given.

    Raises
    ------
    ValueError
        If a symbol or number given is not sound, two isolated atoms of an element differ in
        energy, or an element has no E0 (message with the source of a frame that holds it).

    Examples
    --------
    >>> hydrogen = Frame(np.array([1]), np.zeros((1, 3)), energy=-13.6)
    >>> print(reference_energies([hydrogen]))
    E0(H) = -13.600000 eV from isolated atom
    """
    known = {_atomic_number(symbol): _finite(symbol, e) for symbol, e in (given or {}).items()}
    origins = dict.fromkeys(known, RECIPE)
    isolated: dict[int, tuple[float, str]] = {}
    first_source: dict[int, str] = {}
    compositions: dict[tuple[tuple[int, int], ...], _Mean] = {}
    for frame in frames:
        numbers, counts = np.unique(frame.atomic_numbers, return_counts=True)
        for z in numbers.tolist():
            first_source.setdefault(z, frame.source)
        if frame.energy is None:
            continue
        if frame.is_isolated_atom:
            _add_isolated(isolated, int(numbers[0]), frame, set(known))
            continue
        composition = tuple(zip(numbers.tolist(), counts.tolist(), strict=True))
        compositions.setdefault(composition, _Mean(frame.energy)).add(frame.energy)
    for z, (energy, _) in isolated.items():
        if z not in known:
            known[z] = energy
            origins[z] = ISOLATED_ATOM
    unknown = sorted(first_source.keys() - known.keys())
    undetermined: tuple[tuple[int, ...], ...] = ()
    if unknown:
        fitted = {z for composition in compositions for z, _ in composition}
        for z in unknown:
            if z not in fitted:
                raise ValueError(
                    f"element {SYMBOLS[z]} has no reference energy: no frame that holds it has an "
                    f"energy (first seen in {first_source[z] or 'a frame without source'}); give "
                    f"E0 of {SYMBOLS[z]} or a frame of its isolated atom"
                )
        values, undetermined = _fit(compositions, known, unknown)
        known |= values
        origins |= dict.fromkeys(values, LEAST_SQUARES)
    ordered = sorted(known)
    return ReferenceEnergies(
        {z: known[z] for z in ordered}, {z: origins[z] for z in ordered}, undetermined
    )


class _Mean:
    """Mean of many large numbers that differ little: sums differences from the first."""

    def __init__(self, first: float) -> None:
        self.first = first
        self.count = 0
        self.sum_of_differences = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.sum_of_differences += value - self.first

    def value(self) -> float:
        return self.first + self.sum_of_differences / self.count


def _add_isolated(
    isolated: dict[int, tuple[float, str]], z: int, frame: Frame, given: set[int]
) -> None:
    assert frame.energy is not None
    if z in isolated and z not in given and abs(isolated[z][0] - frame.energy) > _AGREE:
        raise ValueError(
            f"isolated atoms of {SYMBOLS[z]} have different energies: {isolated[z][0]} eV "
            f"({isolated[z][1]}) and {frame.energy} eV ({frame.source}); remove one or give E0 of "
            f"{SYMBOLS[z]}"
        )
    isolated.setdefault(z, (frame.energy, frame.source))


def _fit(
    compositions: Mapping[tuple[tuple[int, int], ...], _Mean],
    known: Mapping[int, float],
    unknown: list[int],
) -> tuple[dict[int, float], tuple[tuple[int, ...], ...]]:
    """Return least-squares E0 of unknown elements, and the groups it cannot tell apart.

    Frames of one composition enter as their mean, weighted by their number: the same minimum.
    """
    column = {z: k for k, z in enumerate(unknown)}
    rows, targets, weights = [], [], []
    for composition, mean in compositions.items():
        n_atoms = sum(count for _, count in composition)
        row = np.zeros(len(unknown))
        # exact sums: with E0 known of some elements, the rest is a small difference
        terms = [mean.value()]
        for z, count in composition:
            if z in column:
                row[column[z]] = count / n_atoms
            else:
                terms.append(-known[z] * count)
        if row.any():
            rows.append(row)
            targets.append(math.fsum(terms) / n_atoms)
            weights.append(math.sqrt(mean.count))
    matrix = np.array(rows)
    target = np.array(targets)
    weight = np.array(weights)
    share = matrix.sum(axis=1)
    # a common energy per atom first, then what differs from it
    common = float(np.average(target / share, weights=weight**2))
    u, s, vt = np.linalg.svd(matrix * weight[:, None], full_matrices=True)
    rank = int((s > _RANK * s[0]).sum())
    right = (target - common * share) * weight
    difference = vt[:rank].T @ ((u[:, :rank].T @ right) / s[:rank])
    values = {z: common + float(difference[k]) for z, k in column.items()}
    return values, _groups(vt[rank:], unknown)


def _groups(null_space: NDArray[np.float64], elements: list[int]) -> tuple[tuple[int, ...], ...]:
    """Return groups of elements among which energy can be moved without changing any frame."""
    projector = np.abs(null_space.T @ null_space)
    left = [k for k in range(len(elements)) if projector[k, k] > 1e-6]
    groups = []
    while left:
        group, border = set(), [left[0]]
        while border:
            k = border.pop()
            group.add(k)
            border += [m for m in left if m not in group and projector[k, m] > 1e-6]
        groups.append(tuple(elements[k] for k in sorted(group)))
        left = [k for k in left if k not in group]
    return tuple(groups)


def _atomic_number(symbol: str) -> int:
    if symbol in SYMBOLS[1:]:
        return SYMBOLS.index(symbol)
    near = get_close_matches(symbol.capitalize(), SYMBOLS[1:], n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ValueError(f"`{symbol}` in the reference energies is no chemical symbol{hint}")


def _finite(symbol: str, energy: float) -> float:
    if not math.isfinite(energy):
        raise ValueError(f"reference energy of `{symbol}` must be finite, got {energy}")
    return float(energy)
