"""Potentials for tests: random weights at a natural scale, and graphs of ASE structures."""

import torch

from eqpot.data import Frame, collate, frame_to_graph
from eqpot.models import build_model, settings_of
from eqpot.physics.zbl import ZBLRepulsion
from eqpot.potential import Potential
from eqpot.training.initialization import scale_to_data
from strategies import ordinary_set

ELEMENTS = [1, 6, 7, 8, 14, 16, 29]
SOFT_ELEMENTS = [1, 6, 8, 14]


def frame_of(atoms):
    """Return the frame of an ASE structure, without labels."""
    return Frame(atoms.numbers, atoms.positions, atoms.cell[:], atoms.pbc)


def graph_of(atoms, r_max):
    """Return the graph of an ASE structure."""
    return frame_to_graph(frame_of(atoms), r_max)


def random_potential(
    dtype=torch.float64, *, seed=0, r_max=4.0, repulsion=False, preset="small", **changes
):
    """Return a potential with random weights, whose forces are of the order of 1 eV/Å."""
    changes = {"n_features": 8} | changes
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(settings_of("gaunt", preset, changes), len(ELEMENTS), r_max, 12.0)
    energies = [-13.6, -1000.0, -1480.0, -2000.0, -7900.0, -10800.0, -45000.0]
    zbl = ZBLRepulsion.of_elements(ELEMENTS) if repulsion else None
    potential = Potential(model, ELEMENTS, energies, 10.0, r_max, zbl).double()
    graphs = [graph_of(atoms, r_max) for atoms in ordinary_set().values()]
    scale_to_data(potential, collate(graphs))
    return potential.to(dtype).eval().requires_grad_(False)


def soft_potential(
    dtype=torch.float64, *, seed=0, scale=0.1, r_max=4.0, n_layers=2, repulsion=True
):
    """Return a potential with fresh weights and small forces; a seed gives the same weights."""
    settings = settings_of("gaunt", "small", {"n_features": 8, "n_layers": n_layers})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(settings, len(SOFT_ELEMENTS), r_max, 12.0)
    energies = [-13.6, -1029.5, -2041.8, -7881.1]
    zbl = ZBLRepulsion.of_elements(SOFT_ELEMENTS) if repulsion else None
    potential = Potential(model, SOFT_ELEMENTS, energies, scale, r_max, zbl).double()
    known = [a for a in ordinary_set().values() if set(a.numbers) <= set(SOFT_ELEMENTS)]
    scale_to_data(potential, collate([graph_of(atoms, r_max) for atoms in known]))
    return potential.to(dtype).eval().requires_grad_(False)
