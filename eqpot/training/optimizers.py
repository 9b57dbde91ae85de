"""Optimizers, and their state as tensors and JSON values: no pickle."""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from eqpot.nn.fields import DegreeLinear
from eqpot.training.muon import Muon
from eqpot.training.section import Section

_WEIGHT_DECAY: Final = 0.01
_BETA1: Final = 0.9
_BETA1_OF_MUON: Final = 0.99
"""Measured: docs/design.md, Noise of the gradient."""
_TENSOR: Final = "tensor"


class OptimizerSettings(Section):
    """How gradients become steps."""

    kind: Literal["muon", "adam", "adamw", "schedule_free"] = "muon"
    """For matrices, steps of equal size in all directions, with AdamW for the rest (muon); Adam;
    Adam with decay of the weight matrices (adamw); AdamW with averaging in place of a schedule
    (schedule_free; pip install "eqpot[schedulefree]")."""
    beta1: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of the mean of gradients, for all weights. If not given: 0.99 with muon, whose steps
    are as large where gradients are mostly noise; 0.9 with the others."""
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Decay of the mean of squared gradients."""
    amsgrad: bool = True
    """adam, adamw: steps are divided by the largest mean of squared gradients so far."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Decay of the matrices that mix channels, per step in units of the learning rate; 0.01 if not
    given. Other weights never decay, and none does with adam."""

    @model_validator(mode="after")
    def _decay_of_adam(self) -> "OptimizerSettings":
        if self.kind == "adam" and self.weight_decay is not None:
            raise ValueError(
                "`weight_decay` does nothing with adam, got "
                f"{self.weight_decay}; take `kind: adamw`, or leave it out"
            )
        return self


