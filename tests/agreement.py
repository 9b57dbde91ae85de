"""Agreement of a potential with another way to compute it, from many atoms to one."""

import torch
from ase import Atoms
from ase.build import bulk

from eqpot.data import collate
from eqpot.program import OUTPUTS
from potentials import graph_of
from strategies import ordinary_set


def lone_and_few():
    """Return structures at the least numbers of atoms and slots."""
    return {
        "atom": Atoms("Si", [[0.1, 0.2, 0.3]]),
        "pair": Atoms("OH", [[0, 0, 0], [0, 0.6, 0.8]]),
        "primitive": bulk("Cu"),
    }


def assert_agrees(other, potential, tolerance):
    """Check all results for ordinary structures, for few atoms, and for all in one batch."""
    structures = [*ordinary_set().values(), *lone_and_few().values()]
    graphs = [graph_of(atoms, potential.r_max) for atoms in structures]
    for graph in [*graphs, collate(graphs)]:
        expected, found = potential(graph), other(graph)
        for name in OUTPUTS:
            assert found[name].dtype == torch.float64
            scale = max(1.0, expected[name].abs().max().item())
            assert (found[name] - expected[name]).abs().max().item() <= tolerance * scale, name
