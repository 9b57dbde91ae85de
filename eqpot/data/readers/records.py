"""The record: what a file says of one structure, before it is known what its labels are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from eqpot import keys

LARGEST_N_ATOMS: Final = 1_000_000
"""Atoms in a frame; a larger count is a mistake or an attack, and is refused before allocation."""


@dataclass(frozen=True)
class Record:
    """A structure in the units of its file, and all other numbers of it by their names.

    Attributes
    ----------
    atomic_numbers, positions, cell, pbc
        As in :class:`eqpot.data.frames.Frame`.
    values
        Everything else.
    """

    atomic_numbers: NDArray[Any]
    positions: NDArray[Any]
    cell: NDArray[Any] = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: NDArray[Any] = field(default_factory=lambda: np.zeros(3, dtype=np.bool_))
    values: Mapping[str, Any] = field(default_factory=dict)


def record_of_atoms(atoms: Atoms) -> Record:
    """Return what ASE knows of a structure: info, arrays and results, each by its name.

    Raises
    ------
    ValueError
        If one name stands for two different values.
    """
    results = atoms.calc.results if atoms.calc is not None else {}
    arrays = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", keys.POSITIONS)}
    values = merged(atoms.info, arrays, results)
    return Record(atoms.numbers, atoms.positions, atoms.cell[:], atoms.pbc, values)


def merged(*groups: Mapping[str, Any]) -> dict[str, Any]:
    """Return one mapping of several.

    Raises
    ------
    ValueError
        If one name stands for two different values.
    """
    values: dict[str, Any] = {}
    for group in groups:
        for name, value in group.items():
            if value is None:
                continue
            if name in values and not same(values[name], value):
                raise ValueError(f"the frame holds two different values of `{name}`")
            values[name] = value
    return values


_SAME: Final = 1e-8
"""Two values of one label that differ relatively by less than this are the same number."""


def same(one: Any, other: Any) -> bool:
    """Return whether two values are the same number or the same text."""
    try:
        a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    except (TypeError, ValueError):
        return bool(np.array_equal(one, other))
    if a.size != b.size:
        return False
    return bool(np.allclose(a.reshape(-1), b.reshape(-1), rtol=_SAME, atol=0.0, equal_nan=True))