class _MuonAndAdam(torch.optim.Optimizer):
    """Muon for matrices and stacks of matrices, AdamW for the rest, as one optimizer."""

    def __init__(self, parts: dict[str, torch.optim.Optimizer]) -> None:
        # dicts of its own: an optimizer fills in its defaults, and the two have not the same
        groups = [dict(group) for part in parts.values() for group in part.param_groups]
        super().__init__(groups, {})
        self.parts = parts

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step with the learning rates of ``param_groups``."""
        assert closure is None
        inner = [group for part in self.parts.values() for group in part.param_groups]
        for group, own in zip(inner, self.param_groups, strict=True):
            group["lr"] = own["lr"]
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state_dict[name])
        inner = [group for part in self.parts.values() for group in part.param_groups]
        for group, own in zip(inner, self.param_groups, strict=True):
            own["lr"] = group["lr"]


def build_optimizer(
    module: nn.Module, settings: OptimizerSettings, learning_rate: float
) -> torch.optim.Optimizer:
    """Return the optimizer of the parameters of a module that require a gradient.

    The learning rate of a step is set in ``param_groups``, in all of them.

    Parameters
    ----------
    module
        On the device where it trains.
    settings
        Kind and numbers.
    learning_rate
        At first.

    Raises
    ------
    ValueError
        If the library of an optimizer is not installed; the message says how to install it.

    References
    ----------
    Adam: Kingma and Ba, ICLR 2015; AMSGrad: Reddi et al., ICLR 2018; AdamW: Loshchilov and Hutter,
    ICLR 2019; schedule-free: Defazio et al., NeurIPS 2024, arXiv:2405.15682; Muon:
    :class:`eqpot.training.muon.Muon`.
    """
    beta1 = settings.beta1
    if beta1 is None:
        beta1 = _BETA1_OF_MUON if settings.kind == "muon" else _BETA1
    betas = (beta1, settings.beta2)
    if settings.kind == "adam":
        parameters = [p for p in module.parameters() if p.requires_grad]
        return torch.optim.Adam(parameters, lr=learning_rate, betas=betas, amsgrad=settings.amsgrad)
    decay = _WEIGHT_DECAY if settings.weight_decay is None else settings.weight_decay
    if settings.kind == "muon":
        matrices = [p for p in _matrices(module) if min(p.shape[-2:]) > 1]
        others = _groups(module, decay, without={id(p) for p in matrices})
        parts: dict[str, torch.optim.Optimizer] = {}
        if matrices:
            parts["muon"] = Muon(matrices, learning_rate, decay, beta1)
        if others:
            parts["adam"] = torch.optim.AdamW(others, lr=learning_rate, betas=betas)
        return _MuonAndAdam(parts)
    groups = _groups(module, decay, without=set())
    if settings.kind == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, amsgrad=settings.amsgrad)
    try:
        from schedulefree import AdamWScheduleFree
    except ModuleNotFoundError as error:
        raise ValueError(
            "`training.optimizer.kind: schedule_free` needs the library schedulefree: "
            'pip install "eqpot[schedulefree]"'
        ) from error
    optimizer: torch.optim.Optimizer = AdamWScheduleFree(groups, lr=learning_rate, betas=betas)
    optimizer.train()  # type: ignore[attr-defined]
    return optimizer


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    """Return the weights that map channels to channels: matrices, or a stack of them."""
    weights = [p.weight for p in module.modules() if isinstance(p, nn.Linear | DegreeLinear)]
    return [w for w in weights if isinstance(w, nn.Parameter) and w.requires_grad]


def _groups(module: nn.Module, decay: float, without: set[int]) -> list[dict[str, Any]]:
    """Return the parameters that decay, and those that do not, but for some given by ``id``."""
    decaying = {id(parameter) for parameter in _matrices(module)}
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": decay},
        {"params": [], "weight_decay": 0.0},
    ]
    for parameter in module.parameters():
        if parameter.requires_grad and id(parameter) not in without:
            groups[id(parameter) not in decaying]["params"].append(parameter)
    return [group for group in groups if group["params"]]


@contextlib.contextmanager
def evaluation_weights(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, the parameters have the values that the optimizer wants evaluated; then the old ones.

    Only the schedule-free optimizer makes a difference: gradients belong to other weights than
    those that are used. The old values come back bit by bit, which ``train()`` after ``eval()`` of
    the library would not grant.
    """
    if not hasattr(optimizer, "eval"):
        yield
        return
    groups = optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    with torch.no_grad():
        kept = [parameter.detach().clone() for parameter in parameters]
        optimizer.eval()
        try:
            yield
        finally:
            torch._foreach_copy_(parameters, kept)
            for group in groups:
                group["train_mode"] = True


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Any]:
    """Return the state of an optimizer: tensors by name, on the CPU, and the rest as JSON values.

    Both are copies. Which parameter has which state follows from their order in the module.
    """
    tensors: dict[str, Tensor] = {}

    def take(node: Any, path: str) -> Any:
        if isinstance(node, Tensor):
            tensors[path] = node.detach().to("cpu", copy=True).contiguous()
            return {_TENSOR: path}
        if isinstance(node, dict):
            return {str(key): take(value, f"{path}.{key}" if path else str(key))
                    for key, value in node.items()}  # fmt: skip
        if isinstance(node, list | tuple):
            return [take(value, f"{path}.{index}") for index, value in enumerate(node)]
        return node

    return tensors, take(optimizer.state_dict(), "")


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], values: Any
) -> None:
    """Continue from what :func:`optimizer_state` returned, for an optimizer built alike.

    Raises
    ------
    ValueError
        If the state belongs to another kind of optimizer or other parameters; names what differs.
    """

    def give(node: Any, path: str) -> Any:
        if isinstance(node, dict):
            if set(node) == {_TENSOR}:
                if node[_TENSOR] not in tensors:
                    raise ValueError(f"the state of the optimizer lacks `{node[_TENSOR]}`")
                return tensors[node[_TENSOR]].clone()
            return {
                int(key) if key.isdigit() else key: give(value, f"{path}.{key}")
                for key, value in node.items()
            }
        if isinstance(node, list):
            return [give(value, f"{path}.{index}") for index, value in enumerate(node)]
        return node

    state = give(values, "")
    present = optimizer.state_dict()
    if isinstance(optimizer, _MuonAndAdam):
        parts = optimizer.parts
    else:
        parts, state, present = {"": optimizer}, {"": state}, {"": present}
    if set(state) != set(parts):
        raise ValueError("the state belongs to another kind of optimizer")
    for name, part in parts.items():
        _check(part, present[name], state[name])
    optimizer.load_state_dict(state.get("", state))


def _check(optimizer: torch.optim.Optimizer, present: Any, loaded: Any) -> None:
    """Check what torch does not: keys of the groups, and the shapes of the states."""
    names = [set(group) for group in present["param_groups"]]
    if names != [set(group) for group in loaded.get("param_groups", [])]:
        raise ValueError("the state belongs to another kind of optimizer")
    for group, old in zip(loaded["param_groups"], present["param_groups"], strict=True):
        if group["params"] != old["params"]:
            raise ValueError(
                f"the state of the optimizer is of {len(group['params'])} parameters, "
                f"the potential has {len(old['params'])}"
            )
        for key, value in group.items():
            if isinstance(old[key], tuple):  # JSON knows lists alone
                group[key] = tuple(value)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, state in loaded["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.dim() > 0:
                expected = parameters[index].shape
                if value.shape != expected:
                    raise ValueError(
                        f"`{name}` of parameter {index} in the state of the optimizer must have "
                        f"shape {tuple(expected)}, got {tuple(value.shape)}"
                    )
