"""The loss counts what is there, as it says, and does not depend on how a batch is split."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eqpot import keys
from eqpot.graph import batch_graphs
from eqpot.training.loss import (
    LABELS,
    LossSettings,
    LossWeights,
    combine,
    label_totals,
    loss_sums,
)

WEIGHTS = LossWeights(1.0, 2.0, 3.0)
UNIT = 0.7
KINDS = [
    LossSettings(energy=energy, forces=forces, stress=energy, forces_delta=0.4, energy_delta=0.1)
    for energy, forces in (
        ("mse", "mse"), ("mae", "mae"), ("huber", "huber"), ("mse", "conditioned"), ("mae", "l2"),
    )
]  # fmt: skip


def frame(seed, n_atoms, absent=()):
    """Return the labels of a frame, random; ``absent`` names those that it does not carry."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    graph = {
        keys.POSITIONS: random(n_atoms, 3),
        keys.CELL: (4.0 * torch.eye(3, dtype=torch.float64) + 0.2 * random(3, 3))[None],
        keys.BATCH: torch.zeros(n_atoms, dtype=torch.long),
        keys.EDGE_INDEX: torch.zeros(2, 0, dtype=torch.long),
        keys.ENERGY: random(1),
        keys.FORCES: random(n_atoms, 3) * 10.0 ** random(n_atoms, 1).abs(),
        keys.STRESS: 0.1 * random(1, 3, 3),
        keys.WEIGHT: random(1).abs() + 0.1,
        keys.ATOM_WEIGHT: random(n_atoms).abs(),
    }
    for name in absent:
        graph[name] = torch.full_like(graph[name], torch.nan)
    return graph


FRAMES = [
    frame(0, 3),
    frame(1, 1, [keys.FORCES]),
    frame(2, 5, [keys.STRESS]),
    frame(3, 2, [keys.ENERGY, keys.STRESS]),
    frame(4, 4, LABELS),
    frame(5, 6),
]
FRAMES[5][keys.FORCES][2, 1] = torch.nan  # one component of one atom
FRAMES[5][keys.ATOM_WEIGHT][0] = 0.0


def outputs_of(graph, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(graph[name].shape, generator=generator, dtype=torch.float64)
        for name in LABELS
    }


def whole(outputs, graph, settings, weights=WEIGHTS):
    return combine(loss_sums(outputs, graph, UNIT, settings), label_totals(graph), weights)


def value_and_gradient(outputs, function):
    leaves = {name: output.clone().requires_grad_() for name, output in outputs.items()}
    loss = function(leaves)
    gradient = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return loss.detach(), gradient


def by_hand(kind, x, delta):
    """Return the error of one component by its definition."""
    if kind == "mse":
        return x * x
    if kind == "mae":
        return abs(x)
    return x * x / 2 if abs(x) <= delta else delta * (abs(x) - delta / 2)


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: settings.forces)
def test_loss_is_that_of_its_formula(settings):
    """Frame by frame, component by component, in plain numbers."""
    graph = batch_graphs(FRAMES)
    outputs = outputs_of(graph)
    loss, gradient = value_and_gradient(outputs, lambda leaves: whole(leaves, graph, settings))
    numerators, denominators = dict.fromkeys(LABELS, 0.0), dict.fromkeys(LABELS, 0.0)

    def add(name, weight, value):
        numerators[name] += weight * value
        denominators[name] += weight

    first = 0
    for index, part in enumerate(FRAMES):
        n_atoms = len(part[keys.POSITIONS])
        weight = float(part[keys.WEIGHT])
        volume = abs(float(torch.linalg.det(part[keys.CELL])))
        energy = float(outputs[keys.ENERGY][index] - part[keys.ENERGY][0]) / n_atoms / UNIT
        if energy == energy:
            add(keys.ENERGY, weight, by_hand(settings.energy, energy, settings.energy_delta / UNIT))
        stress = (outputs[keys.STRESS][index] - part[keys.STRESS][0]) * volume / n_atoms / UNIT
        for x in stress.flatten().tolist():
            if x == x:
                add(keys.STRESS, weight, by_hand(settings.stress, x, settings.stress_delta / UNIT))
        for atom in range(n_atoms):
            reference = part[keys.FORCES][atom]
            error = ((outputs[keys.FORCES][first + atom] - reference) / UNIT).tolist()
            present = [x for x in error if x == x]
            delta = settings.forces_delta / UNIT
            if settings.forces == "conditioned":
                size = sum(x * x for x in reference.tolist() if x == x) ** 0.5
                delta *= 1.0 if size < 100 else 0.7 if size < 200 else 0.4 if size < 300 else 0.1
            for x in present:
                if settings.forces == "l2":
                    value = sum(y * y for y in present) ** 0.5
                else:
                    value = by_hand(settings.forces, x, delta)
                add(keys.FORCES, weight * float(part[keys.ATOM_WEIGHT][atom]), value)
        first += n_atoms
    expected = sum(
        getattr(WEIGHTS, name) * numerators[name] / denominators[name] for name in LABELS
    )
    assert float(loss) == pytest.approx(expected, rel=1e-13)
    for name, part in zip(LABELS, gradient, strict=True):
        assert torch.isfinite(part).all()
        assert (part[graph[name].isnan()] == 0).all()


