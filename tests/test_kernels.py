"""Compiled code for the CPU: layers over chunks of atoms, by threads, as the whole at once."""

import copy
import gc
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from ase.build import bulk

import eqpot.kernels.team
from agreement import assert_agrees
from eqpot.compilation import CompiledPotential
from eqpot.files import describe
from eqpot.kernels.compiling import function_of, names_of, trace
from eqpot.kernels.layers import Layer, Widths
from eqpot.kernels.splitting import split
from eqpot.kernels.sweep import StagedKernel, chunks_of, function_names
from eqpot.kernels.team import Team
from eqpot.models.deployment import deployed
from potentials import graph_of, random_potential


def codes_of(potential):
    """Return the functions of a potential, which are not compiled."""
    graphs = {name: function_of(potential, name).graph for name in names_of(potential)}
    assert set(graphs) == set(function_names(len(potential.model.later) + 1))
    return {name: lambda inputs, g=graph: list(g(*inputs)) for name, graph in graphs.items()}


def around(potential, codes):
    """Return the potential around functions, by chunks of few atoms."""
    widths = Widths(potential.model.settings, potential.anchor.dtype)
    kernel = StagedKernel(codes, widths).in_small_chunks()
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
def test_layers_over_chunks_compute_as_the_potential(changes, threads):
    """In chunks of few atoms, whose neighbours are in others; again from the same buffers."""
    potential = random_potential(repulsion=True, **changes)
    compiled = around(potential, codes_of(potential))
    graphs = [graph_of(bulk("Si", cubic=True) * size, potential.r_max) for size in (1, (2, 1, 1))]
    for n_threads in (1, 3, 2):
        threads(n_threads)
        assert_agrees(compiled, potential, 1e-13)
        for graph in (*graphs, graphs[0]):
            found, expected = compiled(graph), potential(graph)
            assert (found["forces"] - expected["forces"]).abs().max() < 1e-12
        assert torch.get_num_threads() == n_threads


def silicon(potential):
    return graph_of(bulk("Si", cubic=True), potential.r_max)


@pytest.mark.parametrize("n_threads", [1, 2], indirect=True)
def test_a_kernel_serves_one_call_after_another(n_threads):
    """Results stay; calls come from threads, in inference mode, and after one that failed."""
    potential = random_potential(torch.float32)
    codes = codes_of(potential)
    whole = CompiledPotential(
        StagedKernel(codes, Widths(potential.model.settings, torch.float32)),
        describe(potential),
        potential.anchor.device,
    )
    failing = {"back_1"}

    def checked(name, inputs):
        if name in failing:
            raise ArithmeticError(f"in {name}")
        return codes[name](inputs)

    compiled = around(potential, {name: partial(checked, name) for name in codes})
    structure = silicon(potential)
    with pytest.raises(ArithmeticError, match="in back_1"):
        compiled(structure)
    failing.clear()
    moved = dict(structure) | {"positions": structure["positions"] + 0.1 * torch.eye(8, 3)}
    expected = [whole(graph)["forces"] for graph in (structure, moved)]
    with torch.inference_mode():
        first = compiled(structure)["forces"]
    before = first.clone()
    assert (compiled(moved)["forces"] - expected[1]).abs().max() < 1e-4
    assert torch.equal(first, before) and (first - expected[0]).abs().max() < 1e-4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: compiled((structure, moved)[i % 2])["forces"], range(12)))
    for i, forces in enumerate(found):
        assert (forces - expected[i % 2]).abs().max() < 1e-4
    assert (copy.deepcopy(compiled)(structure)["forces"] - expected[0]).abs().max() < 1e-4


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
    before = widths.layer_inputs(0)
    whole = trace(Layer(potential, model, 0), [*before, *widths.gradients_in()])
    halves = split(whole, len(before), len(widths.layer_results()))

    def count(graph):
        matrices = torch.ops.aten.bmm.default, torch.ops.aten.mm.default
        products = *matrices, torch.ops.aten.addmm.default, torch.ops.eqpot.gaunt_product.default
        return [len(graph.graph.find_nodes(op="call_function", target=p)) for p in products]

    whole.graph.eliminate_dead_code()
    forth, back = count(halves.forth), count(halves.back)
    assert [f + b for f, b in zip(forth, back, strict=True)] == count(whole)
    assert min(forth) > 0 and back[0] > 0 and back[-1] > 0 and halves.kept


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
    seen_threads = {thread for *_, thread in seen}
    assert team.is_of(3) and not team.is_of(2)

    def interrupted(meet):
        if next(numbers) == 5:
            raise KeyboardInterrupt
        meet()

    with pytest.raises(KeyboardInterrupt):
        team.run(interrupted)
    members = [thread for thread in threading.enumerate() if thread.ident in seen_threads]
    assert len(members) == 3
    monkeypatch.setattr(eqpot.kernels.team.os, "getpid", lambda: -1)
    assert not team.is_of(3)
    del team
    gc.collect()  # errors hold where they came from
    for thread in members:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_threads_that_must_share_a_core_are_told(monkeypatch):
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    monkeypatch.setattr(eqpot.kernels.team.os, "sched_getaffinity", lambda _: {0}, raising=False)
    with pytest.warns(UserWarning, match=r"2 threads must share 1 core\(s\), since OMP_PROC_BIND"):
        Team(2)
