"""What the labels of a set say of their own units: a few ratios, each with its uncertainty.

No number alone says that it is in Å or eV. Ratios do: energy differences over the work of the
forces (1 if both are in the same units), the stiffness of atoms in their wells (some ten eV/Å² in
all of chemistry), distances between neighbours over those of bonds, and total energies over those
of atoms with all their electrons.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eqpot import units
from eqpot.data.audit.displacements import Pairs
from eqpot.data.audit.fitted import AS_READ, Fit
from eqpot.data.frames import Frame

Array = NDArray[np.float64]

_FEWEST_PAIRS: Final = 10
_FEWEST_DEGREES: Final = 12
"""Frames less groups: with fewer a correlation may be chance."""
STIFFNESS: Final = (15.0, 1.0)
"""Median and spread of the logarithm, eV/Å²: soft metals have 2, stiff molecules 60."""
STIFFNESS_ORGANIC: Final = (28.0, 0.35)
"""The same where hydrogen is bonded to elements that are no metals: half of all stiffness is then
in stretches X-H of 30 to 50 eV/Å², which no surrounding changes much."""
STIFFNESS_SOFT: Final = (1.2, 1.0)
"""The same of soft metals and noble gases: lithium has 1.4, caesium 0.5, argon 0.5."""
_SOFT: Final = (3, 11, 12, 19, 20, 37, 38, 49, 55, 56, 63, 70, 80, 81, 82, 83, 87, 88)
_ORGANIC: Final = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)
_HYDROGEN: Final = 0.2
"""Part of the atoms that must be hydrogen for that."""
_UNSURE: Final = 0.4
"""A ratio known to no better than this (of its logarithm) says nothing of units."""
_ABOUT_ONE: Final = 0.12
"""Of the logarithm: coarse grids and few pairs put the ratio of sound sets so far from 1."""
_GOOD_FIT: Final = 0.3
"""Part of the forces that a fit must explain before its energies mean anything."""
_FIT_ERROR: Final = 0.12
"""What a fit leaves out is the same in all frames, so no scatter shows it: 10 to 30 % were seen."""
_AGREE: Final = 0.9
"""Correlation of the energies of two halves of a fit from which on labels must follow them."""
_NOBLE: Final = (2, 10, 18, 36, 54, 86)


@dataclass(frozen=True)
class Ratio:
    """A measured ratio: its value, the uncertainty of its logarithm, its evidence.

    Attributes
    ----------
    value
        With sign.
    spread
        One standard deviation of the logarithm of the magnitude.
    n
        Pairs or frames behind it.
    how
        Where it comes from, for messages.
    """

    value: float
    spread: float
    n: int
    how: str

    def __str__(self) -> str:
        return f"{self.value:.4g} (uncertain by {100 * self.spread:.0f} %, {self.how}, {self.n})"


@dataclass(frozen=True)
class Evidence:
    """What a sample of a set says; an entry is None where it says nothing.

    Attributes
    ----------
    work
        Energy differences over the work of the forces.
    work_per_atom
        The same with every energy multiplied by the number of atoms.
    stiffness
        eV/Å²; negative if forces drive atoms out of their wells.
    nearest
        Median distance to the nearest neighbour over the sum of covalent radii.
    total
        Energies over those of atoms with all their electrons.
    total_per_atom
        The same with every energy multiplied by the number of atoms.
    agreement
        Correlation of energies with those of the fit, or NaN.
    n_agreement
        Degrees of freedom behind it; 0 where sound labels may have a low one.
    n_compared
        Pairs or frames whose energies were held against forces, whatever came of it.
    expected_stiffness
        Median of what such atoms have, eV/Å², and the spread of its logarithm.
    """

    work: Ratio | None
    work_per_atom: Ratio | None
    stiffness: Ratio | None
    nearest: Ratio | None
    total: Ratio | None
    total_per_atom: Ratio | None
    agreement: float
    n_agreement: int
    n_compared: int = 0
    expected_stiffness: tuple[float, float] = STIFFNESS

    @property
    def is_consistent(self) -> bool:
        """Whether energy differences are the work of the forces, within the uncertainty."""
        if self.work is None or self.work.value <= 0.0:
            return False
        return bool(abs(np.log(self.work.value)) <= max(2.0 * self.work.spread, _ABOUT_ONE))

    def as_dict(self) -> dict[str, Any]:
        """Return the ratios as plain values, for JSON."""
        names = ("work", "work_per_atom", "stiffness", "nearest", "total")
        return {
            name: None
            if (ratio := getattr(self, name)) is None
            else {"value": ratio.value, "spread": ratio.spread, "n": ratio.n, "how": ratio.how}
            for name in names
        }


def gather(frames: Sequence[Frame], pairs: Pairs, fit: Fit | None, nearest: Array) -> Evidence:
    """Return the evidence of a sample.

    Parameters
    ----------
    frames
        The sample that ``pairs`` index.
    pairs
        Neighbouring structures.
    fit
        The quick potential, if there is one.
    nearest
        Nearest distances of all frames of the set, as :class:`Scan` holds them.
    """
    sizes = np.array([len(frame) for frame in frames], dtype=np.float64)
    works = {}
    agreement, n_agreement = np.nan, 0
    n_compared = n_telling(pairs)
    for name, per_atom in (("work", False), ("work_per_atom", True)):
        found = [work_along_pairs(pairs, sizes if per_atom else np.ones(len(frames)))]
        if fit is not None and fit.explained[AS_READ] >= _GOOD_FIT:
            scale: Callable[[Frame], float] = (lambda f: float(len(f))) if per_atom else _one
            ratio, correlation, degrees = work_of_fit(fit, scale)
            found.append(ratio)
            if not per_atom:
                agreement, n_agreement = correlation, degrees
                if np.isfinite(correlation):
                    n_compared = max(n_compared, degrees)
        sure = [ratio for ratio in found if ratio is not None and ratio.spread <= _UNSURE]
        works[name] = min(sure, key=lambda ratio: ratio.spread) if sure else None
    total, total_per_atom = _totals(frames)
    return Evidence(
        work=works["work"],
        work_per_atom=works["work_per_atom"],
        stiffness=_stiffness(pairs, fit),
        nearest=_nearest(frames, nearest),
        total=total,
        total_per_atom=total_per_atom,
        agreement=agreement,
        n_agreement=n_agreement,
        n_compared=n_compared,
        expected_stiffness=_expected_stiffness(frames),
    )


def _expected_stiffness(frames: Sequence[Frame]) -> tuple[float, float]:
    several = [frame.atomic_numbers for frame in frames if len(frame) > 1]
    if not several:
        return STIFFNESS
    numbers = np.concatenate(several)
    if np.isin(numbers, _ORGANIC).all() and float((numbers == 1).mean()) >= _HYDROGEN:
        return STIFFNESS_ORGANIC
    # potassium chloride has 2.5, lithium fluoride some 6: what is half soft lies between
    soft = float(np.isin(numbers, (*_SOFT, *_NOBLE)).mean())
    (hard_median, spread), (soft_median, _) = STIFFNESS, STIFFNESS_SOFT
    return hard_median ** (1.0 - soft) * soft_median**soft, spread


def _one(frame: Frame) -> float:
    return 1.0


def work_along_pairs(pairs: Pairs, scale: Array) -> Ratio | None:
    """Return energy differences over work, the weighted median over pairs of equal cells.

    The third-order error of a pair is unknown, but it grows with the change of the forces along
    the way, so the weight of a pair falls with that. Quartiles of the ratios give the uncertainty.
    """
    energy = pairs.energy * scale[pairs.first]
    used = _still(pairs) & np.isfinite(energy) & (np.abs(pairs.work) > 1e-7)
    if used.sum() < _FEWEST_PAIRS:
        return None
    work, curvature = np.abs(pairs.work[used]), np.abs(pairs.curvature[used])
    ratio = energy[used] / pairs.work[used]
    weight = work / (work + curvature)
    low, middle, high = _weighted_quantiles(ratio, weight, (0.25, 0.5, 0.75))
    if middle == 0.0:
        return None
    spread = (high - low) / (2.0 * abs(middle)) + 1.0 / np.sqrt(used.sum()) * 0.1
    return Ratio(float(middle), float(max(spread, 0.01)), int(used.sum()), "neighbouring frames")


def n_telling(pairs: Pairs) -> int:
    """Return how many pairs tell energies from work; 0 where they are too few."""
    n_pairs = int((_still(pairs) & np.isfinite(pairs.energy) & (np.abs(pairs.work) > 1e-7)).sum())
    return n_pairs if n_pairs >= _FEWEST_PAIRS else 0


def _still(pairs: Pairs) -> NDArray[np.bool_]:
    """Return which pairs have one cell, but for its rounding in a file."""
    return np.asarray(np.abs(pairs.strain).max(axis=(1, 2), initial=0.0) < 1e-6)


def scattered(pairs: Pairs) -> bool:
    """Return whether energy differences of neighbouring frames ignore the work, or are too few.

    Quartiles of their ratio then have different signs and stand far from its median.
    """
    used = _still(pairs) & np.isfinite(pairs.energy) & (np.abs(pairs.work) > 1e-7)
    if used.sum() < _FEWEST_PAIRS:
        return True
    work, curvature = np.abs(pairs.work[used]), np.abs(pairs.curvature[used])
    low, middle, high = _weighted_quantiles(
        pairs.energy[used] / pairs.work[used], work / (work + curvature), (0.25, 0.5, 0.75)
    )
    return low < 0.0 < high and abs(middle) < 0.5 * (high - low)


def _weighted_quantiles(values: Array, weights: Array, at: Sequence[float]) -> list[float]:
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    places = np.minimum(np.searchsorted(reached, np.asarray(at)), len(order) - 1)
    return [float(value) for value in values[order][places]]


def work_of_fit(fit: Fit, scale: Callable[[Frame], float]) -> tuple[Ratio | None, float, int]:
    """Return energies over those predicted from forces, their correlation and its degrees.

    Compared are deviations from the mean of each group of frames with the same atoms (in the same
    order) and cell:
    a fit of forces knows neither constants nor, without strain, the work of a pressure. Where no
    such groups are, frames of equal composition are compared, and at last all.
    """
    labelled = [k for k, frame in enumerate(fit.frames) if frame.energy is not None]
    for kind in ("cell", "composition"):
        groups: dict[object, list[int]] = {}
        for k in labelled:
            frame = fit.frames[k]
            cell = b""
            if kind == "cell" and frame.pbc.any():
                cell = np.round(frame.cell, 4).tobytes()
            numbers = frame.atomic_numbers
            # on one lattice, which atom sits where matters as much as how many there are
            atoms = (numbers if kind == "cell" else np.sort(numbers)).tobytes()
            groups.setdefault((atoms, cell, int(fit.half[k])), []).append(k)
        used = [group for group in groups.values() if len(group) > 1]
        degrees = sum(len(group) - 1 for group in used)
        if degrees < _FEWEST_DEGREES:
            continue
        labels, foretold, again = [], [], []
        for group in used:
            energies = np.array(
                [scale(fit.frames[k]) * (fit.frames[k].energy or 0.0) for k in group]
            )
            labels.append(energies - energies.mean())
            foretold.append(fit.energy[group] - fit.energy[group].mean())
            again.append(fit.energy_again[group] - fit.energy_again[group].mean())
        ratio, correlation = _slope(np.concatenate(labels), np.concatenate(foretold), degrees)
        # between isomers, or cells under pressure, sound labels may have a low correlation; and
        # where the halves of the fit disagree, forces do not say what the energies should be
        both = np.corrcoef(np.concatenate(foretold), np.concatenate(again))[0, 1]
        telling = kind == "cell" and both > _AGREE
        return ratio, correlation, degrees if telling else 0
    return None, np.nan, 0


def _slope(labels: Array, foretold: Array, degrees: int) -> tuple[Ratio | None, float]:
    """Return the ratio of sizes with the sign of the correlation.

    Errors of the fit lower one regression line and raise the other by the correlation; the ratio
    of sizes lies between them, and the logarithm of the correlation is what it may be off.
    """
    size = float(np.sqrt((labels @ labels) * (foretold @ foretold)))
    if size == 0.0:
        return None, np.nan
    correlation = float(labels @ foretold) / size
    if abs(correlation) < 3.5 / np.sqrt(degrees):
        return None, correlation
    value = np.sign(correlation) * np.sqrt((labels @ labels) / (foretold @ foretold))
    spread = -np.log(min(abs(correlation), 1.0)) + _FIT_ERROR + 0.3 / np.sqrt(degrees)
    return Ratio(float(value), float(spread), degrees, "a potential fitted to forces"), correlation


def _stiffness(pairs: Pairs, fit: Fit | None) -> Ratio | None:
    """Return the curvature per degree of freedom, from the fit or from neighbouring frames.

    Of neighbours, ``⟨ΔF²⟩ / ⟨-ΔF·Δr⟩`` is the mean of all curvatures if they move as heat moves
    them.
    """
    if fit is not None and fit.explained[AS_READ] >= _GOOD_FIT and len(fit.frames) >= 10:
        # what a fit does not explain is missing in its curvature
        spread = 0.3 - float(np.log(fit.explained[AS_READ]))
        return Ratio(fit.stiffness, spread, len(fit.frames), "a potential fitted to forces")
    close = (pairs.shift > 0.0) & (pairs.change > 0.0)
    if close.sum() >= 30:
        along = pairs.curvature[close] / np.sqrt(pairs.change[close] * pairs.shift[close])
        middle = float(np.median(along))
        # random forces give zero within 1/√n of the degrees of freedom, which are many
        if abs(middle) > 0.1:
            value = np.median(pairs.change[close]) / np.median(pairs.curvature[close])
            return Ratio(float(value), 0.7, int(close.sum()), "neighbouring frames")
    return None


def _nearest(frames: Sequence[Frame], nearest: Array) -> Ratio | None:
    elements = {z for frame in frames for z in frame.atomic_numbers.tolist()}
    known = nearest[np.isfinite(nearest)]
    if len(known) < 4 or elements <= set(_NOBLE):
        return None
    return Ratio(float(np.median(known)), 0.0, len(known), "distances of neighbours")


def all_electron_energy(numbers: NDArray[np.int64]) -> float:
    """Return the energy of neutral atoms with all electrons, eV, good to 2 % from carbon on.

    ``-0.768745 Z^(7/3) + Z²/2 - 0.269900 Z^(5/3)`` Hartree: Thomas and Fermi, Scott, Schwinger.

    References
    ----------
    Schwinger, Phys. Rev. A 24, 2353 (1981), eq. (1).

    Examples
    --------
    >>> round(all_electron_energy(np.array([6])) / units.HARTREE, 1)  # Hartree-Fock: -37.7
    -37.7
    """
    z = np.asarray(numbers, dtype=np.float64)
    hartree = -0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.269900 * z ** (5 / 3)
    return float(hartree.sum()) * units.HARTREE


def _totals(frames: Sequence[Frame]) -> tuple[Ratio | None, Ratio | None]:
    labelled = [f for f in frames if f.energy is not None and len(f) > 1]
    if len(labelled) < 4:
        return None, None
    found = []
    for per_atom in (False, True):
        ratios = np.array(
            [
                (f.energy or 0.0)
                * (len(f) if per_atom else 1)
                / all_electron_energy(f.atomic_numbers)
                for f in labelled
            ]
        )
        low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9)).tolist()
        # totals of all electrons have this ratio in every frame; others vary with the elements
        found.append(
            Ratio(middle, 0.02, len(labelled), "total energies")
            if middle > 0.0 and high - low < 0.05 * middle
            else None
        )
    return found[0], found[1]
