"""A model for use, in place of one for training: what its weights fix is computed beforehand."""

import copy
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from eqpot.models.gaunt import GauntModel
from eqpot.nn.fields import DegreeLinear
from eqpot.nn.radial import RadialNetwork
from eqpot.nn.radial_table import RadialTable
from eqpot.so3 import GauntProduct, SphereProduct, gaunt_coefficients

_MOST_COEFFICIENTS: Final = 400
"""Products with more stay on points. Degree 3 has 353, degree 4 has 1158."""


class ComponentLinear(nn.Module):
    """A :class:`eqpot.nn.fields.DegreeLinear` with a matrix for each component, not each degree.

    Parameters
    ----------
    linear
        Its weights are copied.
    """

    weight: Tensor

    def __init__(self, linear: DegreeLinear) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach()[linear.degrees])

    def forward(self, field: Tensor) -> Tensor:
        """Return the mapped field, shape (k, n, n_out)."""
        return torch.bmm(field, self.weight)


@torch.no_grad()
def deployed(model: GauntModel, compiled: bool = False) -> GauntModel:
    """Return a copy of a model that computes the same and does not learn.

    The matrices of a degree are laid out for each of its components, the energies of isolated atoms
    are numbers, and in float32 radial functions come from tables, whose error is below rounding
    (:class:`eqpot.nn.radial_table.RadialTable`). In float64 they come from their networks: there
    the error of a table would be seen.

    Parameters
    ----------
    model
        Left as it is.
    compiled
        Whether it is to be compiled: then products on the sphere are sums over Gaunt coefficients,
        unless these are too many.
    """
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    copied.isolated = copied.isolated_energies()
    in_tables = copied.embedding.dtype == torch.float32
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, DegreeLinear):
                setattr(parent, name, ComponentLinear(child))
            elif isinstance(child, RadialNetwork) and in_tables:
                setattr(parent, name, RadialTable(child))
            elif isinstance(child, SphereProduct) and compiled and _has_few_coefficients(child):
                setattr(parent, name, GauntProduct(child))
    return copied


def _has_few_coefficients(product: SphereProduct) -> bool:
    coefficients = gaunt_coefficients(product.l_left, product.l_right, product.l_out)
    return product.l_out > 0 and int(np.count_nonzero(coefficients)) <= _MOST_COEFFICIENTS
