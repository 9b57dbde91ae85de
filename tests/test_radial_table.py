"""Tables of radial functions: close to the network, smooth, and zero from the radius on."""

import copy

import pytest
import torch

from eqpot.nn.radial import RadialNetwork
from eqpot.nn.radial_table import N_INTERVALS, RadialTable

R_MAX = 4.5


def network(dtype, seed=0, envelope_power=6):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RadialNetwork(R_MAX, 6, envelope_power).to(dtype).requires_grad_(False)


def value_and_slope(functions, distances):
    distances = distances.detach().requires_grad_(True)
    values = functions(distances)
    slopes = torch.stack(
        [
            torch.autograd.grad(values[:, a].sum(), distances, retain_graph=True)[0]
            for a in range(values.shape[1])
        ],
        dim=1,
    )
    return values.detach(), slopes


@pytest.mark.parametrize(
    ("dtype", "n_intervals", "bar", "slope_bar"),
    [(torch.float64, 8192, 1e-11, 1e-7), (torch.float32, N_INTERVALS, 3e-6, 3e-5)],
)
@pytest.mark.parametrize("envelope_power", [2, 3, 6])
def test_a_table_equals_its_network(dtype, n_intervals, bar, slope_bar, envelope_power):
    functions = network(dtype, envelope_power=envelope_power)
    exact = copy.deepcopy(functions).double()
    distances = torch.linspace(0.0, 1.1 * R_MAX, 5000, dtype=dtype)[None]
    values, slopes = value_and_slope(RadialTable(functions, n_intervals), distances)
    expected, expected_slopes = value_and_slope(exact, distances.double())
    scale = expected.abs().max()
    assert (values - expected).abs().max() < bar * scale
    assert (slopes - expected_slopes).abs().max() < slope_bar * scale


def test_the_error_falls_with_the_fourth_power():
    functions = network(torch.float64)
    distances = torch.linspace(0.1, R_MAX, 3001, dtype=torch.float64)[None]
    exact = functions(distances)
    coarse, fine = ((RadialTable(functions, n)(distances) - exact).abs().max() for n in (400, 800))
    assert 10 < coarse / fine < 24


@pytest.mark.parametrize("envelope_power", [2, 3, 6])
def test_nothing_is_left_at_the_radius_and_beyond(envelope_power):
    table = RadialTable(network(torch.float64, envelope_power=envelope_power), 8192)
    beyond = torch.tensor([[R_MAX, R_MAX + 1e-9, 2 * R_MAX, 50 * R_MAX]], dtype=torch.float64)
    values, slopes = value_and_slope(table, beyond)
    assert not values.any() and not slopes.any()
    inside = torch.tensor([[R_MAX * (1 - 1e-9)]], dtype=torch.float64)
    values, slopes = value_and_slope(table, inside)
    assert values.abs().max() < 1e-12 and slopes.abs().max() < 1e-6


def test_a_distance_that_is_no_number_gives_none():
    table = RadialTable(network(torch.float64))
    distances = torch.tensor([[float("nan"), float("inf"), 1.0]], dtype=torch.float64)
    values, slopes = (found[0] for found in value_and_slope(table, distances))
    assert not values[:, 0].isfinite().any() and not slopes[:, 0].isfinite().any()
    assert values[:, 2].isfinite().all() and slopes[:, 2].isfinite().all()


def test_a_second_derivative_is_refused_not_zero():
    distances = torch.tensor([[1.0, 2.0]], requires_grad=True)
    values = RadialTable(network(torch.float32))(distances)
    (slopes,) = torch.autograd.grad(values.square().sum(), distances, create_graph=True)
    with pytest.raises(RuntimeError, match="have one derivative"):
        torch.autograd.grad(slopes.sum(), distances)
