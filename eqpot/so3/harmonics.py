"""Real spherical harmonics by recursion in Cartesian coordinates.

Packed index ``k = l² + l + m``, so l=1 is (y, z, x). The normalisation is by mean over the sphere,
``<Y_k Y_k'> = δ_kk'``: ``Y_0 = 1`` and ``Σ_m Y_lm² = 2l + 1``. (Orthonormal harmonics are these
divided by ``sqrt(4π)``.)
"""

import math
from typing import List

import torch
from torch import Tensor


def degrees(l_max: int) -> list[int]:
    """Return the degree l of each packed index, a list of ``(l_max + 1)²`` integers."""
    return [degree for degree in range(l_max + 1) for _ in range(2 * degree + 1)]


def spherical_harmonics(directions: Tensor, l_max: int, dim: int = -1) -> Tensor:
    r"""Return the real spherical harmonics of unit vectors up to degree ``l_max``.

    .. math:: Y_{lm}(\hat r) = N_{lm} \, Q_l^m(z) \, \{c_m(x, y), s_{|m|}(x, y)\}

    with the polynomials :math:`c_m + i s_m = (x + iy)^m` and the Legendre functions without their
    factor :math:`(1-z^2)^{m/2}` and without the Condon-Shortley sign. All are polynomials, hence
    smooth, and no angle is ever formed.

    Parameters
    ----------
    directions
        Unit vectors, shape (..., 3), or with their components along another axis.
    l_max
        Highest degree, not negative.
    dim
        Axis of the components, and of the harmonics.

    Returns
    -------
    Tensor
        Shape (..., (l_max + 1)²), or with the harmonics along ``dim``; normalised to a mean square
        of 1 over the sphere.

    References
    ----------
    Recursion in Cartesian coordinates: Bigi et al., J. Chem. Phys. 159, 064802 (2023).
    """
    # not `unbind`, whose parts torch's compiler gives the strides of the first sizes it sees
    x, y, z = directions.select(dim, 0), directions.select(dim, 1), directions.select(dim, 2)
    one = torch.ones_like(x)
    cosines: List[Tensor] = [one]  # c_m
    sines: List[Tensor] = [torch.zeros_like(x)]  # s_m
    for m in range(1, l_max + 1):
        cosines.append(x * cosines[m - 1] - y * sines[m - 1])
        sines.append(x * sines[m - 1] + y * cosines[m - 1])

    # legendre[m] holds Q_l^m for the current l; `before` those of l - 1.
    legendre: List[Tensor] = [one]
    before: List[Tensor] = [one]
    values: List[Tensor] = [one]
    diagonal = 1.0
    for degree in range(1, l_max + 1):
        now: List[Tensor] = []
        for m in range(degree - 1):
            now.append(
                ((2 * degree - 1) * z * legendre[m] - (degree + m - 1) * before[m]) / (degree - m)
            )
        now.append((2 * degree - 1) * z * diagonal)
        diagonal = diagonal * (2 * degree - 1)
        now.append(one * diagonal)
        before = legendre
        legendre = now

        norms: List[float] = []
        ratio = 1.0  # (l - m)! / (l + m)!
        for m in range(degree + 1):
            if m > 0:
                ratio = ratio / ((degree - m + 1) * (degree + m))
            norms.append(math.sqrt((2 * degree + 1) * ratio * (1.0 if m == 0 else 2.0)))
        for step in range(degree):
            m = degree - step
            values.append(norms[m] * legendre[m] * sines[m])
        values.append(norms[0] * legendre[0])
        for m in range(1, degree + 1):
            values.append(norms[m] * legendre[m] * cosines[m])
    return torch.stack(values, dim=dim)
