"""Chunks of atoms give what the whole gives: energies, forces, stress, virials, features."""

import pytest
import torch
from ase.build import bulk

from eqpot import keys
from eqpot.calculators import ASECalculator
from eqpot.models.chunks import ChunkedModel
from potentials import graph_of, random_potential

OUTPUTS = (
    keys.ENERGY, keys.NODE_ENERGY, keys.NODE_FEATURES, keys.FORCES, keys.STRESS, keys.NODE_VIRIAL,
)  # fmt: skip


@pytest.fixture(scope="module")
def crystal():
    atoms = bulk("Si", cubic=True) * (2, 2, 1)
    atoms.numbers[::3] = 6
    atoms.rattle(0.1, seed=1)
    del atoms[5]
    return atoms


@pytest.mark.parametrize("edge_budget", [1, 60, 200])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_layers": 3, "l_hidden": 2, "l_along": 1},
        {"n_layers": 1, "final_gate": False},
        {"l_hidden": 0},
    ],
)
def test_chunks_equal_the_whole(changes, edge_budget, crystal):
    potential = random_potential(repulsion=True, **changes)
    graph = graph_of(crystal, potential.r_max)
    assert graph[keys.EDGE_INDEX].shape[1] > 2 * edge_budget
    whole = potential(graph)
    chunked = potential.with_model(ChunkedModel(potential.model, edge_budget))(graph)
    for name in OUTPUTS:
        assert torch.allclose(chunked[name], whole[name], rtol=1e-12, atol=1e-12), name


def test_atoms_without_neighbours_and_batches(crystal):
    """A structure far away in the batch, and one atom alone, are computed as ever."""
    from eqpot.graph import batch_graphs

    potential = random_potential()
    lonely = bulk("Si")[:1]
    lonely.pbc = False
    graph = batch_graphs([graph_of(a, potential.r_max) for a in (lonely, crystal, lonely)])
    whole = potential(graph)
    chunked = potential.with_model(ChunkedModel(potential.model, 40))(graph)
    for name in OUTPUTS:
        assert torch.allclose(chunked[name], whole[name], rtol=1e-12, atol=1e-12), name


def test_only_the_sum_has_a_gradient(crystal):
    potential = random_potential()
    graph = graph_of(crystal, potential.r_max)
    chunked = potential.with_model(ChunkedModel(potential.model, 40))
    vectors = chunked.edge_vectors(graph).requires_grad_(True)
    outputs = chunked.energies(graph, vectors)
    with pytest.raises(RuntimeError, match="gradient of their sum alone"):
        outputs[keys.NODE_ENERGY][0].backward()


def test_a_budget_is_above_zero():
    with pytest.raises(ValueError, match="`edge_budget` must be at least 1, got 0"):
        ChunkedModel(random_potential().model, 0)


def test_compiled_code_takes_no_budget():
    with pytest.raises(ValueError, match="`edge_budget` must be left out with `compiled=True`"):
        ASECalculator(random_potential(), edge_budget=50, compiled=True)


def test_the_calculator_takes_a_budget_and_leaves_the_potential_alone(crystal):
    potential = random_potential()
    model = potential.model
    crystal = crystal.copy()
    crystal.calc = ASECalculator(potential, edge_budget=50)
    chunked = crystal.get_forces()
    assert potential.model is model
    crystal.calc = ASECalculator(potential)
    assert chunked == pytest.approx(crystal.get_forces(), abs=1e-12)
