"""Harmonics are orthonormal, rules exact to their degree and no further, products are Gaunt's."""

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from eqpot.so3 import (
    GauntProduct,
    SphereProduct,
    degrees,
    gaunt_coefficients,
    sphere_rule,
    spherical_harmonics,
)
from strategies import random_rotation


def directions(n, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def on_rule(rule, l_max):
    return spherical_harmonics(torch.from_numpy(rule.points), l_max).numpy()


def test_harmonics_equal_scipy():
    points = directions(50)
    ours = spherical_harmonics(torch.from_numpy(points), 6).numpy()
    theta, phi = np.arccos(points[:, 2]), np.arctan2(points[:, 1], points[:, 0])
    for degree in range(7):
        for m in range(-degree, degree + 1):
            # scipy's are complex, orthonormal and carry the sign (-1)^m
            value = sph_harm_y(degree, abs(m), theta, phi) * np.sqrt(4 * np.pi)
            value = value * (-1) ** m * (np.sqrt(2) if m else 1)
            expected = value.imag if m < 0 else value.real
            np.testing.assert_allclose(ours[:, degree**2 + degree + m], expected, atol=1e-12)


@pytest.mark.parametrize("degree", [*range(25), 29, 31, 41, 59])
def test_rule_is_exact_to_its_degree_and_no_further(degree):
    rule = sphere_rule(degree)
    assert rule.degree >= degree
    assert (rule.weights > 0).all()
    np.testing.assert_allclose(np.linalg.norm(rule.points, axis=1), 1, atol=1e-14)
    means = rule.weights @ on_rule(rule, rule.degree + 1)
    inside = (rule.degree + 1) ** 2
    np.testing.assert_allclose(means[:inside], np.eye(inside)[0], atol=1e-13)
    assert np.abs(means[inside:]).max() > 0.1


@pytest.mark.parametrize("degree", [-1, 60])
def test_rule_of_impossible_degree_is_refused(degree):
    with pytest.raises(ValueError, match=str(degree)):
        sphere_rule(degree)


@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize(
    ("l_left", "l_right", "l_out"), [(1, 1, 2), (3, 3, 3), (3, 2, 0), (4, 4, 4)]
)
def test_product_equals_the_sum_over_gaunt_coefficients(l_left, l_right, l_out, written_out):
    fine = sphere_rule(29)
    values = on_rule(fine, max(l_left, l_right, l_out))
    sizes = [(degree + 1) ** 2 for degree in (l_left, l_right, l_out)]
    factors = [values[:, :size] for size in sizes]
    gaunt = np.einsum("p,pi,pj,pk->ijk", fine.weights, *factors)
    rng = np.random.default_rng(3)
    left, right = rng.normal(size=(sizes[0], 5, 2)), rng.normal(size=(sizes[1], 5, 2))
    expected = np.einsum("ijk,inc,jnc->knc", gaunt, left, right)
    product = SphereProduct(l_left, l_right, l_out)
    if written_out:
        product = GauntProduct(product)
    ours = product(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_coefficients_that_selection_rules_forbid_are_zero():
    coefficients = gaunt_coefficients(3, 2, 4)
    l_left, l_right, l_out = np.meshgrid(*map(degrees, (3, 2, 4)), indexing="ij")
    allowed = (l_left + l_right + l_out) % 2 == 0
    allowed &= (abs(l_left - l_right) <= l_out) & (l_out <= l_left + l_right)
    assert not coefficients[~allowed].any()
    assert np.abs(coefficients[coefficients != 0]).min() > 1e-3
    np.testing.assert_allclose(coefficients[..., 0], np.eye(16, 9), atol=1e-14)  # orthonormal


def test_written_out_product_is_differentiable_twice():
    generator = torch.Generator().manual_seed(1)
    left = torch.randn(9, 2, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    right = torch.randn(4, 2, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    product = GauntProduct(SphereProduct(2, 1, 3))
    assert torch.autograd.gradcheck(product, (left, right))
    assert torch.autograd.gradgradcheck(product, (left, right))


def test_product_returns_to_float64_without_loss():
    product = SphereProduct(3, 3, 3)
    exact = product.from_points.clone()
    assert torch.equal(product.float().double().from_points, exact)


def test_product_is_equivariant():
    turn = random_rotation(np.random.default_rng(4)) @ np.diag([1.0, 1.0, -1.0])
    points = torch.from_numpy(directions(200))
    before = spherical_harmonics(points, 3)
    after = spherical_harmonics(points @ torch.from_numpy(turn).T, 3)
    wigner = torch.linalg.lstsq(before, after).solution.T  # Y(Rx) = D Y(x)
    product = SphereProduct(3, 3, 3)
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 16, 4, 3, generator=generator, dtype=torch.float64)

    def turned(field):
        return torch.einsum("kl,lnc->knc", wigner, field)

    difference = turned(product(left, right)) - product(turned(left), turned(right))
    assert difference.abs().max() < 1e-12


def test_degrees():
    assert degrees(2) == [0, 1, 1, 1, 2, 2, 2, 2, 2]
