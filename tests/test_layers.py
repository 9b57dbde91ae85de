"""Layers of the flagship: where the gate is, and what readouts make of scalars."""

import pytest
import torch

from eqpot.models import settings_of
from eqpot.models.interactions import GauntLayer, Readout

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
