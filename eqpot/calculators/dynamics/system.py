"""Atoms in motion, and what the calculator says of them.

Units inside: Å, eV, u, and for time Å √(u/eV), as in ASE; ``ase.units.fs`` leads from fs to it.
"""

import ase
import numpy as np
from numpy.typing import NDArray

from eqpot.units import BOLTZMANN

Array = NDArray[np.float64]


class System:
    """Atoms in motion: positions, momenta, cell, and what the calculator says of them.

    Parameters
    ----------
    atoms
        Structure with a calculator; only its positions and cell are changed.
    n_dof
        Degrees of freedom that hold kinetic energy.
    free
        Bool, shape (n_atoms,): the atoms that move.
    """

    def __init__(self, atoms: ase.Atoms, n_dof: int, free: NDArray[np.bool_]) -> None:
        self.atoms = atoms
        self.n_dof = n_dof
        self.free = free[:, None]
        self.masses: Array = atoms.get_masses()[:, None]
        self.positions: Array = atoms.get_positions()
        self.momenta: Array = atoms.get_momenta() * self.free
        self.cell: Array = np.array(atoms.cell)
        self.energy = 0.0
        self.forces: Array = np.zeros_like(self.positions)
        self.stress: Array | None = None

    @property
    def twice_kinetic(self) -> float:
        """Σ p²/m in eV."""
        return float(np.sum(self.momenta**2 / self.masses))

    @property
    def temperature(self) -> float:
        """Σ p²/m over the degrees of freedom and Boltzmann's constant, in K."""
        return self.twice_kinetic / (self.n_dof * BOLTZMANN)

    @property
    def volume(self) -> float:
        """Volume of the cell in Å³."""
        return float(abs(np.linalg.det(self.cell)))

    def evaluate(self, stress: bool) -> None:
        """Set energy (eV), forces (eV/Å) and, if asked for, the stress (eV/Å³, (3, 3)).

        Raises
        ------
        FloatingPointError
            If a position or the cell is not finite, before a calculator chokes on it.
        """
        if not (np.isfinite(self.positions).all() and np.isfinite(self.cell).all()):
            raise FloatingPointError("a position is not finite")
        self.atoms.set_positions(self.positions, apply_constraint=False)
        self.atoms.set_cell(self.cell, scale_atoms=False)
        # The largest question first: a calculator that answers the others along with it runs once.
        if stress:
            voigt = self.atoms.calc.get_property("stress", self.atoms)
            xx, yy, zz, yz, xz, xy = np.asarray(voigt, dtype=np.float64)
            self.stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        else:
            self.stress = None
        forces = self.atoms.calc.get_property("forces", self.atoms)
        self.forces = np.array(forces, dtype=np.float64) * self.free
        self.energy = float(self.atoms.calc.get_property("energy", self.atoms))

    def remove_net_momentum(self) -> None:
        """Project the momenta onto those whose sum is zero."""
        total = self.momenta.sum(axis=0)
        # In p/√m this projection is orthogonal, so a normal distribution stays one.
        self.momenta = self.momenta - self.masses / self.masses.sum() * total
