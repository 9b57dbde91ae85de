"""Densities of neighbours against closed forms."""

import pytest
import torch
from scipy.special import eval_legendre

from eqpot.nn.density import along_edges
from eqpot.so3 import spherical_harmonics


@pytest.mark.parametrize("l_along", [1, 2, 3])
def test_a_field_along_the_edge_is_the_one_the_edge_sees(l_along):
    """Fields that point somewhere: by the addition theorem a sum of Legendre polynomials."""
    n_atoms, n_slots, n_senders = 4, 6, 3
    generator = torch.Generator().manual_seed(1)

    def directions(*shape):
        vectors = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
        return vectors / vectors.norm(dim=-1, keepdim=True)

    edges, fields = directions(n_atoms, n_slots), directions(n_atoms, n_slots, n_senders)
    harmonics = spherical_harmonics(edges, l_along)[..., 1:].transpose(1, 2)  # nkj
    directed = spherical_harmonics(fields, l_along)[..., 1:].transpose(2, 3)  # njks
    along = along_edges(harmonics, directed.flatten(2))
    cosines = (edges[:, :, None] * fields).sum(dim=-1).numpy()
    degrees = range(1, l_along + 1)
    expected = sum((2 * degree + 1) * eval_legendre(degree, cosines) for degree in degrees)
    n_components = (l_along + 1) ** 2 - 1
    torch.testing.assert_close(along * n_components**0.5, torch.from_numpy(expected))
