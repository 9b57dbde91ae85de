"""Energies whose gradient was computed beside them."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class KnownGradient(torch.autograd.Function):
    """``apply(vectors, energies, gradient)`` gives energies that know the gradient of their sum.

    That is all that forces and stress need. It cannot be differentiated again, and the energies
    cannot be weighed one by one.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, energies: Tensor, gradient: Tensor) -> Tensor:
        """Return the energies."""
        ctx.save_for_backward(gradient)
        return energies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient, times what all energies are weighed with."""
        (gradient,) = ctx.saved_tensors
        factor = cotangent[0]
        if not bool((cotangent == factor).all()):
            raise RuntimeError("these energies have the gradient of their sum alone")
        return gradient * factor, None, None
