"""How PyTorch's compiler is told to write :func:`eqpot.so3.gaunt.gaunt_product`.

It is imported only where something is compiled, since it loads the compiler, a thousand modules.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch._inductor.ir import (
    ConcatKernel,
    FixedLayout,
    FlexibleLayout,
    Pointwise,
    SliceView,
    StorageBox,
    TensorBox,
)
from torch._inductor.lowering import register_lowering
from torch._inductor.virtualized import V, ops

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
    return _joined(components)


def _joined(parts: list[TensorBox]) -> TensorBox:
    """Return the concatenation of parts of length 1, each of which is written to its place.

    ``ConcatKernel.create`` would do in torch 2.13, but in 2.10 it takes the operation for one whose
    first argument is a list.
    """
    size = [len(parts), *parts[0].get_size()[1:]]
    device = parts[0].get_device()
    assert device is not None
    layout = FixedLayout(
        device=device,
        dtype=parts[0].get_dtype(),
        size=size,
        stride=FlexibleLayout.contiguous_strides(size),
    )
    whole = ConcatKernel(name=None, layout=layout, inputs=[])
    box = StorageBox(whole)
    places = [SliceView.create(box, 0, k, k + 1, clamp=False) for k in range(len(parts))]
    written = [ConcatKernel.realize_into(*pair) for pair in zip(parts, places, strict=True)]
    whole.name = V.graph.register_buffer(whole)
    whole.inputs = ConcatKernel.unwrap_storage(written)
    V.graph.register_operation(whole)
    return TensorBox(box)


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
    """Teach the compiler, for this process. May be called again."""
    register_lowering(torch.ops.eqpot.gaunt_product.default, type_promotion_kind=None)(_lowered)
