"""Which element is chemically nearest to another: distances on a one-dimensional scale."""

from collections.abc import Iterable
from typing import Final

from eqpot.elements import SYMBOLS

# fmt: off
CHEMICAL_SCALE: Final = (
    "He", "Ne", "Ar", "Kr", "Xe", "Rn", "Fr", "Cs", "Rb", "K", "Na", "Li", "Ra", "Ba", "Sr", "Ca",
    "Eu", "Yb", "Lu", "Tm", "Y", "Er", "Ho", "Dy", "Tb", "Gd", "Sm", "Pm", "Nd", "Pr", "Ce", "La",
    "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Sc",
    "Zr", "Hf", "Ti", "Ta", "Nb", "V", "Cr", "Mo", "W", "Re", "Tc", "Os", "Ru", "Ir", "Rh", "Pt",
    "Pd", "Au", "Ag", "Cu", "Ni", "Co", "Fe", "Mn", "Mg", "Zn", "Cd", "Hg", "Be", "Al", "Ga", "In",
    "Tl", "Pb", "Sn", "Ge", "Si", "B", "C", "N", "P", "As", "Sb", "Bi", "Po", "Te", "Se", "S", "O",
    "At", "I", "Br", "Cl", "F", "H",
)
# fmt: on
"""Elements in the order of the modified Pettifor scale; neighbours replace each other in crystals.

References
----------
Glawe, Sanna, Gross and Marques, New J. Phys. 18, 093011 (2016).
"""


def nearest_element(atomic_number: int, known: Iterable[int]) -> int:
    """Return the known element that is nearest on the chemical scale.

    Parameters
    ----------
    atomic_number
        Z of an element, up to lawrencium.
    known
        Z to choose from; those beyond lawrencium are left out.

    Raises
    ------
    ValueError
        If the element, or every known one, has no place on the scale.

    Examples
    --------
    >>> SYMBOLS[nearest_element(14, [1, 6, 7, 8])]
    'C'
    """
    places = {SYMBOLS.index(symbol): place for place, symbol in enumerate(CHEMICAL_SCALE)}
    if atomic_number not in places:
        raise ValueError(
            f"Z={atomic_number} has no place on the chemical scale, which ends at lawrencium"
        )
    candidates = [z for z in known if z in places]
    if not candidates:
        raise ValueError("no known element has a place on the chemical scale")
    return min(candidates, key=lambda z: (abs(places[z] - places[atomic_number]), z))
