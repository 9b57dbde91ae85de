"""A constant energy per atom, for programs that learn energies without it."""

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes


class ConstantEnergy(Calculator):
    """An energy that counts atoms.

    Parameters
    ----------
    per_atom
        eV.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (as ASE declares it)

    def __init__(self, per_atom: float) -> None:
        super().__init__()
        self.per_atom = per_atom

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Count; called by ASE."""
        super().calculate(atoms, properties, system_changes)
        n_atoms = len(self.atoms)
        self.results = {"energy": self.per_atom * n_atoms, "forces": np.zeros((n_atoms, 3))}
