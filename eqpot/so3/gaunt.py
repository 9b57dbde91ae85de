"""Products of fields as sums over Gaunt coefficients, for code that joins them to one loop.

Letters as in :mod:`eqpot.so3.products`; i, j and k are packed (l, m) of the factors and the result.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from eqpot.so3.harmonics import spherical_harmonics
from eqpot.so3.products import SphereProduct
from eqpot.so3.rules import sphere_rule


@functools.cache
def gaunt_coefficients(l_left: int, l_right: int, l_out: int) -> NDArray[np.float64]:
    """Return the means over the sphere of ``Y_i Y_j Y_k``, shape (i, j, k); not to be written to.

    Those that the selection rules forbid are zero: of 4096 for degrees up to 3 all but 353.

    Parameters
    ----------
    l_left, l_right, l_out
        Highest degrees.

    References
    ----------
    Gaunt, Phil. Trans. R. Soc. A 228, 151 (1929).
    """
    rule = sphere_rule(l_left + l_right + l_out)
    values = spherical_harmonics(torch.from_numpy(rule.points), max(l_left, l_right, l_out)).numpy()
    factors = [values[:, : (degree + 1) ** 2] for degree in (l_left, l_right, l_out)]
    means = np.einsum("p,pi,pj,pk->ijk", rule.weights, *factors)
    coefficients = np.where(np.abs(means) > 1e-12, means, 0.0)
    coefficients.flags.writeable = False
    return coefficients


@torch.library.custom_op("eqpot::gaunt_product", mutates_args=())
def gaunt_product(left: Tensor, right: Tensor, l_left: int, l_right: int, l_out: int) -> Tensor:
    r"""Return the product of two fields, projected on degrees up to ``l_out``.

    .. math:: (x \circledast y)_k = \sum_{ij} G_{ijk} \, x_i \, y_j

    Called as it is, for tests and while tracing, it takes all coefficients and is slow. In compiled
    code :mod:`eqpot.so3.lowering` writes out the few that are not zero.

    Parameters
    ----------
    left, right
        Shapes ((l_left + 1)², n, c) and ((l_right + 1)², n, c).
    l_left, l_right, l_out
        Highest degrees of the factors and of the result.

    Returns
    -------
    Tensor
        Shape ((l_out + 1)², n, c).
    """
    values = gaunt_coefficients(l_left, l_right, l_out)
    coefficients = torch.tensor(values, dtype=left.dtype, device=left.device)
    return torch.einsum("ijk,inc,jnc->knc", coefficients, left, right).contiguous()


@register_flop_formula(torch.ops.eqpot.gaunt_product)
def _flops(
    left: Sequence[int],
    right: Sequence[int],
    l_left: int,
    l_right: int,
    l_out: int,
    *,
    out_shape: Sequence[int],
) -> int:
    """Return the operations of compiled code, which sums over j, then over i."""
    written = gaunt_coefficients(l_left, l_right, l_out) != 0
    n_multiply_adds = int(written.sum() + written.any(axis=1).sum())
    return 2 * n_multiply_adds * out_shape[1] * out_shape[2]


@gaunt_product.register_fake
def _like_product(left: Tensor, right: Tensor, l_left: int, l_right: int, l_out: int) -> Tensor:
    return left.new_empty((l_out + 1) ** 2, left.shape[1], left.shape[2])


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor, int, int, int], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.degrees = inputs[2:]


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
    """Return the gradients to the factors: such products too, as G is symmetric."""
    left, right = ctx.saved_tensors
    l_left, l_right, l_out = ctx.degrees
    of_left: Tensor = gaunt_product(gradient, right, l_out, l_right, l_left)
    of_right: Tensor = gaunt_product(left, gradient, l_left, l_out, l_right)
    return of_left, of_right, None, None, None


gaunt_product.register_autograd(_gradients, setup_context=_keep_inputs)


class GauntProduct(nn.Module):
    """A :class:`eqpot.so3.SphereProduct` by :func:`gaunt_product`.

    Parameters
    ----------
    product
        The product it replaces, of which the degrees are kept.
    """

    def __init__(self, product: SphereProduct) -> None:
        super().__init__()
        self.degrees = product.l_left, product.l_right, product.l_out
        l_left, l_right, l_out = self.degrees
        # its own and those of its gradients are made here, since a tracer lets no number be made
        gaunt_coefficients(l_left, l_right, l_out)
        gaunt_coefficients(l_out, l_right, l_left)
        gaunt_coefficients(l_left, l_out, l_right)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return what :meth:`eqpot.so3.SphereProduct.forward` does."""
        product: Tensor = gaunt_product(left, right, *self.degrees)
        return product
