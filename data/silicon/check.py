"""Check the settings of the silicon set on a few of its cells, and print the tables of the README.

    python check.py

Cutoff, k-points and smearing are refined one at a time; forces and stress are compared with
finite differences of the energy.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import make_supercell
from ase.io import read
from make import diamond, label

FAMILIES = ("diamond", "vacancy_cubic", "beta_tin")  # the first test frame of each is checked
STEP = 0.005  # Å, and the size of the strains

SETTINGS = {
    "as published": {},
    "cutoff 500 eV": {"cutoff": 500.0},
    "k-points 0.24 /Å": {"spacing": 0.24},
    "k-points 0.18 /Å": {"spacing": 0.18},
    "k-points 0.18 /Å, smearing 0.05 eV": {"spacing": 0.18, "smearing": 0.05},
}

# Settings that differ in one quantity, the second being the finer.
PAIRS = (
    ("as published", "cutoff 500 eV"),
    ("as published", "k-points 0.18 /Å"),
    ("k-points 0.24 /Å", "k-points 0.18 /Å"),
    ("k-points 0.18 /Å", "k-points 0.18 /Å, smearing 0.05 eV"),
)

TO_CUBIC = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])  # rows: cubic axes in primitive vectors


def differences(atoms: Atoms, reference: Atoms) -> tuple[float, float, float]:
    """Return how far the labels of two copies of a frame are apart.

    Parameters
    ----------
    atoms, reference : Atoms
        Labelled with different settings.

    Returns
    -------
    tuple of float
        Difference of the energies in meV/atom, largest difference of a force component in meV/Å
        and of a stress component in GPa.
    """
    energy = (atoms.get_potential_energy() - reference.get_potential_energy()) / len(atoms)
    force = np.abs(atoms.get_forces() - reference.get_forces()).max()
    stress = np.abs(atoms.get_stress() - reference.get_stress()).max()
    return 1000 * energy, 1000 * force, stress / units.GPa


def compare_settings(atoms: Atoms) -> None:
    """Print how the labels of a frame differ between the `PAIRS` of settings.

    Parameters
    ----------
    atoms : Atoms
        The frame.
    """
    labelled = {name: label(atoms, **setting) for name, setting in SETTINGS.items()}
    print(f"{atoms.info['config_type']}: meV/atom, meV/Å, GPa")
    for coarse, fine in PAIRS:
        energy, force, stress = differences(labelled[coarse], labelled[fine])
        print(f"  {energy:8.2f} {force:8.2f} {stress:8.3f}  {coarse} → {fine}", flush=True)


def compare_cells() -> None:
    """Print by how much one crystal's energy differs between cells of 2 and of 8 atoms."""
    cells = (diamond(), make_supercell(diamond(), TO_CUBIC))
    small, large = (label(atoms).get_potential_energy() / len(atoms) for atoms in cells)
    print(f"8 atoms minus 2 atoms: {1000 * (large - small):.2f} meV/atom", flush=True)


def slope(energy_at: Callable[[float], float]) -> float:
    """Return a derivative at zero by the five-point formula.

    Parameters
    ----------
    energy_at : callable
        Energy in eV as a function of a displacement in Å or of a strain.

    Returns
    -------
    float
        The derivative; its error is of fourth order in `STEP`.
    """
    near, far = (energy_at(n * STEP) - energy_at(-n * STEP) for n in (1, 2))
    return (8 * near - far) / (12 * STEP)


def moved_energy(atoms: Atoms, axis: int, size: float) -> float:
    """Return the energy after the first atom has moved along an axis.

    Parameters
    ----------
    atoms : Atoms
        The frame.
    axis : int
        Direction.
    size : float
        Distance in Å.

    Returns
    -------
    float
        Energy in eV.
    """
    moved = atoms.copy()
    moved.positions[0, axis] += size
    return label(moved).get_potential_energy()


def strained_energy(atoms: Atoms, i: int, j: int, size: float) -> float:
    """Return the energy after a strain with one component of a given size.

    Parameters
    ----------
    atoms : Atoms
        The frame.
    i, j : int
        The component; a shear is halved and made symmetric, so that the slope is V·stress.
    size : float
        The strain.

    Returns
    -------
    float
        Energy in eV.
    """
    deformation = np.eye(3)
    deformation[i, j] += size / 2
    deformation[j, i] += size / 2
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    return label(strained).get_potential_energy()


def compare_derivatives(atoms: Atoms) -> None:
    """Print how far forces and stress are from finite differences.

    Parameters
    ----------
    atoms : Atoms
        The frame; the force on its first atom and the components xx and yz are checked.
    """
    labelled = label(atoms)
    force, stress = labelled.get_forces()[0], labelled.get_stress(voigt=False)
    for axis in range(3):
        error = -slope(partial(moved_energy, atoms, axis)) - force[axis]
        print(f"force {'xyz'[axis]}: {1000 * error:.3f} meV/Å", flush=True)
    for i, j in ((0, 0), (1, 2)):
        numerical = slope(partial(strained_energy, atoms, i, j)) / atoms.get_volume()
        error = (numerical - stress[i, j]) / units.GPa
        print(f"stress {'xyz'[i]}{'xyz'[j]}: {error:.4f} GPa", flush=True)


if __name__ == "__main__":
    frames = read(Path(__file__).parent / "test.extxyz", ":")
    chosen = [next(f for f in frames if f.info["config_type"] == name) for name in FAMILIES]
    compare_cells()
    compare_derivatives(chosen[0])
    for frame in chosen:
        compare_settings(frame)
