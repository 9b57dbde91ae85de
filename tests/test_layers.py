"""Layers of the flagship: what they make of neighbours, where the gate is, what readouts see."""

import pytest
import torch
from torch import nn

from eqpot.models import settings_of
from eqpot.models.interactions import FirstInteraction, GauntLayer, Interaction, Readout
from eqpot.nn.layout import written_out
from eqpot.so3 import degrees

SIZES = {"n_features": 6, "l_max": 2, "l_hidden": 1}


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("final_gate", [False, True])
def test_only_the_last_layer_may_be_without_a_gate(is_last, final_gate):
    """Without a gate a layer is linear in its last mixing of channels."""
    torch.manual_seed(0)
    settings = settings_of("gaunt", "small", SIZES | {"final_gate": final_gate})
    layer = GauntLayer(settings, 2, 5, is_last).double()
    density, species = torch.randn(9, 4, 5).double(), torch.tensor([0, 1, 1, 0])
    nothing = torch.zeros(4, 6).double()
    before = layer(density, nothing, species)
    assert before.shape == (1 if is_last else 4, 4, 6)
    for mixing in (layer.mix_out, *(step.mix_out for step in layer.steps)):
        mixing.weight.data.mul_(3.0)
    is_linear = torch.allclose(layer(density, nothing, species), 3.0 * before, rtol=1e-12)
    assert is_linear == (is_last and not final_gate)


@pytest.mark.parametrize(
    ("is_last", "final_gate", "is_linear"),
    [(False, True, True), (True, True, False), (True, False, False)],
)
def test_readouts_scale_and_saturate_as_they_should(is_last, final_gate, is_linear):
    torch.manual_seed(0)
    settings = settings_of("gaunt", "small", SIZES | {"final_gate": final_gate})
    readout = Readout(settings, is_last).double()
    scalars = torch.randn(7, 6).double()
    energies = readout(scalars)
    assert torch.allclose(readout(2.0 * scalars), 2.0 * energies) == is_linear
    readout.scale_energies(5.0)
    torch.testing.assert_close(readout(scalars), 5.0 * energies)
    # where all units of the hidden layer are flat, the linear part alone is left
    if is_last:
        readout.network[0].weight.data.zero_()
        readout.network[0].bias.data.fill_(-1e3)
        is_flat = torch.allclose(readout(scalars), torch.zeros(7).double())
        assert is_flat == final_gate


class Taken(nn.Module):
    """In place of a layer: returns the density that it is given."""

    def forward(self, density, kept, species):
        return density


@pytest.fixture
def neighborhood():
    """Return harmonics, distances and radial functions of any kind, for 4 atoms with 6 slots."""
    generator = torch.Generator().manual_seed(0)
    harmonics = torch.randn(4, 9, 6, generator=generator).double()
    distances = 5.0 * torch.rand(4, 6, generator=generator).double()
    return harmonics, distances


@pytest.mark.parametrize(("n_species", "n_channels"), [(1, 0), (3, 0), (1, 2), (3, 2)])
def test_the_first_density_is_the_sum_over_neighbours(neighborhood, n_species, n_channels):
    torch.manual_seed(0)
    harmonics, distances = neighborhood
    settings = settings_of("gaunt", "small", SIZES | {"n_element_channels": n_channels})
    first = FirstInteraction(settings, n_species, 5.0, 4.0, False).double()
    first.layer = Taken()
    neighbor_species = torch.randint(n_species, (4, 6))
    species = torch.zeros(4, dtype=torch.long)
    found = first(harmonics, distances, neighbor_species, None, species)
    radial, elements = first.radial(distances), first.elements[neighbor_species]
    expected = torch.einsum("nkj,njs,naj->knsa", harmonics, elements, radial) * 4.0**-0.5
    torch.testing.assert_close(found, expected.flatten(2))


@pytest.mark.parametrize("l_along", [0, 1])
def test_a_later_density_sums_what_neighbours_send(neighborhood, l_along):
    """Scalars as a density; the degrees that fields have, weighed by distance, beside it."""
    torch.manual_seed(0)
    harmonics, distances = neighborhood
    settings = settings_of("gaunt", "small", SIZES | {"n_senders": 3, "l_along": l_along})
    later = Interaction(settings, 2, 5.0, 4.0, False).double()
    later.layer = Taken()
    scalars, directed = torch.randn(4, 6, 3).double(), torch.randn(4, 6, 3 * 3).double()
    found = later(harmonics, distances, scalars, directed, None, torch.zeros(4, dtype=torch.long))
    radial = later.radial(distances)
    fields = directed.view(4, 6, 3, 3)  # njks
    sent = scalars
    if l_along:
        sent = sent + torch.einsum("nkj,njks->njs", harmonics[:, 1:4], fields) / 3**0.5
    degree = torch.tensor(degrees(2))
    scalar_part, field_part = radial[:, : later.n_radial], radial[:, later.n_radial :]
    weights = later.density.weight[degree]
    expected = torch.einsum("kas,naj,nkj,njs->kns", weights, scalar_part, harmonics, sent)
    weights = later.average.weight[degree[1:4] - 1]
    expected[1:4] += torch.einsum("kas,naj,njks->kns", weights, field_part, fields)
    torch.testing.assert_close(found, expected * 4.0**-0.5)


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("shape", [(2, 1, 3), (5, 4, 2), (1, 3, 4)])
def test_written_out_are_the_same_values_in_order(dim, shape):
    values = torch.randn(shape, dtype=torch.float64).transpose(0, 2).requires_grad_()
    found = written_out(values, dim)
    assert torch.equal(found, values) and found.is_contiguous()
    assert torch.autograd.gradgradcheck(lambda v: written_out(v, dim).square(), [values])
