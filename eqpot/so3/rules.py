"""Point rules on the sphere that integrate every polynomial up to a stated degree exactly."""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import lebedev_rule


@dataclass(frozen=True)
class SphereRule:
    """Points and positive weights on the unit sphere.

    Attributes
    ----------
    degree
        Every polynomial up to this degree has ``Σ_p w_p f(o_p)`` equal to its mean over the sphere.
    points
        Unit vectors, shape (n_points, 3).
    weights
        Shape (n_points,), positive, of sum 1.
    """

    degree: int
    points: NDArray[np.float64]
    weights: NDArray[np.float64]


# Lebedev rules with positive weights (degrees 13, 25 and 27 have negative ones).
_LEBEDEV_DEGREES = (11, 15, 17, 19, 21, 23, 29, 31, 35, 41, 47, 53, 59)


def sphere_rule(degree: int) -> SphereRule:
    """Return the smallest known rule with positive weights that is exact to ``degree``.

    Parameters
    ----------
    degree
        Algebraic degree, 0 to 59. A product of fields of degrees ``l1 .. ln``, projected on degree
        ``l_out``, needs their sum.

    Returns
    -------
    SphereRule
        Its ``degree`` may be above the one asked for.

    Raises
    ------
    ValueError
        If the degree is negative or above 59.

    References
    ----------
    Degree 7: the octahedral orbit that is a spherical 7-design (McLaren, Math. Comp. 17, 361
    (1963)). Degree 9: Albrecht and Collatz, Z. angew. Math. Mech. 38, 1 (1958). Above: Lebedev and
    Laikov, Doklady Mathematics 59, 477 (1999).
    """
    if degree < 0:
        raise ValueError(f"`degree` must not be negative, got {degree}")
    if degree <= 3:
        points = np.concatenate([np.eye(3), -np.eye(3)])
        return _equal_weights(3, points)
    if degree <= 5:
        return _equal_weights(5, _icosahedron())
    if degree <= 7:
        seed = np.array([0.866246818108, 0.422518653761, 0.266635401517])
        return _equal_weights(7, _octahedral_rotations() @ _refined_seven_design(seed))
    if degree <= 9:
        vertices, faces = _icosahedron(), _dodecahedron()
        weights = np.concatenate([np.full(12, 25 / 840), np.full(20, 27 / 840)])
        return SphereRule(9, np.concatenate([vertices, faces]), weights)
    for known in _LEBEDEV_DEGREES:
        if degree <= known:
            nodes, surface_weights = lebedev_rule(known)
            return SphereRule(known, nodes.T.copy(), surface_weights / surface_weights.sum())
    raise ValueError(f"no rule of degree {degree} is known here: the highest is 59")


def _equal_weights(degree: int, points: NDArray[np.float64]) -> SphereRule:
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    return SphereRule(degree, points, np.full(len(points), 1 / len(points)))


def _icosahedron() -> NDArray[np.float64]:
    golden = (1 + 5**0.5) / 2
    vertices = [
        np.roll([0.0, first, second * golden], shift)
        for shift in range(3)
        for first, second in itertools.product((1, -1), repeat=2)
    ]
    scaled: NDArray[np.float64] = np.array(vertices) / np.sqrt(1 + golden**2)
    return scaled


def _dodecahedron() -> NDArray[np.float64]:
    """Return the face centres of :func:`_icosahedron`, shape (20, 3)."""
    golden = (1 + 5**0.5) / 2
    cube = list(itertools.product((1.0, -1.0), repeat=3))
    others = [
        np.roll([0.0, first * golden, second / golden], shift)
        for shift in range(3)
        for first, second in itertools.product((1, -1), repeat=2)
    ]
    return np.array(cube + [tuple(point) for point in others], dtype=np.float64) / 3**0.5


def _octahedral_rotations() -> NDArray[np.float64]:
    """Return the 24 proper rotations of the cube, shape (24, 3, 3)."""
    rotations = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            if np.linalg.det(matrix) > 0:
                rotations.append(matrix)
    return np.array(rotations)


def _refined_seven_design(seed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the seed sharpened to machine precision by Newton's method.

    The orbit averages every odd polynomial and every even one of degree 2 to zero; what is left up
    to degree 7 are the cubic invariants of degree 4 and 6, whose mean values over the sphere are
    ``<x⁴+y⁴+z⁴> = 3/5`` and ``<x²y²z²> = 1/105``.
    """
    point = seed.copy()
    for _ in range(5):
        square = point**2
        residual = np.array([square.sum() - 1, (square**2).sum() - 3 / 5, square.prod() - 1 / 105])
        jacobian = np.array([2 * point, 4 * point**3, 2 * square.prod() / point])
        point = point - np.linalg.solve(jacobian, residual)
    return point
