"""Which units and signs the labels are in: all usual readings weighed against the evidence.

A set in kcal/mol shows in a ratio of 23, but so do forces in Rydberg per Bohr, nearly. So every
combination of usual units is a hypothesis that foretells all ratios at once, and they are compared
by their odds (Bayes' rule). The reading as eV and Å has the highest odds beforehand and is given up
only for one that explains the evidence far better. Errors of the evidence have heavy tails: no
single number can decide alone by being far off, and a ratio near no known factor accuses nobody.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from eqpot import units
from eqpot.data.audit.evidence import Evidence, Ratio

ENERGY_UNITS: Final[dict[str, float]] = {
    "ev": 1.0,
    "hartree": units.HARTREE,
    "rydberg": 0.5 * units.HARTREE,
    "kcal_per_mol": units.KCAL_PER_MOL,
    "kj_per_mol": units.KJ_PER_MOL,
    "mev": 1e-3,
}
"""Energy units by name, in eV."""
LENGTH_UNITS: Final[dict[str, float]] = {"angstrom": 1.0, "bohr": units.BOHR, "nm": 10.0}
"""Length units by name, in Å."""
DECLARED: Final[dict[str, str]] = {
    "ev": "eV",
    "hartree": "Hartree",
    "rydberg": "Rydberg",
    "kcal_per_mol": "kcal/mol",
    "kj_per_mol": "kJ/mol",
    "mev": "meV",
    "angstrom": "Angstrom",
    "bohr": "Bohr",
    "nm": "nm",
}
"""How a unit is declared to the readers."""

# costs are natural logarithms of odds: 3 is "one set in twenty", 6 "one in four hundred"
_ONE_WRONG: Final = 3.0
_TOGETHER: Final = 3.5
_ODD_UNIT: Final = 1.5
_SIGN: Final = 3.0
_PER_ATOM: Final = 3.5
_TAIL: Final = 0.02
"""Chance that a ratio is off for reasons that nobody thought of."""
_TAIL_WIDTH: Final = 6.0
"""Such a ratio may be anywhere within these e-foldings."""
_NEAREST: Final = (1.06, 0.12)
"""Nearest distances over covalent radii: 0.95 in molecules, 1.3 in alkali metals."""
_ALL_ELECTRON: Final = 0.5
"""Chance that total energies are of all electrons."""


@dataclass(frozen=True)
class Reading:
    """A way in which the numbers may be meant.

    Attributes
    ----------
    energy, force_energy, force_length, length
        Units by name: of energies, of the two parts of forces, of positions.
    per_atom
        Whether the energies are divided by the number of atoms.
    energy_sign, force_sign
        -1 where a label has the wrong sign.
    cost
        How much less likely than eV and Å it is beforehand.
    """

    energy: str = "ev"
    force_energy: str = "ev"
    force_length: str = "angstrom"
    length: str = "angstrom"
    per_atom: bool = False
    energy_sign: int = 1
    force_sign: int = 1
    cost: float = 0.0

    @property
    def energy_factor(self) -> float:
        """What the energies are to be multiplied by to be in eV."""
        return ENERGY_UNITS[self.energy]

    @property
    def force_factor(self) -> float:
        """What the forces are to be multiplied by to be in eV/Å."""
        return ENERGY_UNITS[self.force_energy] / LENGTH_UNITS[self.force_length]

    @property
    def length_factor(self) -> float:
        """What the positions are to be multiplied by to be in Å."""
        return LENGTH_UNITS[self.length]

    @property
    def keeps_work(self) -> bool:
        """Whether energies over the work of the forces are the same as in eV and Å."""
        if self.per_atom or self.length != "angstrom":
            return False
        energy = self.energy_factor * self.energy_sign
        return math.isclose(energy, self.force_factor * self.force_sign, rel_tol=1e-6)

    def causes(self) -> list[str]:
        """Return what is wrong under this reading, for machines."""
        found = []
        if self.energy != "ev":
            found.append(f"units.energy.{self.energy}")
        if self.per_atom:
            found.append("energy.per_atom")
        if (self.force_energy, self.force_length) != ("ev", "angstrom"):
            found.append(f"units.forces.{self.force_energy}_per_{self.force_length}")
        if self.length != "angstrom":
            found.append(f"units.positions.{self.length}")
        if self.energy_sign < 0:
            found.append("sign.energy")
        if self.force_sign < 0:
            found.append("sign.forces")
        return found


def readings() -> Iterator[Reading]:
    """Yield every reading, that as eV and Å first."""
    for energy, force_energy, force_length, length in itertools.product(
        ENERGY_UNITS, ENERGY_UNITS, LENGTH_UNITS, LENGTH_UNITS
    ):
        if (force_length == "nm") > (force_energy == "kj_per_mol"):
            continue  # only GROMACS and its kin write forces so
        cost = _unit_cost(energy, force_energy, force_length, length)
        for per_atom, energy_sign, force_sign in itertools.product((False, True), (1, -1), (1, -1)):
            yield Reading(
                energy,
                force_energy,
                force_length,
                length,
                per_atom,
                energy_sign,
                force_sign,
                cost
                + (_PER_ATOM if per_atom else 0.0)
                + (_SIGN if energy_sign < 0 else 0.0)
                + (_SIGN if force_sign < 0 else 0.0),
            )


def _unit_cost(energy: str, force_energy: str, force_length: str, length: str) -> float:
    energy_off = energy != "ev"
    force_off = (force_energy, force_length) != ("ev", "angstrom")
    length_off = length != "angstrom"
    # codes write Hartree/Bohr, Rydberg/Bohr, kcal/mol/Å; what mixes the two is rare
    usual = {"hartree": "bohr", "rydberg": "bohr"}.get(force_energy, "angstrom")
    odd = 0.0 if force_length == usual else _ODD_UNIT
    if force_energy == "kj_per_mol" and force_length == "nm":
        odd = 0.0
    n_off = energy_off + force_off + length_off
    if n_off == 0:
        return 0.0
    if n_off == 1:
        return _ONE_WRONG + (odd if force_off else 0.0)
    consistent = energy == force_energy and (not length_off or length == force_length)
    return (_TOGETHER if consistent else _ONE_WRONG * n_off) + odd


def rank(evidence: Evidence, most: int = 12) -> list[tuple[float, Reading]]:
    """Return the likeliest readings, best first, with the logarithm of their odds.

    That as eV and Å is always among them, so that others can be measured by it.
    """
    scored = [(_log_odds(reading, evidence), reading) for reading in readings()]
    as_read = scored[0]
    best = sorted(scored, key=lambda pair: -pair[0])[:most]
    return best if as_read in best else [*best, as_read]


def _log_odds(reading: Reading, evidence: Evidence) -> float:
    energy, force, length = reading.energy_factor, reading.force_factor, reading.length_factor
    odds = -reading.cost
    work = evidence.work_per_atom if reading.per_atom else evidence.work
    if work is not None:
        odds += _match(work, force * length / energy, reading.energy_sign * reading.force_sign)
    elif evidence.work is not None or evidence.work_per_atom is not None:
        # the other way of counting energies gave a clear ratio, this one none
        odds += math.log(_TAIL / _TAIL_WIDTH)
    if evidence.stiffness is not None:
        median, spread = evidence.expected_stiffness
        expected = Ratio(
            evidence.stiffness.value,
            math.hypot(spread, evidence.stiffness.spread),
            evidence.stiffness.n,
            "",
        )
        odds += _match(expected, median * length / force, reading.force_sign)
    if evidence.nearest is not None:
        median, spread = _NEAREST
        expected = Ratio(evidence.nearest.value, spread, evidence.nearest.n, "")
        odds += _match(expected, median / length, 1)
    total = evidence.total_per_atom if reading.per_atom else evidence.total
    if total is not None:
        narrow = _density(math.log(abs(total.value) * energy), total.spread)
        odds += math.log(_ALL_ELECTRON * narrow + (1.0 - _ALL_ELECTRON) / _TAIL_WIDTH)
    elif evidence.total is not None or evidence.total_per_atom is not None:
        odds += math.log((1.0 - _ALL_ELECTRON) / _TAIL_WIDTH)
    return odds


def _match(ratio: Ratio, expected: float, sign: int) -> float:
    """Return the log density of a ratio where another is expected."""
    tail = _TAIL / _TAIL_WIDTH
    if ratio.value * sign <= 0.0:
        return math.log(0.5 * tail)
    off = math.log(abs(ratio.value) / expected)
    return math.log((1.0 - _TAIL) * _density(off, ratio.spread) + tail)


def _density(off: float, spread: float) -> float:
    return math.exp(-0.5 * (off / spread) ** 2) / (spread * math.sqrt(2.0 * math.pi))
