"""A deployed model gives what the trained one gives, and cannot be told from it by its forces."""

import pytest
import torch
from ase.build import bulk

from eqpot import keys
from eqpot.files import save_potential
from eqpot.models import PRESETS
from eqpot.models.chunks import ChunkedModel
from eqpot.models.deployment import deployed
from eqpot.nn.fields import DegreeLinear
from eqpot.nn.radial import RadialNetwork
from eqpot.program import OUTPUTS
from potentials import graph_of, random_potential


@pytest.fixture(scope="module")
def alloy():
    atoms = bulk("Si", cubic=True)
    atoms.numbers[::3] = 6
    atoms.rattle(0.1, seed=2)
    return atoms


def largest_differences(found, expected):
    scale = {name: max(1.0, expected[name].abs().max().item()) for name in OUTPUTS}
    return {n: (found[n] - expected[n]).abs().max().item() / scale[n] for n in OUTPUTS}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_layers": 3, "l_hidden": 2, "l_along": 2},
        {"n_element_channels": 2, "final_gate": False},
    ],
)
def test_the_same_to_rounding_in_float64(changes, alloy):
    potential = random_potential(**changes)
    graph = graph_of(alloy, potential.r_max)
    model = deployed(potential.model)
    found = potential.with_model(model)(graph)
    assert max(largest_differences(found, potential(graph)).values()) < 1e-14
    assert not any(isinstance(m, DegreeLinear) for m in model.modules())
    assert any(isinstance(m, RadialNetwork) for m in model.modules())


def test_the_same_to_rounding_in_float32(alloy):
    exact = random_potential()
    potential = random_potential().float()
    potential.load_state_dict(exact.state_dict())
    graph = graph_of(alloy, potential.r_max)
    model = deployed(potential.model)
    assert not any(isinstance(m, RadialNetwork) for m in model.modules())
    truth = exact(graph)
    own = largest_differences(potential(graph), truth)
    found = largest_differences(potential.with_model(model)(graph), truth)
    for name in OUTPUTS:
        assert found[name] < 3 * own[name] + 1e-6, name


def test_the_trained_model_is_left_alone(alloy):
    potential = random_potential().requires_grad_(True)
    before = {name: value.clone() for name, value in potential.state_dict().items()}
    kinds = [type(module) for module in potential.modules()]
    model = deployed(potential.model)
    assert not any(weight.requires_grad for weight in model.parameters())
    assert all(weight.requires_grad for weight in potential.model.later.parameters())
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.zero_()
    assert [type(module) for module in potential.modules()] == kinds
    for name, value in potential.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_it_is_computed_in_chunks_and_scripted(alloy):
    potential = random_potential()
    graph = graph_of(alloy, potential.r_max)
    expected = potential(graph)
    model = deployed(potential.model)
    chunked = potential.with_model(ChunkedModel(model, 40))(graph)
    assert max(largest_differences(chunked, expected).values()) < 1e-12
    scripted = torch.jit.script(potential.with_model(model))
    assert max(largest_differences(scripted(graph), expected).values()) < 1e-12


def test_it_is_not_saved(alloy, tmp_path):
    potential = random_potential()
    with pytest.raises(ValueError, match=r"`potential\.model` is deployed"):
        save_potential(tmp_path / "p.eqpot", potential.with_model(deployed(potential.model)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_in_float64(preset, alloy):
    settings = PRESETS[preset].as_dict()
    potential = random_potential(**settings)
    graph = graph_of(alloy, potential.r_max)
    found = potential.with_model(deployed(potential.model))(graph)
    assert max(largest_differences(found, potential(graph)).values()) < 1e-14
    assert found[keys.FORCES].abs().max() > 1e-3
