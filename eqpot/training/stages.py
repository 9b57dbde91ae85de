"""Stages of a run: learning rate and weights of the loss as they change between its steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from eqpot.training.loss import LossWeights
from eqpot.training.section import Section


class StageSettings(Section):
    """A part of a run; what it does not name stays as it was before."""

    start: Annotated[float, Field(ge=0, lt=1)]
    """Fraction of the run at which the stage begins."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Highest learning rate; the schedule goes on as a factor on it."""
    energy_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of energies, in place of the rise to ``final_energy_weight``."""
    forces_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of forces."""
    stress_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of stresses."""

    @model_validator(mode="after")
    def _changes_something(self) -> "StageSettings":
        if all(getattr(self, name) is None for name in type(self).model_fields if name != "start"):
            raise ValueError(
                "a stage must change `learning_rate`, `energy_weight`, `forces_weight` or "
                "`stress_weight`"
            )
        return self


@dataclass(frozen=True)
class StepSettings:
    """What holds at a step.

    Attributes
    ----------
    learning_rate
        Before the factor of the schedule.
    weights
        Of the loss.
    """

    learning_rate: float
    weights: LossWeights


class Stages:
    """Learning rate and weights at each step of a run.

    The weight of energies rises by itself (:func:`energy_weight`); stages replace, from their start
    on, the values that they name.

    Parameters
    ----------
    learning_rate, weights
        At the first step.
    final_energy_weight, energy_ramp
        As ``last`` and ``ramp`` of :func:`energy_weight`.
    stages
        In the order of their start.
    n_steps
        Steps of the run.

    Raises
    ------
    ValueError
        If the stages do not start one after the other.
    """

    def __init__(
        self,
        learning_rate: float,
        weights: LossWeights,
        final_energy_weight: float,
        energy_ramp: float,
        stages: Sequence[StageSettings],
        n_steps: int,
    ) -> None:
        check_order(stages)
        self.learning_rate = learning_rate
        self.weights = weights
        self.final_energy_weight = final_energy_weight
        self.energy_ramp = energy_ramp
        self.stages = tuple(stages)
        self.n_steps = n_steps

    def at(self, step: int) -> StepSettings:
        """Return what holds at a step, from 0 to ``n_steps - 1``."""
        values = {
            "learning_rate": self.learning_rate,
            "energy_weight": energy_weight(
                step, self.n_steps, self.weights.energy, self.final_energy_weight, self.energy_ramp
            ),
            "forces_weight": self.weights.forces,
            "stress_weight": self.weights.stress,
        }
        progress = step / max(1, self.n_steps - 1)
        for stage in self.stages:
            if progress >= stage.start:
                values |= stage.model_dump(exclude={"start"}, exclude_none=True)
        return StepSettings(
            values["learning_rate"],
            LossWeights(values["energy_weight"], values["forces_weight"], values["stress_weight"]),
        )


def check_order(stages: Sequence[StageSettings]) -> None:
    """Check that stages start one after the other.

    Raises
    ------
    ValueError
        If they do not.
    """
    starts = [stage.start for stage in stages]
    if sorted(set(starts)) != starts:
        raise ValueError(f"`stages` must be in the order of their `start`, got {starts}")


def energy_weight(step: int, n_steps: int, first: float, last: float, ramp: float) -> float:
    """Return the weight of the energy term: ``first``, then from the fraction ``ramp`` on a rise.

    The rise to ``last`` is geometric and takes a tenth of the run: forces shape the surface, and
    energies are sharpened while the learning rate falls.

    Parameters
    ----------
    step, n_steps
        The step, from 0 to ``n_steps - 1``, and the steps of the run.
    first, last
        Weights before and after, above zero.
    ramp
        Fraction of the run at which the rise begins.
    """
    progress = step / max(1, n_steps - 1)
    rise = min(1.0, max(0.0, (progress - ramp) / 0.1))
    return float(first * (last / first) ** rise)
