"""A step computes the gradient of the loss to the weights, and to nothing else."""

import pytest
import torch
from lightning_fabric import Fabric

from eqpot.data import Frame, GraphDataset
from eqpot.training.batches import make_batch
from eqpot.training.loss import LossSettings, LossWeights, combine, label_totals, loss_sums
from eqpot.training.objective import Objective
from potentials import random_potential
from strategies import ordinary_set

WEIGHTS = LossWeights(1.0, 10.0, 0.0)


@pytest.fixture
def step(monkeypatch):
    atoms = ordinary_set()
    rng = torch.Generator().manual_seed(0)
    frames = [
        Frame(
            a.numbers,
            a.positions,
            a.cell[:],
            a.pbc,
            energy=-1.0,
            forces=torch.randn(len(a), 3, generator=rng, dtype=torch.float64).numpy(),
        )
        for a in atoms.values()
    ][:3]
    potential = random_potential().requires_grad_(True)
    dataset = GraphDataset(frames, potential.r_max)
    batch = make_batch(dataset, range(len(frames)), None)
    seen = []
    plain = potential.edge_vectors

    def edge_vectors(graph):
        seen.append(plain(graph))
        return seen[-1]

    monkeypatch.setattr(potential, "edge_vectors", edge_vectors)
    fabric = Fabric(accelerator="cpu", devices=1)
    objective = Objective(LossSettings(), 1.0, "full", False, None, fabric, lambda *_: None)
    return potential, dataset, batch, objective, seen


def test_edge_vectors_get_no_gradient_of_the_loss(step):
    potential, dataset, batch, objective, seen = step
    (graph,) = batch.parts
    objective.gradient(potential, dataset, batch, label_totals(graph), WEIGHTS)
    assert [vectors.requires_grad for vectors in seen] == [True]
    assert seen[0].grad is None


def test_gradient_is_that_of_the_whole_loss(step):
    potential, dataset, batch, objective, _ = step
    (graph,) = batch.parts
    totals = label_totals(graph)
    objective.gradient(potential, dataset, batch, totals, WEIGHTS)
    found = {name: weight.grad for name, weight in potential.named_parameters()}
    potential.zero_grad(set_to_none=True)
    sums = loss_sums(potential(graph, training=True), graph, 1.0, LossSettings())
    combine(sums, totals, WEIGHTS).backward()
    for name, weight in potential.named_parameters():
        assert torch.equal(found[name], weight.grad), name
