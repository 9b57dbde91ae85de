"""Compiled steps learn what plain steps learn."""

import json

import pytest
import torch

import eqpot.training.compiled
from eqpot.data import collate
from eqpot.training.compiled import CompiledLearner
from eqpot.training.recipe import TrainingSection
from potentials import graph_of, random_potential
from strategies import ordinary_set
from test_compilation import needs_compiler
from training_runs import quiet_run, recipe_of, write_frames

GRAPHS = [graph_of(atoms, 4.0) for atoms in ordinary_set().values()]


@pytest.fixture
def uncompiled(monkeypatch):
    """Let the traced graph run as it is: that is what is compiled."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


def gradient(potential, learner, graph):
    """Return the gradient of a loss of energies, forces and virials to the weights that learn."""
    outputs = learner(graph, training=True)
    loss = outputs["energy"].sin().sum() + (outputs["forces"] - 0.1).square().sum()
    loss = loss + outputs["virial"].square().sum()
    weights = [weight for weight in potential.parameters() if weight.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)])


def assert_near(found, expected, tolerance):
    # that of a lone atom is zero but for rounding
    assert (found - expected).norm() <= tolerance * max(1.0, expected.norm())


@pytest.mark.parametrize(("preset", "repulsion"), [("small", False), ("medium", True)])
def test_traced_gradient_is_the_plain_one(uncompiled, preset, repulsion):
    potential = random_potential(preset=preset, repulsion=repulsion).requires_grad_(True)
    learner = CompiledLearner(potential)
    for graph in [*GRAPHS, collate(GRAPHS)]:
        expected = gradient(potential, potential, graph)
        found = gradient(potential, learner.bound_to(potential), graph)
        assert_near(found, expected, 1e-12)


def test_code_serves_other_weights_of_the_kind(uncompiled):
    first, other = (random_potential(seed=seed).requires_grad_(True) for seed in (0, 1))
    learner = CompiledLearner(first)
    for potential in (other, first):
        found = gradient(potential, learner.bound_to(potential), GRAPHS[0])
        assert torch.allclose(found, gradient(potential, potential, GRAPHS[0]), rtol=1e-10)


def test_weights_that_do_not_learn_get_no_gradient(uncompiled):
    potential = random_potential()
    for head in potential.model.heads():
        head.requires_grad_(True)
    found = gradient(potential, CompiledLearner(potential).bound_to(potential), GRAPHS[0])
    assert torch.allclose(found, gradient(potential, potential, GRAPHS[0]), rtol=1e-10)


def test_a_gradient_that_differs_is_refused(monkeypatch):
    def forgetful(function, **_):
        return lambda weights, *inputs: function([0.999 * w for w in weights], *inputs)

    monkeypatch.setattr(torch, "compile", forgetful)
    with pytest.raises(RuntimeError, match=r"differs from the plain one by .*training\.compiled"):
        CompiledLearner(random_potential().requires_grad_(True))


def test_a_compiler_is_asked_for_first(monkeypatch):
    def absent():
        raise RuntimeError("compiling a potential needs a C++ compiler")

    monkeypatch.setattr(eqpot.training.compiled, "check_compiler", absent)
    with pytest.raises(RuntimeError, match="needs a C"):
        CompiledLearner(random_potential())


def test_reduced_precision_is_not_compiled():
    with pytest.raises(ValueError, match=r"`precision: bf16` needs `compiled: false`"):
        TrainingSection(precision="bf16", compiled=True)


def history(folder):
    return json.loads((folder / "metrics.json").read_text())["history"]


def test_run_learns_as_without(uncompiled, tmp_path):
    frames = write_frames(tmp_path / "frames.xyz")
    for name, compiled in (("plain", False), ("compiled", True)):
        quiet_run(recipe_of(frames, tmp_path / name, dtype="float64", compiled=compiled))
    plain, compiled = history(tmp_path / "plain"), history(tmp_path / "compiled")
    for name in ("train_loss", "energy_rmse", "forces_rmse", "virial_rmse"):
        assert len(plain[name]) > 1
        assert compiled[name] == pytest.approx(plain[name], rel=1e-9)
    log = (tmp_path / "compiled" / "train.log").read_text()
    assert "compiling: code for the steps" in log


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_compiled_gradient_is_the_plain_one_for_every_size(dtype):
    potential = random_potential(getattr(torch, dtype)).requires_grad_(True)
    compiled = CompiledLearner(potential).bound_to(potential)
    tolerance = {"float64": 1e-12, "float32": 1e-4}[dtype]
    pair = [graph for graph in GRAPHS if len(graph["positions"]) == 2]
    for graph in [*GRAPHS, *pair, collate(GRAPHS), collate(GRAPHS[:2])]:
        expected = gradient(potential, potential, graph)
        found = gradient(potential, compiled, graph)
        assert_near(found, expected, tolerance)
