"""Exponential moving average of weights."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class ExponentialMovingAverage(Generic[Module]):
    """Moving average of the parameters of a module; what is evaluated and deployed.

    Parameters
    ----------
    module
        Its parameters are followed.
    decay
        Share of the old average kept at each step, below 1. The first steps use a smaller share,
        so that the start is forgotten.

    Attributes
    ----------
    module
        A copy of the module that carries the average.
    """

    def __init__(self, module: Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.decay = decay
        self.n_updates = 0

    @torch.no_grad()
    def update(self, module: Module) -> None:
        """Move the average towards the present parameters."""
        self.n_updates += 1
        share = 1.0 - min(self.decay, self.n_updates / (self.n_updates + 20.0))
        averages: list[Tensor] = list(self.module.parameters())
        values: list[Tensor] = list(module.parameters())
        torch._foreach_lerp_(averages, values, share)