@pytest.mark.parametrize(
    ("size", "factor"), [(99.9, 1.0), (100.0, 0.7), (199.9, 0.7), (200.0, 0.4), (300.0, 0.1)]
)
def test_conditioned_delta_falls_with_the_reference_force(size, factor):
    """Far from the reference, the slope of a Huber loss is its delta."""
    graph = batch_graphs([frame(0, 1)])
    graph[keys.FORCES] = torch.tensor([[0.0, 0.6 * size, -0.8 * size]], dtype=torch.float64)
    outputs = outputs_of(graph)
    outputs[keys.FORCES] = graph[keys.FORCES] + 50.0
    settings = LossSettings(forces="conditioned", forces_delta=0.02)
    _, gradient = value_and_gradient(
        outputs, lambda leaves: loss_sums(leaves, graph, 1.0, settings)[keys.FORCES]
    )
    weight = graph[keys.WEIGHT] * graph[keys.ATOM_WEIGHT]
    assert torch.allclose(gradient[1] / weight, torch.tensor(0.02 * factor).double(), rtol=1e-12)


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: settings.forces)
@given(places=st.lists(st.integers(0, 3), min_size=len(FRAMES), max_size=len(FRAMES)))
def test_split_batch_has_one_loss_and_gradient(settings, places):
    """Parts are given by the place of each frame: any number of them, of any content."""
    order = sorted(range(len(FRAMES)), key=lambda index: places[index])
    graph = batch_graphs([FRAMES[index] for index in order])
    outputs = outputs_of(graph)
    loss, gradient = value_and_gradient(outputs, lambda leaves: whole(leaves, graph, settings))
    parts = [
        batch_graphs([FRAMES[index] for index in order if places[index] == place])
        for place in sorted(set(places))
    ]
    totals = [label_totals(part) for part in parts]
    total = {name: torch.stack([t[name] for t in totals]).sum() for name in LABELS}

    def in_parts(leaves):
        pieces = {
            name: leaf.split([len(part[name]) for part in parts]) for name, leaf in leaves.items()
        }
        return sum(
            combine(
                loss_sums(
                    {name: pieces[name][index] for name in LABELS}, part, UNIT, settings
                ),
                total,
                WEIGHTS,
            )
            for index, part in enumerate(parts)
        )  # fmt: skip

    loss_in_parts, gradient_in_parts = value_and_gradient(outputs, in_parts)
    assert abs(loss - loss_in_parts) <= 1e-12 * abs(loss)
    for one, other in zip(gradient, gradient_in_parts, strict=True):
        assert (one - other).abs().max() <= 1e-12 * one.abs().max()


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: settings.forces)
@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_missing_labels_do_not_count(settings, bad):
    """Loss and gradient are those of the frames that carry the label, whatever is predicted."""
    graph = batch_graphs(FRAMES)
    outputs = outputs_of(graph)
    for name in LABELS:
        outputs[name][graph[name].isnan()] = bad
    for name in LABELS:
        weights = LossWeights(**{label: float(label == name) for label in LABELS})
        _, gradient = value_and_gradient(
            outputs, lambda leaves, name=name: loss_sums(leaves, graph, UNIT, settings)[name]
        )
        present = [index for index, part in enumerate(FRAMES) if not part[name].isnan().all()]
        rows = torch.isin(graph[keys.BATCH], torch.tensor(present))
        few = batch_graphs([FRAMES[index] for index in present])
        chosen = {
            label: output[rows if label == keys.FORCES else torch.tensor(present)]
            for label, output in outputs.items()
        }
        _, alone = value_and_gradient(
            chosen, lambda leaves, few=few, name=name: loss_sums(leaves, few, UNIT, settings)[name]
        )
        column = LABELS.index(name)
        assert torch.isfinite(gradient[column]).all()
        kept = gradient[column][rows if name == keys.FORCES else torch.tensor(present)]
        assert (kept - alone[column]).abs().max() <= 1e-12 * alone[column].abs().max()
        assert float(label_totals(graph)[name]) == pytest.approx(
            float(label_totals(few)[name]), rel=1e-12
        )
        assert torch.isfinite(whole(chosen, few, settings, weights))


def test_a_label_that_no_frame_carries_adds_nothing():
    graph = batch_graphs([frame(0, 3, [keys.STRESS]), frame(1, 2, [keys.STRESS])])
    outputs = outputs_of(graph)
    loss, gradient = value_and_gradient(outputs, lambda leaves: whole(leaves, graph, KINDS[0]))
    without, _ = value_and_gradient(
        outputs, lambda leaves: whole(leaves, graph, KINDS[0], LossWeights(1.0, 2.0, 0.0))
    )
    assert float(label_totals(graph)[keys.STRESS]) == 0.0
    assert loss == without
    assert (gradient[2] == 0).all()


def test_length_of_a_force_error_does_not_turn():
    """Of the absolute errors, only "l2" is the same in every orientation."""
    graph = batch_graphs([frame(0, 3), frame(5, 6)])
    outputs = outputs_of(graph)
    turn, _ = torch.linalg.qr(frame(7, 3)[keys.POSITIONS])
    turned = graph | {keys.FORCES: graph[keys.FORCES] @ turn}
    outputs_turned = outputs | {keys.FORCES: outputs[keys.FORCES] @ turn}
    for kind, same in (("l2", True), ("mae", False)):
        settings = LossSettings(forces=kind)
        one = loss_sums(outputs, graph, UNIT, settings)[keys.FORCES]
        other = loss_sums(outputs_turned, turned, UNIT, settings)[keys.FORCES]
        assert (abs(float(one - other)) <= 1e-12 * float(one)) == same


@pytest.mark.parametrize("kind", ["mae", "l2", "huber", "conditioned"])
def test_an_exact_prediction_has_a_finite_gradient(kind):
    graph = batch_graphs([frame(0, 3)])
    outputs = {name: graph[name].clone() for name in LABELS}
    _, gradient = value_and_gradient(
        outputs, lambda leaves: whole(leaves, graph, LossSettings(forces=kind))
    )
    assert (gradient[1] == 0).all()
