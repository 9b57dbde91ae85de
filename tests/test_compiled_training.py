"""Compiled steps learn what plain steps learn."""

import copy
import json
import re

import pytest
import torch
from ase import Atoms

import eqpot.training.compiled
from eqpot.compiler import CompilationError
from eqpot.data import collate
from eqpot.training.compiled import CompiledGradient
from eqpot.training.low_rank import add_low_rank_updates
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
    monkeypatch.setattr(eqpot.training.compiled, "check_compiler", lambda: None)


def gradient(potential, computing, graph):
    """Return the gradient of a loss of energies, forces and virials to the weights that learn."""
    potential.zero_grad()
    outputs = computing(graph, training=True)
    loss = outputs["energy"].sin().sum() + (outputs["forces"] - 0.1).square().sum()
    loss = loss + outputs["virial"].square().sum()
    weights = [weight for weight in potential.parameters() if weight.requires_grad]
    loss.backward(inputs=weights)
    return torch.cat([weight.grad.flatten() for weight in weights])


def assert_alike(potential, compiled, graphs, tolerance):
    for graph in graphs:
        expected = gradient(potential, potential, graph)
        found = gradient(potential, compiled, graph)
        # that of a lone atom is zero but for rounding
        assert (found - expected).norm() <= tolerance * max(1.0, expected.norm())


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("small", {}),
        ("medium", {"repulsion": True}),
        ("small", {"n_radial": 24, "n_layers": 3}),  # two times 24 and 47 are sizes of tracing
        ("small", {"n_features": 47, "l_hidden": 0}),
        ("small", {"l_hidden": 2, "l_along": 1, "final_gate": False}),
        ("medium", {"l_hidden": 2, "l_along": 2}),
    ],
)
def test_traced_gradient_is_the_plain_one(uncompiled, preset, changes):
    potential = random_potential(preset=preset, **changes).requires_grad_(True)
    compiled = CompiledGradient(potential).bound_to(potential)
    assert_alike(potential, compiled, [*GRAPHS, collate(GRAPHS)], 1e-12)


def test_code_serves_copies_whose_weights_differ(uncompiled):
    potential = random_potential().requires_grad_(True)
    other = copy.deepcopy(potential)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.1)
    code = CompiledGradient(potential)
    for each in (other, potential):
        assert_alike(each, code.bound_to(each), GRAPHS[:1], 1e-12)
    other.reference_energies[0] += 1.0
    with pytest.raises(ValueError, match="must be a copy of the one"):
        code.bound_to(other)


def test_weights_that_do_not_learn_get_no_gradient(uncompiled):
    potential = random_potential()
    for head in potential.model.heads():
        head.requires_grad_(True)
    compiled = CompiledGradient(potential).bound_to(potential)
    assert_alike(potential, compiled, GRAPHS[:1], 1e-12)
    assert {p.requires_grad for p in potential.parameters()} == {True, False}
    assert all((p.grad is not None) == p.requires_grad for p in potential.parameters())


def test_low_rank_updates_learn_compiled(uncompiled):
    potential = random_potential().requires_grad_(True)
    add_low_rank_updates(potential, 2, 0)
    compiled = CompiledGradient(potential).bound_to(potential)
    assert_alike(potential, compiled, GRAPHS[:1], 1e-12)


@pytest.mark.parametrize("part", ["energy", "gradient"])
def test_code_that_differs_is_refused(uncompiled, monkeypatch, part):
    def spoil(function, **_):
        def spoiled(weights, *inputs):
            energies, *others = function(weights, *inputs)
            if part == "energy":
                return [energies + 1e-3, *others]
            return [energies, *(0.999 * o + 0.001 * o.detach() for o in others)]

        return spoiled

    monkeypatch.setattr(torch, "compile", spoil)
    with pytest.raises(CompilationError, match=rf"compiled {part} differs from the plain one by "):
        CompiledGradient(random_potential().requires_grad_(True))


@pytest.mark.parametrize("words", ["g++ was killed\nsignal 9", ""])
def test_a_failure_of_the_compiler_is_told(uncompiled, monkeypatch, words):
    def fail(*_, **__):
        raise RuntimeError(words)

    monkeypatch.setattr(torch, "compile", fail)
    first = re.escape(words.partition("\n")[0])
    with pytest.raises(CompilationError, match=rf"failed: RuntimeError: {first}; leave out"):
        CompiledGradient(random_potential().requires_grad_(True))


def test_a_run_without_compiler_ends_before_it_reads(tmp_path, monkeypatch):
    def absent():
        raise CompilationError("compiling needs a C++ compiler")

    monkeypatch.setattr(eqpot.training.compiled, "check_compiler", absent)
    with pytest.raises(CompilationError, match="needs a C"):
        quiet_run(recipe_of(tmp_path / "none.xyz", tmp_path / "out", compiled=True))
    assert not (tmp_path / "out").exists()


def test_gpus_and_reduced_precision_are_not_compiled():
    with pytest.raises(ValueError, match=r"for CPUs, and the device is cuda:0"):
        eqpot.training.compiled.check_compiled(torch.device("cuda:0"))
    with pytest.raises(ValueError, match=r"`compiled: true` needs `precision: full`, got bf16"):
        TrainingSection(precision="bf16", compiled=True)


def history(folder):
    return json.loads((folder / "metrics.json").read_text())["history"]


def test_run_learns_as_without(uncompiled, tmp_path):
    frames = write_frames(tmp_path / "frames.xyz")
    for name, compiled in (("plain", False), ("compiled", True)):
        own = {"dtype": "float64", "compiled": compiled, "edge_budget": 30}
        quiet_run(recipe_of(frames, tmp_path / name, **own))
    plain, compiled = history(tmp_path / "plain"), history(tmp_path / "compiled")
    for name in ("train_loss", "energy_rmse", "forces_rmse", "virial_rmse"):
        assert len(plain[name]) > 1
        assert compiled[name] == pytest.approx(plain[name], rel=1e-9)
    log = (tmp_path / "compiled" / "train.log").read_text()
    assert "compiling: code for the steps" in log
    assert "the gradient agrees with the plain one" in log


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n_threads", [1, 2], indirect=True)
def test_compiled_gradient_is_the_plain_one_for_every_size(dtype, n_threads):
    potential = random_potential(getattr(torch, dtype)).requires_grad_(True)
    compiled = CompiledGradient(potential).bound_to(potential)
    sizes = [Atoms("Si", [[0.1, 0.2, 0.3]]), Atoms("OH", [[0, 0, 0], [0, 0.6, 0.8]])]
    graphs = [*GRAPHS, *(graph_of(atoms, 4.0) for atoms in sizes)]
    graphs += [collate(GRAPHS), collate(20 * GRAPHS)]
    tolerance = {"float64": 1e-12, "float32": 1e-4}[dtype]
    assert_alike(potential, compiled, graphs, tolerance)
