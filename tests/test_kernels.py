"""Compiled code for the CPU: layers over chunks of atoms, by threads, as the whole at once."""

import itertools
import threading

import numpy as np
import pytest
import torch
from ase.build import bulk

import eqpot.kernels.sweep
import eqpot.kernels.team
from agreement import assert_agrees
from eqpot.compilation import CompiledPotential
from eqpot.files import describe
from eqpot.kernels.compiling import functions_of, trace
from eqpot.kernels.layers import Layer, Widths
from eqpot.kernels.splitting import split
from eqpot.kernels.sweep import StagedKernel, chunks_of, function_names
from eqpot.kernels.team import Team
from eqpot.models.deployment import deployed
from potentials import graph_of, random_potential


def staged(potential):
    """Return the potential around the functions of its layers, which are not compiled."""
    graphs = {name: function.graph for name, function in functions_of(potential).items()}
    assert list(graphs) and set(graphs) == set(function_names(len(potential.model.later) + 1))
    codes = {name: lambda inputs, g=graph: list(g(*inputs)) for name, graph in graphs.items()}
    kernel = StagedKernel(codes, Widths(potential.model.settings, potential.anchor.dtype))
    return CompiledPotential(kernel, describe(potential), potential.anchor.device)


@pytest.fixture
def threads():
    """Let PyTorch use as many threads as before, after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_layers": 1},
        {"n_layers": 3, "l_hidden": 2, "l_along": 2, "final_gate": False},
        {"n_layers": 3, "l_hidden": 0, "correlation": 1},
    ],
    ids=["two layers", "one layer", "three layers", "scalars sent"],
)
def test_layers_over_chunks_compute_as_the_potential(changes, threads, monkeypatch):
    """In chunks of few atoms, whose neighbours are in others; again from the same buffers."""
    monkeypatch.setattr(eqpot.kernels.sweep, "SLOTS_OF_CHUNK", 48)
    monkeypatch.setattr(eqpot.kernels.sweep, "_FEWEST", 2)
    potential = random_potential(repulsion=True, **changes)
    compiled = staged(potential)
    graphs = [graph_of(bulk("Si", cubic=True) * size, potential.r_max) for size in (1, (2, 1, 1))]
    for n_threads in (1, 3, 2):
        threads(n_threads)
        assert_agrees(compiled, potential, 1e-13)
        for graph in (*graphs, graphs[0]):
            found, expected = compiled(graph), potential(graph)
            assert (found["forces"] - expected["forces"]).abs().max() < 1e-12
        assert torch.get_num_threads() == n_threads


def test_results_do_not_change_with_the_next_call(monkeypatch):
    monkeypatch.setattr(eqpot.kernels.sweep, "SLOTS_OF_CHUNK", 48)
    potential = random_potential()
    compiled = staged(potential)
    graph = graph_of(bulk("Si", cubic=True), potential.r_max)
    first = compiled(graph)
    before = {name: value.clone() for name, value in first.items()}
    graph["positions"] = graph["positions"] + 0.1 * torch.eye(8, 3)
    second = compiled(graph)
    assert not torch.equal(second["forces"], first["forces"])
    assert all(torch.equal(value, before[name]) for name, value in first.items())


def test_every_atom_is_in_one_chunk():
    for n_atoms, n_slots, n_threads in itertools.product(
        (1, 2, 7, 16, 21, 192, 1001), (16, 64, 4096), (1, 2, 3, 64)
    ):
        chunks = chunks_of(n_atoms, n_slots, n_threads)
        covered = np.concatenate([np.arange(c.start, c.stop) for c in chunks])
        assert covered.tolist() == list(range(n_atoms))
        sizes = [c.stop - c.start for c in chunks]
        assert max(sizes) - min(sizes) <= 1
        assert len(chunks) == 1 or min(sizes) >= 8
    assert len(chunks_of(192, 64, 1)) == 6
    assert len(chunks_of(192, 64, 4)) == 8
    assert len(chunks_of(21, 32, 2)) == 2


def test_no_matrix_product_of_the_way_forth_is_computed_again():
    potential = random_potential(torch.float32, preset="medium")
    model = deployed(potential.model, compiled=True)
    widths = Widths(model.settings, torch.float32)
    before = widths.before(0)
    whole = trace(Layer(potential, model, 0), [*before, *widths.pulls_before()])
    halves = split(whole, len(before), len(widths.after()))

    def count(graph):
        products = [torch.ops.aten.bmm.default, torch.ops.eqpot.gaunt_product.default]
        return [len(graph.graph.find_nodes(op="call_function", target=p)) for p in products]

    whole.graph.eliminate_dead_code()
    forth, back = count(halves.forth), count(halves.back)
    assert [f + b for f, b in zip(forth, back, strict=True)] == count(whole)
    assert min(*forth, *back) > 0 and halves.kept


def test_a_team_meets_and_ends(threads, monkeypatch):
    threads(2)
    team = Team(3)
    assert torch.get_num_threads() == 2  # of who asked
    seen = []

    def task(meet):
        seen.append(("before", torch.get_num_threads(), threading.get_ident()))
        meet()
        seen.append(("after", torch.get_num_threads(), threading.get_ident()))

    team.run(task)
    assert [when for when, *_ in seen] == ["before"] * 3 + ["after"] * 3
    assert {n for _, n, _ in seen} == {1}
    assert len({thread for *_, thread in seen}) == 3

    def fails(meet):
        if next(numbers) == 1:
            raise ValueError("of one thread")
        meet()

    numbers = itertools.count()
    with pytest.raises(ValueError, match="of one thread"):
        team.run(fails)
    team.run(task)  # and is as good as before
    assert len(seen) == 12
    assert team.is_of(3) and not team.is_of(2)
    monkeypatch.setattr(eqpot.kernels.team.os, "getpid", lambda: -1)
    assert not team.is_of(3)
