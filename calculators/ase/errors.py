"""Errors of a potential through the ASE calculator, frame by frame.

    python calculators/ase/errors.py runs/ethanol/potential.eqpot data/ethanol/test_300K.extxyz

Slower than ``eqpot evaluate``, which joins frames, but it goes the way that a simulation goes.
"""

import sys

import numpy as np
from ase import Atoms

from eqpot.calculators import ASECalculator
from eqpot.data import read_frames


def main(potential: str, data: str) -> None:
    """Print root mean square errors of energies and forces."""
    calculator = ASECalculator(potential, dtype="float32")
    energy_errors, force_errors = [], []
    for frame in read_frames(data).frames:
        atoms = Atoms(frame.atomic_numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        atoms.calc = calculator
        if frame.energy is not None:
            energy_errors.append((atoms.get_potential_energy() - frame.energy) / len(atoms))
        if frame.forces is not None:
            force_errors.append(atoms.get_forces() - frame.forces)
    for name, errors, unit in (
        ("energy", energy_errors, "meV/atom"),
        ("forces", force_errors, "meV/Å"),
    ):
        if errors:
            values = 1e3 * np.concatenate([np.ravel(error) for error in errors])
            print(
                f"{data}: {name} RMSE {np.sqrt((values**2).mean()):.3f}, "
                f"MAE {np.abs(values).mean():.3f} {unit} over {len(errors)} frames"
            )


if __name__ == "__main__":
    main(*sys.argv[1:3])
