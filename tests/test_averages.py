"""Averages are those of their formulas, and continue from their state bit by bit."""

import json

import pytest
import torch
from torch import nn

from eqpot.training.averages import AverageSettings, BestWeights, build_average

N_STEPS = 41
KINDS = [AverageSettings(kind=kind, start=0.5) for kind in ("ema", "swa", "none")]


def walk(module, steps):
    """Yield the weights of each step, which jump at random."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
        yield module.weight.detach().clone()


def average_of(settings, module):
    return build_average(settings, 0.9, module, N_STEPS)


def test_mean_begins_at_its_start():
    module = nn.Linear(3, 2, bias=False)
    average = average_of(KINDS[1], module)
    seen = []
    for step, weight in enumerate(walk(module, range(N_STEPS))):
        average.update(module)
        seen.append(weight.double())
        expected = torch.stack(seen[20:]).mean(dim=0) if step >= 20 else seen[-1]
        assert torch.allclose(average.module.weight.double(), expected, rtol=1e-6, atol=1e-7)


def test_mean_does_not_stand_still_in_rounding():
    """A weight of 1 that becomes 1 + 2⁻²⁰ for half of 2¹⁴ steps has the mean 1 + 2⁻²¹."""
    module = nn.Linear(1, 1, bias=False)
    average = build_average(AverageSettings(kind="swa", start=0.0), 0.9, module, 2**14)
    for step in range(2**14):
        with torch.no_grad():
            module.weight.fill_(1.0 if step < 2**13 else 1.0 + 2.0**-20)
        average.update(module)
    assert average.module.weight.item() == 1.0 + 2.0**-21


def test_moving_average_forgets_the_start_and_then_decays():
    """With the share s_n of the new value at step n, the average is a product of 1 - s."""
    module = nn.Linear(3, 2, bias=False)
    average = average_of(KINDS[0], module)
    expected = module.weight.detach().double()
    for n, weight in enumerate(walk(module, range(N_STEPS)), start=1):
        average.update(module)
        kept = min(0.9, n / (n + 20))
        expected = kept * expected + (1 - kept) * weight.double()
    assert torch.allclose(average.module.weight.double(), expected, rtol=1e-5)


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: settings.kind)
@pytest.mark.parametrize("n_before", [0, 7, 30])
def test_continued_average_is_the_same(settings, n_before):
    module = nn.Linear(3, 2, bias=False)
    whole = average_of(settings, module)
    for _ in walk(module, range(n_before)):
        whole.update(module)
    tensors, values = whole.state()
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    values = json.loads(json.dumps(values, allow_nan=False))
    continued = average_of(settings, nn.Linear(3, 2, bias=False))
    continued.load_state(tensors, values)
    assert torch.equal(whole.module.weight, continued.module.weight)
    for _ in walk(module, range(n_before, N_STEPS)):
        whole.update(module)
        continued.update(module)
        assert torch.equal(whole.module.weight, continued.module.weight)
    assert all(torch.equal(kept[name], tensors[name]) for name in kept)  # a copy


def test_best_weights_are_those_of_the_lowest_metric():
    module = nn.Linear(3, 2, bias=False)
    best = BestWeights(module)
    weights = []
    for step, (metric, weight) in enumerate(
        zip((3.0, float("nan"), 1.0, 1.0, 2.0), walk(module, range(5)), strict=True)
    ):
        weights.append(weight)
        assert best.observe(metric, step, module) == (step in (0, 2))
    again = BestWeights(nn.Linear(3, 2, bias=False))
    tensors, values = best.state()
    again.load_state(tensors, json.loads(json.dumps(values)))
    for found in (best, again):
        assert torch.equal(found.module.weight, weights[2])
        assert (found.metric, found.step) == (1.0, 2)
    assert not again.observe(1.5, 9, module)


def test_state_of_another_module_is_refused():
    average = average_of(KINDS[0], nn.Linear(3, 2, bias=False))
    with pytest.raises(ValueError, match="differ in bias"):
        average.load_state(*average_of(KINDS[0], nn.Linear(3, 2)).state())
    with pytest.raises(ValueError, match=r"`weight` must have shape \(2, 3\), got \(2, 4\)"):
        average.load_state(*average_of(KINDS[0], nn.Linear(4, 2, bias=False)).state())
