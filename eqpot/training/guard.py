"""The guard against divergence: what is a loss that must not become an update."""

import math
import statistics
from typing import Any, Final

_WINDOW: Final = 100
_LEAST: Final = 20
_CLIMB: Final = 50
_WORSE: Final = 10.0
_LOST: Final = 4.0


class DivergenceGuard:
    """Judges the error of the forces of each step by those before it, and by that of no forces.

    Two things are divergence: one error that is far above the median of the last hundred and far
    above what forces of zero would give, there and in the mean of the hundred; and errors that over
    fifty steps add up to more than four times what forces of zero would give. In sets where most
    frames are at rest, errors of the others are far above the median, but not above what zero
    gives. Of a relaxed surface, zero gives almost the forces: before it is learned its error is far
    above that, but not above what zero gives elsewhere. Each alone is no alarm.
    What is judged is the error of the forces, whose weight and unit stay the same over a run.

    Parameters
    ----------
    spike_factor
        Ratio to the median that makes a spike.
    """

    def __init__(self, spike_factor: float) -> None:
        self.spike_factor = spike_factor
        self.recent: list[tuple[float, float]] = []

    def judge(self, error: float, baseline: float) -> str | None:
        """Return why an error is one of divergence, or ``None``.

        Parameters
        ----------
        error
            Of the step; NaN if it has none to judge.
        baseline
            Error of forces of zero.
        """
        if math.isnan(error):
            return None
        if self.is_spike(error, baseline):
            ratio = error / self._median()
            return f"{ratio:.3g} times the median of the last {len(self.recent)} steps"
        late = [*self.recent, (error, baseline)][-_CLIMB:]
        total, nothing = (sum(column) for column in zip(*late, strict=True))
        if len(late) == _CLIMB and total > _LOST * nothing > 0.0:
            return f"over {_CLIMB} steps {total / nothing:.3g} times that of forces of zero"
        return None

    def is_spike(self, error: float, baseline: float) -> bool:
        """Return whether an error, of a step or of a frame of it, is a spike."""
        if len(self.recent) < _LEAST:
            return False
        usual = statistics.fmean(nothing for _, nothing in self.recent)
        if not error > _WORSE * max(baseline, usual):
            return False
        return error > self.spike_factor * self._median()

    def _median(self) -> float:
        return statistics.median(error for error, _ in self.recent)

    def accept(self, error: float, baseline: float) -> None:
        """Count the error of a step that was taken."""
        if not math.isnan(error):
            self.recent = [*self.recent, (error, baseline)][-_WINDOW:]

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {"recent": [list(pair) for pair in self.recent]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state."""
        self.recent = [(error, baseline) for error, baseline in state["recent"]]
