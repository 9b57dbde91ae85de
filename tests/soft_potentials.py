"""Potentials for the tests: random weights, small and soft."""

import torch

from eqpot.models import build_model, settings_of
from eqpot.physics.zbl import ZBLRepulsion
from eqpot.potential import Potential

ELEMENTS = [1, 6, 8, 14]


def soft_potential(
    dtype=torch.float64, *, seed=0, scale=0.1, r_max=4.0, n_layers=2, repulsion=True
):
    """Return a potential with random weights; the same seed gives the same weights."""
    settings = settings_of("gaunt", "small", {"n_features": 8, "n_layers": n_layers})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(settings, len(ELEMENTS), r_max, 12.0)
    potential = Potential(
        model,
        ELEMENTS,
        [-13.6, -1029.5, -2041.8, -7881.1],
        scale,
        r_max,
        ZBLRepulsion.of_elements(ELEMENTS) if repulsion else None,
    )
    return potential.to(torch.float64).to(dtype).eval().requires_grad_(False)
