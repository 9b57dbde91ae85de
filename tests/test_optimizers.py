"""Optimizers step as published, and continue from their state bit by bit."""

import json
import sys
from importlib.util import find_spec

import pytest
import torch
from ase.build import molecule
from pydantic import ValidationError
from torch import nn

from eqpot.nn.fields import DegreeLinear
from eqpot.training.muon import Muon
from eqpot.training.optimizers import (
    OptimizerSettings,
    build_optimizer,
    evaluation_weights,
    load_optimizer_state,
    optimizer_state,
)
from potentials import graph_of, random_potential

NEEDS_SCHEDULE_FREE = pytest.mark.skipif(
    find_spec("schedulefree") is None, reason='not installed: pip install "eqpot[schedulefree]"'
)
KINDS = [
    OptimizerSettings(kind="adam"),
    OptimizerSettings(kind="adam", amsgrad=False),
    OptimizerSettings(kind="adamw"),
    OptimizerSettings(kind="muon"),
    pytest.param(OptimizerSettings(kind="schedule_free"), marks=NEEDS_SCHEDULE_FREE),
]


def potential_of(seed):
    potential = random_potential(torch.float32, seed=seed, n_features=4, l_max=2)
    return potential.requires_grad_(True)


def take_steps(potential, optimizer, steps):
    """Learn the energy of a molecule, with a learning rate that changes."""
    graph = graph_of(molecule("CH3OH"), 4.0)
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 / (1 + step)
        optimizer.zero_grad(set_to_none=True)
        (potential(graph, training=True)["energy"].sum() * 1e-3 + step).square().backward()
        optimizer.step()


def weights_of(potential):
    return [parameter.detach().clone() for parameter in potential.parameters()]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: settings.kind)
@pytest.mark.parametrize("n_before", [0, 3])
def test_continued_optimizer_takes_the_same_steps(settings, n_before):
    whole = potential_of(0)
    optimizer = build_optimizer(whole, settings, 1e-3)
    take_steps(whole, optimizer, range(n_before))
    tensors, values = optimizer_state(optimizer)
    text = json.dumps(values, allow_nan=False)
    kept = {name: tensor.clone() for name, tensor in tensors.items()}

    continued = potential_of(1)
    continued.load_state_dict(whole.state_dict())
    fresh = build_optimizer(continued, settings, 0.5)
    load_optimizer_state(fresh, tensors, json.loads(text))
    before = weights_of(whole)
    for potential, its in ((whole, optimizer), (continued, fresh)):
        take_steps(potential, its, range(n_before, n_before + 5))
    assert equal(weights_of(whole), weights_of(continued))
    moved = [
        not torch.equal(a, b) for a, b in zip(before, weights_of(whole), strict=True)
    ]  # those of elements that the molecule lacks stay
    assert sum(moved) > 0.9 * len(moved)
    assert equal(kept.values(), tensors.values())  # the state is a copy
    assert all(tensor.device.type == "cpu" for tensor in tensors.values())


@pytest.mark.parametrize("settings", KINDS[2:], ids=lambda settings: settings.kind)
def test_only_matrices_decay(settings):
    """Without gradient a step is decay alone: by the factor 1 - rate · decay, for matrices."""
    settings = settings.model_copy(update={"weight_decay": 0.5})
    potential = potential_of(0)
    matrices = {
        id(part.weight)
        for part in potential.modules()
        if isinstance(part, nn.Linear | DegreeLinear)
    }
    before = weights_of(potential)
    optimizer = build_optimizer(potential, settings, 0.1)
    for parameter in potential.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    with evaluation_weights(optimizer):
        for old, parameter in zip(before, potential.parameters(), strict=True):
            factor = 0.95 if id(parameter) in matrices else 1.0
            assert torch.allclose(parameter, factor * old, rtol=1e-6, atol=0.0)
    assert 0 < len(matrices) < len(before)


