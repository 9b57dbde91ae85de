"""The structures that the benchmarks run on, the same in every program."""

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

# Aspirin as drawn in a textbook, Å; good enough to time.
_ASPIRIN = """
C 0.000 1.396 0.000; C 1.209 0.698 0.000; C 1.209 -0.698 0.000; C 0.000 -1.396 0.000
C -1.209 -0.698 0.000; C -1.209 0.698 0.000; H 2.147 1.240 0.000; H 2.147 -1.240 0.000
H 0.000 -2.479 0.000; H -2.147 -1.240 0.000; C 0.000 2.880 0.000; O 1.050 3.500 0.300
O -1.180 3.500 -0.200; H -1.050 4.460 -0.200; O -2.400 1.390 0.100; C -3.500 0.950 0.750
O -3.650 -0.150 1.200; C -4.550 2.010 0.900; H -4.850 2.300 -0.110; H -4.150 2.890 1.410
H -5.420 1.640 1.440
"""


def aspirin() -> Atoms:
    """Return a molecule of 21 atoms."""
    rows = [entry.split() for entry in _ASPIRIN.replace("\n", ";").split(";") if entry.strip()]
    return Atoms([row[0] for row in rows], [[float(x) for x in row[1:]] for row in rows])


def water() -> Atoms:
    """Return 64 molecules on a grid at 1 g/cm³, each turned at random: 192 atoms, periodic."""
    rng = np.random.default_rng(0)
    length = 12.42
    box = Atoms(cell=[length] * 3, pbc=True)
    for place in np.ndindex(4, 4, 4):
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3), center="COM")
        one.translate(length * (np.array(place) + 0.5) / 4 - one.get_center_of_mass())
        box += one
    return box


def silicon() -> Atoms:
    """Return a rattled 3×3×3 cell of 216 atoms."""
    atoms = bulk("Si", cubic=True) * (3, 3, 3)
    atoms.rattle(0.05, seed=0)
    return atoms


SYSTEMS = {"molecule": aspirin, "water": water, "silicon": silicon}
ELEMENTS = {"molecule": [1, 6, 8], "water": [1, 8], "silicon": [14]}
NEIGHBORS = {"molecule": 15.0, "water": 50.0, "silicon": 28.0}
R_MAX = 5.0
