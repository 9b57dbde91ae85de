"""How PyTorch's compiler is told to write :func:`eqpot.so3.gaunt.gaunt_product`.

It is imported by those who compile alone: the compiler's own modules are 800.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch._inductor.ir import ConcatKernel, Pointwise, TensorBox
from torch._inductor.lowering import register_lowering
from torch._inductor.virtualized import ops

from eqpot.so3.gaunt import gaunt_coefficients


def _lowered(left: TensorBox, right: TensorBox, l_left: int, l_right: int, l_out: int) -> TensorBox:
    """Return one loop over atoms and channels for each component of a product.

    The compiler joins them, since they read the same, and keeps what they share in registers.
    """
    for factor in (left, right):
        factor.realize()  # else what makes it would be computed anew for each term
    coefficients = gaunt_coefficients(l_left, l_right, l_out)
    components = [
        Pointwise.create(
            device=left.get_device(),
            dtype=left.get_dtype(),
            inner_fn=_component(left, right, coefficients[:, :, k]),
            ranges=[1, *left.get_size()[1:]],
        )
        for k in range(coefficients.shape[2])
    ]
    return TensorBox(ConcatKernel.create(components, 0))


def _component(
    left: TensorBox, right: TensorBox, coefficients: NDArray[np.float64]
) -> Callable[[Sequence[Any]], Any]:
    """Return Σ_i x_i Σ_j G_ij y_j as function of the index in a loop."""
    dtype, load_left, load_right = left.get_dtype(), left.make_loader(), right.make_loader()

    def term(index: Sequence[Any], i: int) -> Any:
        parts = [
            ops.mul(ops.constant(float(value), dtype), load_right([j, *index[1:]]))
            for j, value in enumerate(coefficients[i])
            if value != 0
        ]
        return ops.mul(load_left([i, *index[1:]]), functools.reduce(ops.add, parts))

    def component(index: Sequence[Any]) -> Any:
        rows = np.flatnonzero(coefficients.any(axis=1))
        return functools.reduce(ops.add, [term(index, int(i)) for i in rows])

    return component


def register() -> None:
    """Tell the compiler, once or again."""
    register_lowering(torch.ops.eqpot.gaunt_product.default, type_promotion_kind=None)(_lowered)
