"""Patience: how many validations may pass without a better one."""

from typing import Annotated, Any

from pydantic import Field

from eqpot.training.section import Section


class EarlyStoppingSettings(Section):
    """When a run ends before its last step. The learning rate has then not reached its end."""

    patience: Annotated[int, Field(ge=1)] | None = None
    """Validations in a row without improvement after which the run ends; without it, never."""
    min_improvement: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the best value by which a value must be lower to be an improvement."""


class Patience:
    """Count of validations in a row that were no improvement; early stopping, plateau schedule.

    Parameters
    ----------
    patience
        Validations without improvement after which patience is over; ``None`` for never.
    min_improvement
        A value improves on the best if it is below it by more than this fraction of it. NaN does
        not improve.

    Attributes
    ----------
    best
        Lowest value that was an improvement; ``None`` before the first.
    n_waited
        Validations since then.
    """

    def __init__(self, patience: int | None, min_improvement: float = 0.0) -> None:
        self.patience = patience
        self.min_improvement = min_improvement
        self.best: float | None = None
        self.n_waited = 0

    def observe(self, value: float) -> bool:
        """Take note of a validation, lower is better; return whether patience is over."""
        best = float("inf") if self.best is None else self.best
        if value < best and (best == float("inf") or best - value > self.min_improvement * best):
            self.best, self.n_waited = value, 0
        else:
            self.n_waited += 1
        return self.patience is not None and self.n_waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON values."""
        return {"best": self.best, "n_waited": self.n_waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.best, self.n_waited = state["best"], state["n_waited"]
