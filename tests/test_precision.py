"""Reduced precision stays where it belongs, does its work, and leaves nothing behind."""

import pytest
import torch

from eqpot.data import collate
from eqpot.nn.fields import DegreeLinear
from eqpot.so3 import SphereProduct
from eqpot.training.precision import network_precision
from potentials import graph_of, random_potential
from strategies import ordinary_set


@pytest.fixture(scope="module")
def graph():
    return collate([graph_of(atoms, 4.0) for atoms in ordinary_set().values()])


def potential_of(dtype=torch.float32):
    return random_potential(dtype).requires_grad_(True)


def forces_and_gradient(potential, graph, precision):
    """Return outputs, and the gradient of a loss of forces, which needs second derivatives."""
    potential.zero_grad()
    with network_precision(potential, precision):
        outputs = potential(graph, training=True)
        outputs["forces"].square().sum().backward()
    gradients = [p.grad.flatten() for p in potential.parameters() if p.grad is not None]
    return outputs, torch.cat(gradients).double()


def test_bf16_is_near_float32_and_energies_stay_float64(graph):
    """bfloat16 rounds to 2⁻⁹; a chain of products, and their derivative, adds up to percents."""
    potential = potential_of()
    full, gradient = forces_and_gradient(potential, graph, "full")
    reduced, gradient_reduced = forces_and_gradient(potential, graph, "bf16")
    assert {reduced[name].dtype for name in ("energy", "forces", "stress")} == {torch.float64}
    error = (reduced["forces"] - full["forces"]).norm() / full["forces"].norm()
    assert 1e-5 < error < 0.05
    cosine = gradient @ gradient_reduced / gradient.norm() / gradient_reduced.norm()
    assert 0.99 < cosine < 1.0
    assert torch.allclose(
        reduced["forces"].sum(dim=0), full["forces"].sum(dim=0), atol=1e-9
    )  # forces still sum to what they did: zero


def test_bf16_is_for_the_mixing_of_channels_alone(graph):
    potential = potential_of()
    seen = set()

    def look(part, inputs, output):
        seen.update(tensor.dtype for tensor in (*inputs, output))
        seen.add(torch.is_autocast_enabled("cpu"))

    for part in potential.modules():
        if isinstance(part, SphereProduct):
            part.register_forward_hook(look)
    forces_and_gradient(potential, graph, "bf16")
    assert seen == {torch.float32, False}


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_nothing_is_left_behind(graph, precision):
    potential = potential_of()
    before, _ = forces_and_gradient(potential, graph, "full")
    flag = torch.backends.cuda.matmul.fp32_precision
    mixing = next(part for part in potential.modules() if isinstance(part, DegreeLinear))
    inside = []

    def fail():
        with network_precision(potential, precision):
            inside.append(torch.backends.cuda.matmul.fp32_precision)
            mixing(torch.zeros(1, 2, 3))  # the product fails

    with pytest.raises(RuntimeError):
        fail()
    assert inside == ["tf32" if precision == "tf32" else flag]
    assert torch.backends.cuda.matmul.fp32_precision == flag
    assert not torch.is_autocast_enabled("cpu")
    for part in potential.modules():
        if isinstance(part, DegreeLinear):
            assert not part._forward_hooks
            assert not part._forward_pre_hooks
    after, _ = forces_and_gradient(potential, graph, "full")
    assert torch.equal(before["forces"], after["forces"])


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_float64_is_not_reduced(graph, precision):
    with pytest.raises(ValueError, match=r"needs `training\.dtype: float32`, got float64"):
        forces_and_gradient(potential_of(torch.float64), graph, precision)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_reduced_precision_on_a_device(graph, precision):
    potential = potential_of().to("cuda")
    graph = {name: tensor.to("cuda") for name, tensor in graph.items()}
    full, _ = forces_and_gradient(potential, graph, "full")
    reduced, _ = forces_and_gradient(potential, graph, precision)
    error = (reduced["forces"] - full["forces"]).norm() / full["forces"].norm()
    assert 1e-6 < error < 0.05
