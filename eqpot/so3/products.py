"""Products of fields on the sphere, exact on a point rule.

Letters of the shapes: k packed (l, m), p points, n atoms, c channels. Fields are (k, n, c): the
transforms to and from points are then one matrix product each, without a copy.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from eqpot.so3.harmonics import spherical_harmonics
from eqpot.so3.rules import sphere_rule


class SphereProduct(nn.Module):
    r"""Pointwise product of two fields, projected on degrees up to ``l_out``.

    .. math:: (x \circledast y)_k = \langle X \, Y \, Y_k \rangle, \quad
              X(o) = \sum_k x_k Y_k(o)

    with the mean over the sphere taken on a rule of degree ``l_left + l_right + l_out``. The
    integrand is a polynomial of that degree, so the discretisation adds no error and the product is
    equivariant to rounding. For ``l_out = 0`` the mean is the dot product of the coefficients and
    no points are used.

    Parameters
    ----------
    l_left, l_right
        Highest degrees of the factors.
    l_out
        Highest degree of the result.

    References
    ----------
    Luo, Chen and Krishnapriyan, Enabling efficient equivariant operations in the Fourier basis via
    Gaunt tensor products, ICLR 2024, eq. 3; evaluated here on points.
    """

    to_points_left: Tensor
    to_points_right: Tensor
    from_points: Tensor

    def __init__(self, l_left: int, l_right: int, l_out: int) -> None:
        super().__init__()
        self.l_left = l_left
        self.l_right = l_right
        self.l_out = l_out
        self._make_matrices(torch.float64, torch.device("cpu"))

    def _make_matrices(self, dtype: torch.dtype, device: torch.device) -> None:
        rule = sphere_rule(self.l_left + self.l_right + self.l_out)
        l_max = max(self.l_left, self.l_right, self.l_out)
        values = spherical_harmonics(torch.from_numpy(rule.points), l_max)  # p k
        weights = torch.from_numpy(rule.weights)
        back = (values * weights[:, None])[:, : (self.l_out + 1) ** 2].T.contiguous()
        for name, matrix in (
            ("to_points_left", values[:, : (self.l_left + 1) ** 2].contiguous()),
            ("to_points_right", values[:, : (self.l_right + 1) ** 2].contiguous()),
            ("from_points", back),
        ):
            self.register_buffer(name, matrix.to(dtype=dtype, device=device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SphereProduct":
        # A rule that once was float32 would keep float32's error in float64: make it anew.
        super()._apply(fn, recurse)
        self._make_matrices(self.from_points.dtype, self.from_points.device)
        return self

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the projected product.

        Parameters
        ----------
        left, right
            Coefficients, shapes ((l_left + 1)², n, c) and ((l_right + 1)², n, c).

        Returns
        -------
        Tensor
            Coefficients, shape ((l_out + 1)², n, c).
        """
        n, c = left.shape[1], left.shape[2]
        if self.l_out == 0:
            shared = min(left.shape[0], right.shape[0])
            return (left[:shared] * right[:shared]).sum(dim=0, keepdim=True)
        on_points = torch.mm(self.to_points_left, left.reshape(-1, n * c)) * torch.mm(
            self.to_points_right, right.reshape(-1, n * c)
        )
        return torch.mm(self.from_points, on_points).view(-1, n, c)  # kp,p(nc)->k(nc)
