"""The chemical elements by atomic number."""

from collections.abc import Iterable
from typing import Final

# fmt: off
SYMBOLS: Final = (
    "X",
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl",
    "Ar", "K", "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As",
    "Se", "Br", "Kr", "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In",
    "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb",
    "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl",
    "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm", "Bk",
    "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh",
    "Fl", "Mc", "Lv", "Ts", "Og",
)
# fmt: on
"""Symbols of the elements by atomic number."""


def symbols(elements: Iterable[int]) -> str:
    """Return the symbols of elements, for messages."""
    return ", ".join(SYMBOLS[z] for z in elements)


def unknown_element(atom: int, number: int, known: Iterable[int]) -> str:
    """Return what to tell of an atom whose element a potential of ``known`` ones lacks."""
    is_element = 0 < number < len(SYMBOLS)
    symbol = SYMBOLS[number] if is_element else "no element"
    remedy = f". Frames with {symbol} in `data.train` of a fine-tuning teach it" * is_element
    return (
        f"atom {atom} is {symbol} (Z = {number}), which the potential does not know; "
        f"it knows {symbols(sorted(known))}{remedy}"
    )
