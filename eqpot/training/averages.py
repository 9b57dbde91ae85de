"""Averages of the weights over the steps of a run: what is evaluated and deployed."""

import copy
import math
from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from eqpot.training.section import Section

Module = TypeVar("Module", bound=nn.Module)


class AverageSettings(Section):
    """Which weights are validated, and deployed at the end."""

    kind: Literal["ema", "swa", "none"] = "ema"
    """Exponential moving average with ``ema_decay``; the plain mean over the last part of the run
    (swa), best with a learning rate that stays high; or the weights as they are."""
    start: Annotated[float, Field(ge=0, lt=1)] = 0.75
    """swa: fraction of the run at which the mean begins."""
    deploy: Literal["last", "best"] = "last"
    """The average at the end of the run, or at the best validation."""


class Average(Generic[Module]):
    """The weights of the last step; base of the averages.

    Parameters
    ----------
    module
        Its parameters are followed.

    Attributes
    ----------
    module
        A copy of the module that carries the average.
    n_updates
        Steps so far.
    """

    def __init__(self, module: Module) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.n_updates = 0

    @torch.no_grad()
    def update(self, module: Module) -> None:
        """Take note of the parameters after a step."""
        self.n_updates += 1
        self._update(list(self.module.parameters()), list(module.parameters()))

    def _update(self, averages: list[Tensor], values: list[Tensor]) -> None:
        torch._foreach_copy_(averages, values)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return copies of the average by parameter, on the CPU, and plain JSON values."""
        return _copies(self.module), {"n_updates": self.n_updates}

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned.

        Raises
        ------
        ValueError
            If names or shapes are not those of the module.
        """
        fill_parameters(self.module, tensors)
        self.n_updates = values["n_updates"]


class ExponentialMovingAverage(Average[Module]):
    """Moving average of the parameters.

    Parameters
    ----------
    module
        Its parameters are followed.
    decay
        Share of the old average kept at each step, below 1. The first steps use a smaller share,
        so that the start is forgotten.
    """

    def __init__(self, module: Module, decay: float) -> None:
        super().__init__(module)
        self.decay = decay

    def _update(self, averages: list[Tensor], values: list[Tensor]) -> None:
        share = 1.0 - min(self.decay, self.n_updates / (self.n_updates + 20.0))
        torch._foreach_lerp_(averages, values, share)


class StochasticWeightAverage(Average[Module]):
    """Mean of the parameters over all steps from one on; before it, the parameters themselves.

    Parameters
    ----------
    module
        Its parameters are followed.
    first_step
        First step of the mean, counted from 0.

    References
    ----------
    Izmailov et al., Averaging weights leads to wider optima, UAI 2018.
    """

    def __init__(self, module: Module, first_step: int) -> None:
        super().__init__(module)
        self.first_step = first_step
        # float64: after 1e5 steps of float32, what one step adds would be lost in rounding
        self.means: list[Tensor] = []

    def _update(self, averages: list[Tensor], values: list[Tensor]) -> None:
        n_averaged = self.n_updates - self.first_step
        if n_averaged <= 1:
            self.means = [value.detach().to(torch.float64, copy=True) for value in values]
        else:
            doubles = [value.to(torch.float64) for value in values]
            torch._foreach_lerp_(self.means, doubles, 1.0 / n_averaged)
        torch._foreach_copy_(averages, self.means)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return copies of the means by parameter, on the CPU, and plain JSON values."""
        tensors, values = super().state()
        if self.means:
            means = (mean.to("cpu", copy=True) for mean in self.means)
            tensors = dict(zip(tensors, means, strict=True))
        return tensors, values

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        super().load_state(tensors, values)
        self.means = [
            tensors[name].to(parameter.device, torch.float64, copy=True)
            for name, parameter in self.module.named_parameters()
        ]


def build_average(
    settings: AverageSettings, ema_decay: float, module: Module, n_steps: int
) -> Average[Module]:
    """Return the average of a run of ``n_steps`` steps, before the first."""
    if settings.kind == "ema":
        return ExponentialMovingAverage(module, ema_decay)
    if settings.kind == "swa":
        return StochasticWeightAverage(module, math.ceil(settings.start * (n_steps - 1)))
    return Average(module)


class BestWeights(Generic[Module]):
    """The weights of the best validation so far.

    Parameters
    ----------
    module
        Its parameters are kept in a copy.

    Attributes
    ----------
    module
        With the weights of the best validation; as given before the first.
    metric, step
        Of that validation; ``None`` before the first.
    """

    def __init__(self, module: Module) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.metric: float | None = None
        self.step: int | None = None

    @torch.no_grad()
    def observe(self, metric: float, step: int, module: Module) -> bool:
        """Take note of a validation, lower is better; return whether it is the best.

        Until one is a number, the latest is; then NaN never is.
        """
        if self.metric is not None and not metric < self.metric:
            return False
        self.metric, self.step = (metric if math.isfinite(metric) else None), step
        torch._foreach_copy_(list(self.module.parameters()), list(module.parameters()))
        return True

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return copies of the weights by name, on the CPU, and plain JSON values."""
        return _copies(self.module), {"metric": self.metric, "step": self.step}

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned.

        Raises
        ------
        ValueError
            If names or shapes are not those of the module.
        """
        fill_parameters(self.module, tensors)
        self.metric, self.step = values["metric"], values["step"]


def _copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().to("cpu", copy=True) for name, p in module.named_parameters()}


@torch.no_grad()
def fill_parameters(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give the parameters of a module the values of tensors by name.

    Raises
    ------
    ValueError
        If names or shapes are not those of the module.
    """
    parameters = dict(module.named_parameters())
    if set(parameters) != set(tensors):
        wrong = sorted(set(parameters) ^ set(tensors))
        raise ValueError(f"these are other weights; they differ in {', '.join(wrong)}")
    for name, parameter in parameters.items():
        if parameter.shape != tensors[name].shape:
            raise ValueError(
                f"`{name}` must have shape {tuple(parameter.shape)}, "
                f"got {tuple(tensors[name].shape)}"
            )
        parameter.copy_(tensors[name])
