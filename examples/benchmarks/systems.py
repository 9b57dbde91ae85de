"""The systems of the speed comparison, the same to the last digit in each program.

Needs numpy and ASE only, because it is read in the environment of each program.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

R_MAX: Final = 5.0
"""Radius of the models, Å."""
STEP: Final = 0.01
"""Root mean square displacement of an atom from one evaluation to the next, Å."""

_ASPIRIN: Final = (
    ("C", 0.068, -1.085, -0.260),
    ("C", -0.647, 0.115, -0.249),
    ("C", -2.034, 0.097, -0.314),
    ("C", -2.715, -1.103, -0.391),
    ("C", -2.016, -2.300, -0.377),
    ("C", -0.638, -2.286, -0.308),
    ("H", -2.564, 1.037, -0.302),
    ("H", -3.793, -1.103, -0.445),
    ("H", -2.546, -3.239, -0.420),
    ("H", -0.070, -3.204, -0.295),
    ("C", 1.549, -1.183, -0.234),
    ("O", 2.148, -2.167, 0.112),
    ("O", 2.184, -0.092, -0.693),
    ("H", 3.142, -0.236, -0.644),
    ("O", -0.038, 1.355, -0.183),
    ("C", 0.806, 1.625, 0.836),
    ("O", 1.002, 0.885, 1.759),
    ("C", 1.425, 2.980, 0.646),
    ("H", 2.177, 2.907, -0.136),
    ("H", 1.891, 3.303, 1.572),
    ("H", 0.670, 3.693, 0.327),
)
"""Aspirin, Å: a minimum of GFN2-xTB (Bannwarth et al., J. Chem. Theory Comput. 15, 1652, 2019)."""

_WATER_CELL: Final = 12.42
"""Edge of a cube with 64 molecules at 1 g/cm³, Å."""
_WATER_SIDE: Final = 4
"""Molecules along an edge."""


def molecule() -> Atoms:
    """Return an aspirin molecule, C9H8O4, without a cell."""
    return Atoms([row[0] for row in _ASPIRIN], [row[1:] for row in _ASPIRIN])


def water() -> Atoms:
    """Return 64 water molecules in a periodic cube at the density of the liquid.

    Molecules stand near the points of a grid, displaced at random; each takes, out of random
    orientations, the one that keeps its atoms farthest from those already there. The number of
    neighbours is that of the liquid, its order beyond that is not.
    """
    rng = np.random.default_rng(64)
    half_angle = np.deg2rad(104.5 / 2)
    bond = 0.9572
    shape = np.zeros((3, 3))
    shape[1] = bond * np.sin(half_angle), 0, bond * np.cos(half_angle)
    shape[2] = -shape[1, 0], 0, shape[1, 2]
    spacing = _WATER_CELL / _WATER_SIDE
    placed = np.empty((0, 3))
    for index in np.ndindex(_WATER_SIDE, _WATER_SIDE, _WATER_SIDE):
        origin = spacing * np.array(index) + rng.uniform(-0.15, 0.15, 3)
        best, best_gap = shape, -1.0
        for _ in range(40):
            rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))  # a mirror does no harm
            trial = origin + shape @ rotation
            if len(placed) == 0:
                best = trial
                break
            apart = trial[:, None] - placed[None]
            apart -= _WATER_CELL * np.round(apart / _WATER_CELL)
            gap = float(np.linalg.norm(apart, axis=2).min())
            if gap > best_gap:
                best, best_gap = trial, gap
        placed = np.concatenate([placed, best])
    return Atoms("OHH" * _WATER_SIDE**3, placed, cell=[_WATER_CELL] * 3, pbc=True)


def silicon(n_cells: int = 3) -> Atoms:
    """Return ``8 * n_cells**3`` atoms of diamond silicon, displaced by 0.05 Å."""
    atoms: Atoms = bulk("Si", "diamond", a=5.431, cubic=True) * (n_cells, n_cells, n_cells)
    atoms.rattle(0.05, seed=216)
    return atoms


SYSTEMS: Final[dict[str, Callable[[], Atoms]]] = {
    "molecule": molecule,
    "water": water,
    "silicon": silicon,
    "silicon-1000": partial(silicon, 5),
}
"""The systems by name."""


def mean_neighbors(atoms: Atoms) -> float:
    """Return the mean number of neighbours within :data:`R_MAX`."""
    return len(neighbor_list("i", atoms, R_MAX)) / len(atoms)


class Walk:
    """A random walk of all atoms, the same at every start.

    Parameters
    ----------
    atoms
        Moved in place.
    """

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self.rng = np.random.default_rng(0)

    def step(self) -> None:
        """Move each atom by :data:`STEP` in the root mean square."""
        kick = self.rng.standard_normal((len(self.atoms), 3))
        self.atoms.positions += STEP / np.sqrt(3) * kick

    def fingerprint(self) -> float:
        """Return a number that differs where the positions differ."""
        weights = np.random.default_rng(1).standard_normal((len(self.atoms), 3))
        return float((weights * self.atoms.positions).sum())
