"""Multiply-adds and bytes are those of a count by hand, in the stage where they arise."""

import pytest
import torch
from ase.build import bulk

from eqpot.cost import FORWARD, Cost, CostCounter
from eqpot.models.deployment import deployed
from eqpot.nn.density import ChannelDensity
from eqpot.nn.fields import DegreeLinear
from eqpot.nn.neighbors import pad_edges
from eqpot.so3 import SphereProduct
from eqpot.so3.gaunt import gaunt_product
from eqpot.verification.budget import (
    DOUBLE_BACKWARD,
    STAGES,
    count_evaluation,
    count_training,
)
from potentials import graph_of, random_potential


def test_product_on_the_sphere_is_three_matrix_products_forth_and_three_back():
    n_atoms, n_channels, n_points, n_harmonics = 5, 7, 32, 16  # rule of degree 9 for l = 3
    left, right = torch.randn(2, n_harmonics, n_atoms, n_channels, requires_grad=True)
    counter = CostCounter(STAGES)
    with counter:
        SphereProduct(3, 3, 3).float()(left, right).sum().backward()
    transform = n_points * n_harmonics * n_atoms * n_channels
    assert counter.costs["sphere products", FORWARD].multiply_adds == 3 * transform
    assert counter.costs["sphere products", "backward"].multiply_adds == 3 * transform


def test_product_by_gaunt_coefficients_counts_those_that_are_not_zero():
    # of degree 1 are not zero 000, and three each of 0mm, m0m and mm0: ten terms G y_j; of x_i,
    # which multiply sums of these, component 0 has four and each component m two
    counter = CostCounter({})
    with counter:
        gaunt_product(*torch.randn(2, 4, 5, 7), 1, 1, 1)
    assert counter.total().multiply_adds == (10 + 4 + 3 * 2) * 5 * 7


def test_density_is_one_matrix_product_an_atom():
    n, j, k, a, s = 6, 11, 9, 4, 5
    density = ChannelDensity(2, a, s, 3.0).requires_grad_(False)
    inputs = [torch.randn(shape, requires_grad=True) for shape in ((n, k, j), (n, a, j), (n, j, s))]
    counter = CostCounter(STAGES)
    with counter:
        density(*inputs).sum().backward()
    product = n * k * a * j * s
    assert counter.costs["density, later layers", FORWARD].multiply_adds == product
    # to the basis and to the senders
    assert counter.costs["density, later layers", "backward"].multiply_adds == 2 * product


def test_second_derivatives_are_counted_in_the_stage_that_they_are_of():
    n, c, d = 6, 4, 5
    mix = DegreeLinear(1, c, d)
    field = torch.randn(4, n, c, requires_grad=True)
    counter = CostCounter(STAGES)
    with counter:
        energy = mix(field).square().sum()  # y = x w
        (gradient,) = torch.autograd.grad([energy], [field], create_graph=True)  # 2 y w'
        counter.derivative = DOUBLE_BACKWARD
        gradient.square().sum().backward()
    product = 4 * n * c * d
    found = {phase: cost.multiply_adds for (stage, phase), cost in counter.costs.items()
             if stage == "channel mixing"}  # fmt: skip
    # twice through 2 y w' (to y and w'), twice through x w (to x and w)
    assert found == {FORWARD: product, "backward": product, DOUBLE_BACKWARD: 4 * product}
    assert counter.total().multiply_adds == 6 * product


def test_bytes_are_read_and_written_once_and_views_are_free():
    values = torch.ones(8, 4)
    counter = CostCounter({})
    with counter:
        _ = values.transpose(0, 1).reshape(32)[1:]  # one copy: 32 numbers in, 32 out
    assert counter.total() == Cost(0, 4 * 64, 1)
    with counter:
        _ = values[:1].expand(8, 4) + 1.0  # 4 numbers in, 32 out
    assert counter.total() == Cost(0, 4 * 64 + 4 * 36, 2)


def test_all_of_a_potential_has_a_stage():
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.05, seed=0)
    potential = random_potential(repulsion=True).requires_grad_(True)
    graph = graph_of(atoms, potential.r_max)
    evaluation, training = count_evaluation(potential, graph), count_training(potential, graph)
    assert {stage for stage, _ in evaluation.costs} == set(STAGES.values())
    assert {stage for stage, _ in training.costs} <= {*STAGES.values(), "elsewhere"}
    for phase in (FORWARD, "backward"):
        assert training.total(phase).multiply_adds == evaluation.total(phase).multiply_adds
    # neighbours come in slots, as many as the atom with most of them has
    slots = pad_edges(graph["edge_index"], torch.zeros(len(graph["edge_index"][0]), 3), 8, 4.0)[0]
    n_features, n_hidden = 16, 32  # of the radial network: encoding and hidden layers
    layers = n_features * n_hidden + n_hidden**2
    radial = slots.numel() * (
        2 * layers + n_hidden * (8 + 16)
    )  # 8 functions, and 8 more for fields
    assert evaluation.costs["radial functions", FORWARD].multiply_adds == radial


def test_derivatives_written_by_hand_belong_to_their_stage():
    potential = random_potential(torch.float32)
    deployed_potential = potential.with_model(deployed(potential.model))
    graph = graph_of(bulk("Si", cubic=True), potential.r_max)
    counted = count_evaluation(deployed_potential, graph)
    assert counted.costs["radial functions", "backward"].n_bytes > 0


def test_counting_changes_nothing():
    potential = random_potential()
    graph = graph_of(bulk("Si", cubic=True), potential.r_max)
    before = potential(graph)["energy"]
    with CostCounter(STAGES):
        inside = potential(graph)["energy"]
    assert torch.equal(before, inside)
    assert torch.equal(before, potential(graph)["energy"])


def test_frozen_weights_are_refused():
    potential = random_potential()
    with pytest.raises(ValueError, match="all are frozen"):
        count_training(potential, graph_of(bulk("Si"), potential.r_max))
