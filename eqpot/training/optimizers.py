"""Optimizers and their state as tensors and plain values."""

from typing import Any

import torch
from torch import Tensor

from eqpot.potential import Potential


def build_optimizer(potential: Potential, learning_rate: float) -> torch.optim.Optimizer:
    """Return the optimizer."""
    return torch.optim.Adam(potential.parameters(), lr=learning_rate, amsgrad=True)


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and values."""
    state = optimizer.state_dict()
    tensors = {f"{i}.{k}": v for i, entry in state["state"].items() for k, v in entry.items()}
    return tensors, {"param_groups": state["param_groups"]}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], values: dict[str, Any]
) -> None:
    """Load."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": values["param_groups"]})