def test_muon_makes_steps_of_equal_size_in_all_directions():
    """The step of each matrix G = U S Vᵀ of a stack is near -0.2 · rate · √(longer side) · U Vᵀ.

    The iteration brings singular values into 0.68..1.13 (Jordan et al.). Along G, the step is then
    as long as its singular values sum to, within the same bounds.
    """
    layer = DegreeLinear(2, 6, 4)
    before = layer.weight.detach().clone()
    both = nn.ModuleList([layer, nn.Linear(3, 3)])
    optimizer = build_optimizer(both, OptimizerSettings(kind="muon", weight_decay=0.0), 0.1)
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(before.shape, generator=generator)
    gradient[1] *= 1e3
    layer.weight.grad = gradient.clone()
    optimizer.step()
    step = (before - layer.weight.detach()) / (0.1 * 0.2 * 6**0.5)
    along = (step * gradient).sum(dim=(1, 2)) / torch.linalg.svdvals(gradient).sum(dim=1)
    for values in (torch.linalg.svdvals(step), along):
        assert values.min() > 0.67
        assert values.max() < 1.14


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_muon_takes_the_steps_of_the_muon_of_torch(shape):
    """For each matrix of a stack, but for the bfloat16 in which torch iterates."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, *shape, generator=generator)
    stack = nn.Parameter(start.clone())
    single = [nn.Parameter(matrix.clone()) for matrix in start]
    settings = {"lr": 0.1, "weight_decay": 0.3, "momentum": 0.9}
    ours = Muon([stack], **settings)
    theirs = torch.optim.Muon(single, **settings, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        stack.grad = torch.randn(3, *shape, generator=generator)
        for index, matrix in enumerate(single):
            matrix.grad = stack.grad[index].clone()
        ours.step()
        theirs.step()
    error = (stack - torch.stack(list(single))).norm() / (stack - start).norm()
    assert error < 0.02


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (OptimizerSettings(), 0.99),
        (OptimizerSettings(beta1=0.95), 0.95),
        (OptimizerSettings(kind="adam"), 0.9),
        (OptimizerSettings(kind="adamw", beta1=0.8), 0.8),
        pytest.param(OptimizerSettings(kind="schedule_free"), 0.9, marks=NEEDS_SCHEDULE_FREE),
    ],
)
def test_decay_of_the_mean_of_gradients(settings, expected):
    """It is the same for all weights: 0.99 with muon, 0.9 with others, or what the recipe gives."""
    optimizer = build_optimizer(potential_of(0), settings, 1e-3)
    parts = [optimizer]
    if settings.kind == "muon":
        parts = [optimizer.parts["muon"], optimizer.parts["adam"]]
    for part in parts:
        for group in part.param_groups:
            assert (group["momentum"] if "momentum" in group else group["betas"][0]) == expected


def test_muon_leaves_rows_to_adam():
    """A readout has one row, and a first step of Adam has the size of the rate in each weight."""
    parts = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 1, bias=False)])
    optimizer = build_optimizer(parts, OptimizerSettings(kind="muon", weight_decay=0.0), 0.1)
    before = weights_of(parts)
    for parameter in parts.parameters():
        parameter.grad = torch.arange(1.0, 1.0 + parameter.numel()).view_as(parameter)
    optimizer.step()
    assert torch.allclose(before[1] - parts[1].weight, torch.tensor(0.1), rtol=1e-5)
    assert not torch.allclose(before[0] - parts[0].weight, torch.tensor(0.1), rtol=0.1)


@NEEDS_SCHEDULE_FREE
def test_evaluation_weights_of_schedule_free_are_the_average():
    """x is the mean of the points z, weighted equally while the learning rate is constant."""
    layer = nn.Linear(30, 20, bias=False, dtype=torch.float64)
    optimizer = build_optimizer(
        layer, OptimizerSettings(kind="schedule_free", weight_decay=0.0), 0.01
    )
    generator = torch.Generator().manual_seed(0)
    points = []
    for _ in range(20):
        layer.weight.grad = torch.randn(20, 30, generator=generator, dtype=torch.float64)
        optimizer.step()
        points.append(optimizer.state[layer.weight]["z"].clone())
    weights = layer.weight.detach().clone()
    with evaluation_weights(optimizer):
        assert torch.allclose(layer.weight, torch.stack(points).mean(dim=0), rtol=1e-9)
    assert torch.equal(layer.weight, weights)
    layer.weight.grad = torch.zeros_like(weights)
    optimizer.step()  # still in training


def test_a_frozen_parameter_stays():
    for settings in (OptimizerSettings(kind="adam"), OptimizerSettings(kind="muon")):
        potential = potential_of(0)
        frozen = [*potential.model.first.radial.parameters()]
        for parameter in frozen:
            parameter.requires_grad_(False)
        before = [parameter.clone() for parameter in frozen]
        optimizer = build_optimizer(potential, settings, 1e-2)
        take_steps(potential, optimizer, range(2))
        assert equal(before, frozen)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_state_of_another_optimizer_is_refused(kind):
    potential = potential_of(0)
    optimizer = build_optimizer(potential, OptimizerSettings(kind="adam"), 1e-3)
    take_steps(potential, optimizer, range(1))
    other = build_optimizer(potential, OptimizerSettings(kind=kind), 1e-3)
    with pytest.raises(ValueError, match="another kind of optimizer"):
        load_optimizer_state(other, *optimizer_state(optimizer))
    with pytest.raises(ValueError, match="another kind of optimizer"):
        load_optimizer_state(optimizer, *optimizer_state(other))


def test_state_of_other_parameters_is_refused():
    settings = OptimizerSettings(kind="adam")
    small, large = nn.Linear(2, 3), nn.Linear(2, 4)
    optimizer = build_optimizer(small, settings, 1e-3)
    for parameter in small.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    tensors, values = optimizer_state(optimizer)
    with pytest.raises(ValueError, match=r"`exp_avg` of parameter 0 .* \(4, 2\), got \(3, 2\)"):
        load_optimizer_state(build_optimizer(large, settings, 1e-3), tensors, values)
    with pytest.raises(ValueError, match="is of 2 parameters, the potential has 1"):
        load_optimizer_state(
            build_optimizer(nn.Linear(2, 3, bias=False), settings, 1e-3), tensors, values
        )
    del tensors["state.1.exp_avg"]
    with pytest.raises(ValueError, match=r"lacks `state\.1\.exp_avg`"):
        load_optimizer_state(optimizer, tensors, values)


def test_decay_of_adam_is_refused():
    with pytest.raises(ValidationError, match=r"`weight_decay` .* with adam, got 0\.1"):
        OptimizerSettings(kind="adam", weight_decay=0.1)


def test_missing_library_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    with pytest.raises(ValueError, match=r'pip install "eqpot\[schedulefree\]"'):
        build_optimizer(nn.Linear(2, 2), OptimizerSettings(kind="schedule_free"), 1e-3)


@pytest.mark.parametrize("kept", ["matrices", "others"])
def test_muon_trains_whatever_there_is(kept):
    """Heads or low-rank updates alone leave it matrices alone, or none."""
    module = torch.nn.Linear(3, 2)
    frozen = module.bias if kept == "matrices" else module.weight
    frozen.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = build_optimizer(module, OptimizerSettings(kind="muon"), 0.1)
    module(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name]) == (parameter is frozen)
