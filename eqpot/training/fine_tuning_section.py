"""The section ``fine_tuning`` of a recipe."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from eqpot.training.section import Section


class FineTuningSection(Section):
    """Start from a trained potential. Without ``potential``, training starts from fresh weights."""

    potential: Annotated[str, Field(min_length=1)] | None = None
    """File (.eqpot) of the potential to start from. The section ``model`` is then taken from it."""
    weights: Literal["ema", "raw"] = "ema"
    """The averaged weights of the file, or those of its last step."""
    train: Literal["all", "heads", "low_rank"] = "all"
    """What learns: all weights, the readouts alone, or a low-rank update of every linear map."""
    rank: Annotated[int, Field(ge=1, le=256)] = 8
    """Rank of the updates of ``low_rank``."""
    learning_rate_factor: Annotated[float, Field(gt=0)] | None = None
    """Factor on ``training.learning_rate``; without it 0.25 for all, 1 for heads and low_rank."""
    reference_energies: Literal["refit", "shift", "keep"] = "refit"
    """E0: anew (given, isolated atoms, fit), from a fit even with isolated atoms, or the file's."""
    replay: list[str] = []  # noqa: RUF012 (pydantic copies it)
    """Files of frames on which the potential was trained, mixed in so that it does not forget."""
    replay_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Fraction of the training frames that are old ones; they are drawn once, by the seed."""

    @field_validator("replay", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _needs_a_potential(self) -> "FineTuningSection":
        if self.potential is None:
            changed = [
                name
                for name, field in type(self).model_fields.items()
                if getattr(self, name) != field.default
            ]
            if changed:
                raise ValueError(
                    f"`{changed[0]}` needs `potential`, the file of the potential to start from"
                )
        return self
