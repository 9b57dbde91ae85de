"""A structure of any size for any potential: its elements, packed as densely as its data."""

import numpy as np
from ase import Atoms

from eqpot.data.neighbors import neighbor_list


def packing(atomic_numbers: list[int], n_side: int, mean_neighbors: float, r_max: float) -> Atoms:
    """Return ``n_side**3`` atoms of all elements with a given number of neighbours.

    Atoms stand near the points of a periodic cubic lattice, each displaced by a tenth of its
    spacing; elements take turns in a random order. It costs what a structure of the data costs, but
    it is none: energies and forces mean nothing.

    Parameters
    ----------
    atomic_numbers
        Elements, each as often as the others.
    n_side
        Atoms along an edge.
    mean_neighbors
        Mean number of neighbours within ``r_max``, above zero.
    r_max
        Radius, Å.
    """
    rng = np.random.default_rng(0)
    points = np.stack(np.meshgrid(*[np.arange(float(n_side))] * 3), axis=-1).reshape(-1, 3)
    points += 0.1 / np.sqrt(3) * rng.standard_normal(points.shape)
    numbers = rng.permutation(np.resize(atomic_numbers, len(points)))
    # the radius in units of the spacing: a sphere of so many atoms, and one spacing to be sure
    beyond = float(np.cbrt(3 / (4 * np.pi) * (mean_neighbors + 1))) + 1.0
    cell = n_side * np.eye(3)
    (centers, neighbors), shifts = neighbor_list(points, cell, [True] * 3, beyond)
    distances = np.linalg.norm(points[neighbors] - points[centers] + shifts @ cell, axis=1)
    distances.sort()
    n_edges = max(2, round(mean_neighbors * len(points)))
    spacing = r_max / float(distances[n_edges - 1 : n_edges + 1].mean())
    return Atoms(numbers, spacing * points, cell=spacing * cell, pbc=True)
