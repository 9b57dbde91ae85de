"""Check the settings of the ethanol set on a few of its frames, and print the table of the README.

    python check.py

Each setting is compared with a fine one (grid level 7); the forces are compared with finite
differences of the energy.
"""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from make import label

N_FRAMES = 2  # from the end of the hot test set
FINE_LEVEL = 7
STEP = 0.005  # Å

SETTINGS = {
    "as published": {},
    "grid level 3": {"grid_level": 3},
    "grid level 5": {"grid_level": 5},
    "without grid response": {"grid_response": False},
    "density fitting": {"density_fitting": True},
}


def energy_error(atoms: Atoms, reference: Atoms) -> float:
    """Return the largest error of an energy in meV."""
    return 1000 * abs(atoms.get_potential_energy() - reference.get_potential_energy())


def force_error(atoms: Atoms, reference: Atoms) -> float:
    """Return the largest error of a force component in meV/Å."""
    return float(1000 * np.abs(atoms.get_forces() - reference.get_forces()).max())


def compare_settings(frames: list[Atoms]) -> None:
    """Print the largest errors of each of the `SETTINGS` over some frames.

    Parameters
    ----------
    frames : list of Atoms
        Molecules.
    """
    fine = [label(frame, grid_level=FINE_LEVEL) for frame in frames]
    for name, setting in SETTINGS.items():
        pairs = [(label(frame, **setting), best) for frame, best in zip(frames, fine, strict=True)]
        energy = max(energy_error(*pair) for pair in pairs)
        force = max(force_error(*pair) for pair in pairs)
        print(f"{name:24s} {energy:8.4f} meV {force:8.4f} meV/Å", flush=True)


def displaced_energy(atoms: Atoms, index: int, axis: int, step: float) -> float:
    """Return the energy after moving one coordinate.

    Parameters
    ----------
    atoms : Atoms
        The molecule.
    index, axis : int
        Atom and direction.
    step : float
        Distance in Å.

    Returns
    -------
    float
        Energy in eV.
    """
    moved = atoms.copy()
    moved.positions[index, axis] += step
    return label(moved).get_potential_energy()


def numerical_force(atoms: Atoms, index: int, axis: int) -> float:
    """Return −dE/dx of one coordinate by the five-point formula, in eV/Å.

    Parameters
    ----------
    atoms : Atoms
        The molecule.
    index, axis : int
        Atom and direction.

    Returns
    -------
    float
        The force; the error of the formula is of fourth order in `STEP`.
    """
    near, far = (
        displaced_energy(atoms, index, axis, n * STEP)
        - displaced_energy(atoms, index, axis, -n * STEP)
        for n in (1, 2)
    )
    return -(8 * near - far) / (12 * STEP)


def compare_derivatives(atoms: Atoms) -> None:
    """Print the largest difference between the forces and finite differences.

    Parameters
    ----------
    atoms : Atoms
        The molecule; one coordinate of each atom is checked.
    """
    forces = label(atoms).get_forces()
    errors = [abs(numerical_force(atoms, i, i % 3) - forces[i, i % 3]) for i in range(len(atoms))]
    print(f"forces and finite differences differ by {1000 * max(errors):.5f} meV/Å")
    print(f"the forces sum to {1000 * np.abs(forces.sum(axis=0)).max():.1e} meV/Å")


if __name__ == "__main__":
    molecules = read(Path(__file__).parent / "test_600K.extxyz", f"-{N_FRAMES}:")
    compare_settings(molecules)
    compare_derivatives(molecules[0])
