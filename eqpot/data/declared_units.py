"""Units that a user declares for a file, and the factors that lead from them to eV and Å."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from eqpot import units

_ENERGIES: Final = {
    "ev": 1.0,
    "mev": 1e-3,
    "hartree": units.HARTREE,
    "ha": units.HARTREE,
    "mhartree": 1e-3 * units.HARTREE,
    "mha": 1e-3 * units.HARTREE,
    "rydberg": 0.5 * units.HARTREE,
    "ry": 0.5 * units.HARTREE,
    "kcal/mol": units.KCAL_PER_MOL,
    "kj/mol": units.KJ_PER_MOL,
}
_LENGTHS: Final = {
    "å": 1.0,
    "a": 1.0,
    "angstrom": 1.0,
    "ang": 1.0,
    "bohr": units.BOHR,
    "a0": units.BOHR,
    "nm": 10.0,
    "pm": 0.01,
}
_PRESSURES: Final = {
    "gpa": units.GPA,
    "mpa": 1e-3 * units.GPA,
    "kbar": 0.1 * units.GPA,
    "bar": 1e-4 * units.GPA,
}
_QUANTITIES: Final = ("energy", "length", "forces", "stress", "virial")


@dataclass(frozen=True)
class UnitFactors:
    """Factors from the units of a file to eV, Å, eV/Å and eV/Å³.

    Attributes
    ----------
    energy, length, forces, stress, virial
        What a number of the file is multiplied by.
    """

    energy: float = 1.0
    length: float = 1.0
    forces: float = 1.0
    stress: float = 1.0
    virial: float = 1.0


def unit_factors(declared: Mapping[str, str] | None) -> UnitFactors:
    """Return the factors that belong to declared units.

    What is not declared follows: ``energy`` is eV and ``length`` Å; ``forces`` are energy over
    length, ``stress`` energy over length cubed, ``virial`` an energy.

    Parameters
    ----------
    declared
        Unit by quantity (``energy``, ``length``, ``forces``, ``stress``, ``virial``), such as
        ``{"energy": "kcal/mol", "length": "Bohr", "stress": "GPa"}``; capitals do not matter.

    Raises
    ------
    ValueError
        If a quantity or a unit is not known.

    Examples
    --------
    >>> unit_factors({"forces": "Hartree/Bohr"}).energy
    1.0
    """
    declared = dict(declared or {})
    for quantity in declared:
        if quantity not in _QUANTITIES:
            raise ValueError(
                f"`units` has no quantity `{quantity}`; it takes {', '.join(_QUANTITIES)}"
            )
    energy = _factor("energy", declared.get("energy", "eV"), _ENERGIES)
    length = _factor("length", declared.get("length", "Angstrom"), _LENGTHS)
    forces = energy / length
    if "forces" in declared:
        forces = _factor("forces", declared["forces"], _over_length(1))
    stress = energy / length**3
    if "stress" in declared:
        stress = _factor("stress", declared["stress"], {**_PRESSURES, **_over_length(3)})
    virial = energy
    if "virial" in declared:
        virial = _factor("virial", declared["virial"], _ENERGIES)
    return UnitFactors(energy, length, forces, stress, virial)


def _factor(quantity: str, unit: str, known: Mapping[str, float]) -> float:
    plain = str(unit).replace(" ", "").lower()
    # "Å³" and "Å**3" are written "å^3" in the tables
    plain = plain.replace("³", "^3").replace("**", "^")
    if plain in known:
        return known[plain]
    near = get_close_matches(plain, known, n=3)
    choice = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(known)}"
    raise ValueError(f"unit `{unit}` of `{quantity}` is not known; {choice}")


def _over_length(power: int) -> dict[str, float]:
    suffix = "" if power == 1 else f"^{power}"
    return {
        f"{energy}/{length}{suffix}": e / d**power
        for energy, e in _ENERGIES.items()
        for length, d in _LENGTHS.items()
    }
