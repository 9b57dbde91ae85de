"""Molecular dynamics of a structure with a trained potential, in 20 lines of ASE."""

import sys

from ase import units
from ase.io import read
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet

from eqpot.calculators import ASECalculator

structure, potential = sys.argv[1:3]
n_steps = int(sys.argv[3]) if len(sys.argv) > 3 else 100

atoms = read(structure)
atoms.calc = ASECalculator(potential, dtype="float32")
MaxwellBoltzmannDistribution(atoms, temperature_K=300)
dynamics = VelocityVerlet(atoms, timestep=1 * units.fs)
start = atoms.get_total_energy()
dynamics.run(n_steps)
change = 1e3 * (atoms.get_total_energy() - start) / len(atoms)
print(f"total energy changed by {change:.4f} meV/atom in {n_steps} fs")
