"""Stress labels: unit, sign, the order of six numbers, and virials in their place.

Two witnesses: the fitted potential, whose stress is compared entry by entry, and pairs of frames
with different cells, where ``½ (V_1 σ_1 + V_2 σ_2) : ε`` must make up for what the work of the
forces leaves of the energy difference. Every usual way of writing a stress is a hypothesis, as for
the other units (:mod:`eqpot.data.audit.readings`).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eqpot import units
from eqpot.data.audit.displacements import Pairs
from eqpot.data.audit.fitted import AS_READ, Fit
from eqpot.data.audit.readings import Reading
from eqpot.data.frames import Frame

Array = NDArray[np.float64]

STRESS_UNITS: Final[dict[str, float]] = {
    "ev_per_angstrom3": 1.0,
    "gpa": units.GPA,
    "kbar": 0.1 * units.GPA,
    "mpa": 1e-3 * units.GPA,
    "bar": 1e-4 * units.GPA,
    "hartree_per_bohr3": units.HARTREE / units.BOHR**3,
    "rydberg_per_bohr3": 0.5 * units.HARTREE / units.BOHR**3,
    "kcal_per_mol_per_angstrom3": units.KCAL_PER_MOL,
}
"""Units of stress by name, in eV/Å³."""
VIRIAL: Final = "virial"

SHEARS: Final[dict[str, tuple[int, int, int]]] = {
    "yz xz xy": (0, 1, 2),
    "xy yz xz": (1, 2, 0),
    "xy xz yz": (2, 1, 0),
    "yz xy xz": (0, 2, 1),
    "xz xy yz": (2, 0, 1),
    "xz yz xy": (1, 0, 2),
}
"""Orders in which files write the three shears; the numbers read as yz, xz, xy are then wrong. The
entries say which of the three numbers read is the true yz, xz, xy."""

_AS_READ: Final = ("ev_per_angstrom3", 1, (0, 1, 2))
_WITHIN: Final = 3.0
_CLOSE: Final = 1.5
_MANY: Final = 30
_ENTRIES: Final = ((1, 2), (0, 2), (0, 1))
_FEWEST: Final = 12
_GOOD_FIT: Final = 0.3
_TAIL: Final = math.log(0.02 / 6.0)
_UNIT_COST: Final = 3.0
_SIGN_COST: Final = 3.0
_ORDER_COST: Final = 3.0


@dataclass(frozen=True)
class StressVerdict:
    """The best way to read the stress labels.

    Attributes
    ----------
    unit
        Of :data:`STRESS_UNITS`, or ``"virial"``.
    sign
        -1 where the labels have the wrong sign.
    order
        Of :data:`SHEARS`.
    odds
        Logarithm of the odds of the labels under this reading.
    advantage
        How much better this is than the labels as read, in e-foldings of odds.
    is_certain
        Whether nothing speaks against it.
    correlation
        Of the shears with those of the fit, as read; NaN without.
    scale
        Labels over what they should be, as read, by witness.
    """

    unit: str
    sign: int
    order: str
    odds: float
    advantage: float
    is_certain: bool
    correlation: float
    scale: dict[str, float]

    def causes(self) -> list[str]:
        """Return what is wrong, for machines."""
        found = []
        if self.unit == VIRIAL:
            # a virial is -V·stress: only the sign that is not so is wrong
            found.append("stress.virial")
            if self.sign > 0:
                return ["stress.times_volume"]
        elif self.unit != "ev_per_angstrom3":
            found.append(f"units.stress.{self.unit}")
        if self.sign < 0 and self.unit != VIRIAL:
            found.append("sign.stress")
        if self.order != "yz xz xy":
            found.append("stress.order")
        return found


def judge_stress(pairs: Pairs, fit: Fit | None, reading: Reading) -> StressVerdict | None:
    """Return how the stress labels are best read, or None if nothing can be said.

    Parameters
    ----------
    pairs
        Neighbouring structures of the sample.
    fit
        The quick potential.
    reading
        Units of the other labels, as far as they are known: a fit to forces in kcal/mol foretells
        stresses in kcal/mol.
    """
    witnesses: list[_Witness] = []
    if fit is not None and fit.explained[AS_READ] >= _GOOD_FIT:
        witness = _of_fit(fit, reading)
        if witness is not None:
            witnesses.append(witness)
    strained = _of_pairs(pairs, reading)
    if not witnesses and strained is None:
        return None
    best: tuple[float, str, int, str] | None = None
    as_read = 0.0
    for unit, sign, order in itertools.product((*STRESS_UNITS, VIRIAL), (1, -1), SHEARS):
        odds = -_UNIT_COST * (unit != "ev_per_angstrom3") - _ORDER_COST * (order != "yz xz xy")
        # a virial has the sign of -stress by definition
        odds -= _SIGN_COST * ((sign < 0) != (unit == VIRIAL))
        for witness in witnesses:
            odds += witness.log_odds(unit, sign, SHEARS[order])
        if strained is not None:
            odds += strained.log_odds(unit, sign, SHEARS[order])
        if best is None:
            as_read = odds
        if best is None or odds > best[0]:
            best = (odds, unit, sign, order)
    assert best is not None
    scale = {}
    correlation = math.nan
    if witnesses:
        correlation, scale["fit"] = witnesses[0].plain()
    if strained is not None:
        scale["strained pairs"] = strained.ratio(*_AS_READ)
    odds, unit, sign, order = best
    # the best of many bad readings is no finding: a witness must bear it out; and it is no more
    # than a suspicion if another contradicts, if one bears out the labels as they are, or if a
    # single one has seen few frames
    heard: list[_Witness | _Strained] = [*witnesses, *([] if strained is None else [strained])]
    ratios = [witness.ratio(unit, sign, SHEARS[order]) for witness in heard]
    borne_out = [1.0 / _WITHIN < ratio < _WITHIN for ratio in ratios]
    fine = any(1.0 / _CLOSE < witness.ratio(*_AS_READ) < _CLOSE for witness in heard)
    few = len(heard) == 1 and len(heard[0].volume) < _MANY
    return StressVerdict(
        unit,
        sign,
        order,
        odds,
        odds - as_read if any(borne_out) else 0.0,
        all(borne_out) and not fine and not few,
        correlation,
        scale,
    )


@dataclass(frozen=True)
class _Witness:
    """Shears, and differences of the other three entries, of labels and fit; axis 1 the entry."""

    shear: Array
    shear_fit: Array
    axial: Array
    axial_fit: Array
    volume: Array

    def log_odds(self, unit: str, sign: int, order: tuple[int, int, int]) -> float:
        factor = 1.0 / self.volume if unit == VIRIAL else STRESS_UNITS[unit]
        factor = np.broadcast_to(np.asarray(factor * sign), self.volume.shape)[:, None]
        odds = 0.0
        for label, foretold in (
            (self.shear[:, list(order)] * factor, self.shear_fit),
            (self.axial * factor, self.axial_fit),
        ):
            correlation, ratio, n = _compare(label, foretold)
            if n < _FEWEST:
                continue
            # Gaussian errors of both at their best scale give -n/2 log(1 - c²); the evidence of
            # entries that go together is less than that of so many alone, hence the cap
            shared = min(n, 60)
            odds += -0.5 * shared * math.log(1.0 - min(max(correlation, 0.0), 0.999) ** 2)
            if correlation > 0.3:
                spread = 0.15 - math.log(correlation)
                odds += max(-0.5 * (math.log(ratio) / spread) ** 2 - math.log(spread), _TAIL)
            else:
                odds += _TAIL
        return odds

    def ratio(self, unit: str, sign: int, order: tuple[int, int, int]) -> float:
        """Return the size of the labels over that of the fit, with sign."""
        factor = 1.0 / self.volume if unit == VIRIAL else STRESS_UNITS[unit]
        factor = np.broadcast_to(np.asarray(factor * sign), self.volume.shape)[:, None]
        labels = np.hstack([self.shear[:, list(order)], self.axial]) * factor
        correlation, ratio, _ = _compare(labels, np.hstack([self.shear_fit, self.axial_fit]))
        return math.copysign(ratio, correlation)

    def plain(self) -> tuple[float, float]:
        """Return correlation and ratio of sizes of the labels as read."""
        correlation, ratio, _ = _compare(self.shear, self.shear_fit)
        return correlation, ratio


def _compare(label: Array, foretold: Array) -> tuple[float, float, int]:
    """Return correlation about zero, ratio of sizes, and how many entries are not zero."""
    a, b = label.ravel(), foretold.ravel()
    used = (np.abs(a) > 1e-4 * np.abs(a).max(initial=0.0)) | (
        np.abs(b) > 1e-4 * np.abs(b).max(initial=0.0)
    )
    a, b = a[used], b[used]
    squares = float(a @ a), float(b @ b)
    if min(squares) <= 0.0:
        return 0.0, math.nan, 0
    return (
        float(a @ b) / math.sqrt(squares[0] * squares[1]),
        math.sqrt(squares[0] / squares[1]),
        len(a),
    )


def _of_fit(fit: Fit, reading: Reading) -> _Witness | None:
    labelled = [
        k for k, f in enumerate(fit.frames) if f.stress is not None and f.pbc.all() and len(f) > 1
    ]
    if len(labelled) < 4:
        return None
    volume = np.array([abs(np.linalg.det(fit.frames[k].cell)) for k in labelled])
    labels = np.array([_stress(fit.frames[k]) for k in labelled])
    # forces f and lengths x in foreign units make an energy f·x of the fit, and V is in x³
    to_ev = reading.force_factor * reading.length_factor * reading.force_sign
    foretold = fit.strain[labelled] * to_ev / (volume * reading.length_factor**3)[:, None, None]
    return _Witness(
        shear=_shears(labels),
        shear_fit=_shears(foretold),
        axial=_axial(labels),
        axial_fit=_axial(foretold),
        volume=volume,
    )


def _stress(frame: Frame) -> Array:
    assert frame.stress is not None
    return frame.stress


def _shears(tensors: Array) -> Array:
    return np.stack([0.5 * (tensors[:, a, b] + tensors[:, b, a]) for a, b in _ENTRIES], axis=1)


def _axial(tensors: Array) -> Array:
    return np.stack(
        [tensors[:, 0, 0] - tensors[:, 1, 1], tensors[:, 1, 1] - tensors[:, 2, 2]], axis=1
    )


@dataclass(frozen=True)
class _Strained:
    """What forces leave of energy differences, and what each stress entry would add."""

    missing: Array
    axial: Array
    shear: Array
    strain_shear: Array
    volume: Array
    error: Array
    noise: float

    def added(self, unit: str, sign: int, order: tuple[int, int, int]) -> Array:
        factor = 1.0 / self.volume if unit == VIRIAL else STRESS_UNITS[unit]
        shear = (self.shear[:, list(order)] * self.strain_shear).sum(axis=1)
        return np.asarray((self.axial + 2.0 * shear) * factor * sign)

    def log_odds(self, unit: str, sign: int, order: tuple[int, int, int]) -> float:
        # errors of a tenth of the work done, with the heavy tails that anharmonic pairs have
        added = self.added(unit, sign, order)
        # what is added counts in the scale too: else a reading that makes stresses vanish would be
        # better than any that makes them too large
        scale = 0.1 * (np.abs(self.missing) + np.abs(added) + self.error) + self.noise
        off = (self.missing - added) / scale
        odds = float(np.median(np.log1p(0.5 * off**2)))
        return -min(len(off), 30) * odds

    def ratio(self, unit: str, sign: int, order: tuple[int, int, int]) -> float:
        """Return what the stresses add over what is missing, with sign: 1 for the right reading."""
        added = self.added(unit, sign, order)
        weight = np.abs(added)
        kept = weight > 0.0
        if not kept.any():
            return math.nan
        ascending = np.argsort(self.missing[kept] / added[kept])
        reached = np.cumsum(weight[kept][ascending])
        middle = np.searchsorted(reached, 0.5 * reached[-1])
        ratio = float((self.missing[kept] / added[kept])[ascending][middle])
        return 1.0 / ratio if ratio else math.inf


def _of_pairs(pairs: Pairs, reading: Reading) -> _Strained | None:
    if not len(pairs.first):
        return None
    virial = pairs.mean_virial * reading.length_factor**3
    energy = pairs.energy * reading.energy_factor * reading.energy_sign
    if reading.per_atom:
        energy = energy * pairs.n_atoms
    work_factor = reading.force_factor * reading.length_factor * reading.force_sign
    work = pairs.work * work_factor
    curvature = pairs.curvature * work_factor
    missing = energy - work
    used = (
        np.isfinite(missing)
        & np.isfinite(virial).all(axis=(1, 2))
        & (np.abs(pairs.strain).max(axis=(1, 2)) > 1e-4)
    )
    if used.sum() < _FEWEST:
        return None
    strain = pairs.strain[used]
    virial = virial[used]
    return _Strained(
        missing=missing[used],
        axial=np.einsum("pii,pii->p", virial, strain),
        shear=_shears(virial),
        strain_shear=_shears(strain),
        volume=pairs.volume[used] * reading.length_factor**3,
        error=np.abs(curvature[used]) / 6.0,
        # labels are rounded in their own unit: no reading may gain by making them small
        noise=1e-5 * reading.energy_factor,
    )


def asymmetric(frames: Sequence[Frame]) -> list[int]:
    """Return the frames whose stress is far from symmetric, as no stress at rest is."""
    found = []
    for k, frame in enumerate(frames):
        if frame.stress is not None:
            off = float(np.abs(frame.stress - frame.stress.T).max())
            if off > 0.02 * float(np.abs(frame.stress).max()) + 1e-6:
                found.append(k)
    return found
