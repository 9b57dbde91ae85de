"""What a run leaves behind besides its files: validations, events, figures of speed."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from eqpot.potential import Potential


@dataclass(frozen=True)
class HistoryEntry:
    """State of a run at a validation: root mean square errors in eV/atom, eV/Å, eV/atom."""

    step: int
    epoch: float
    seconds: float
    learning_rate: float
    train_loss: float
    energy_rmse: float
    forces_rmse: float
    virial_rmse: float

    def as_dict(self) -> dict[str, float | None]:
        """Return the values by name; what is not finite is ``None``."""
        return {k: v if math.isfinite(v) else None for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "HistoryEntry":
        """Return the entry that :meth:`as_dict` came from; ``None`` is NaN."""
        values: dict[str, Any] = {k: math.nan if v is None else v for k, v in row.items()}
        return cls(**values)


@dataclass
class TrainingResult:
    """What :func:`eqpot.training.loop.train` leaves.

    Attributes
    ----------
    potential
        With the averaged weights.
    raw_potential
        With the weights of the last step.
    n_steps, n_epochs, seconds
        Length of the run, over all its parts.
    history
        Validations, the last one at the end.
    events
        What happened beside the plan: each with ``step``, ``kind`` and ``message``.
    excluded
        Training frames that were left out, as no weights could learn them.
    frames_per_second
        Of the last part of the run, validation included.
    waiting
        Share of that time in which the steps waited for frames.
    """

    potential: Potential
    raw_potential: Potential
    n_steps: int
    n_epochs: float
    seconds: float
    history: list[HistoryEntry] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    excluded: frozenset[int] = frozenset()
    frames_per_second: float = 0.0
    waiting: float = 0.0

    def history_columns(self) -> dict[str, list[float | None]]:
        """Return the history by column; an error without labels is ``None``."""
        rows = [entry.as_dict() for entry in self.history]
        names = rows[0] if rows else {}
        return {name: [row[name] for row in rows] for name in names}
