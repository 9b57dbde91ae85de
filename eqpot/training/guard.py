"""The guard against divergence: what is a loss that must not become an update."""

import math
import statistics
from typing import Any, Final

_WINDOW: Final = 100
_LEAST: Final = 20
_GROWN: Final = 10.0
_WORSE: Final = 2.0


class DivergenceGuard:
    """Judges the error of each step by those before it.

    Two things are divergence: one error far above the median of the last hundred that is also
    above what forces of zero would give, and a median that has grown to ten times that of the
    first twenty. A frame of extreme forces alone can do the first of the one, never both; the
    other is slow to see, but catches a loss that climbs step by step. What is judged is the error
    of the forces, whose weight and unit stay the same over a run.

    Parameters
    ----------
    spike_factor
        Ratio to the median that makes a spike.
    """

    def __init__(self, spike_factor: float) -> None:
        self.spike_factor = spike_factor
        self.recent: list[float] = []
        self.first: float | None = None

    def judge(self, error: float, baseline: float) -> str | None:
        """Return why an error is one of divergence, or ``None``.

        Parameters
        ----------
        error
            Of the step; NaN if it has none to judge.
        baseline
            Error of forces of zero.
        """
        if math.isnan(error) or len(self.recent) < _LEAST:
            return None
        if self.is_spike(error, baseline):
            ratio = error / statistics.median(self.recent)
            return f"{ratio:.3g} times the median of the last {len(self.recent)} steps"
        if self.first is not None and len(self.recent) >= _WINDOW // 2:
            late = statistics.median(self.recent[-_WINDOW // 2 :])
            if late > _GROWN * self.first:
                return f"over the last steps {late / self.first:.3g} times what it was at the start"
        return None

    def is_spike(self, error: float, baseline: float) -> bool:
        """Return whether an error, of a step or of a frame of it, is a spike."""
        if len(self.recent) < _LEAST or not error > _WORSE * baseline:
            return False
        return error > self.spike_factor * statistics.median(self.recent)

    def accept(self, error: float) -> None:
        """Count the error of a step that was taken."""
        if math.isnan(error):
            return
        self.recent = [*self.recent, error][-_WINDOW:]
        if self.first is None and len(self.recent) == _LEAST:
            self.first = statistics.median(self.recent)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {"recent": list(self.recent), "first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state."""
        self.recent, self.first = list(state["recent"]), state["first"]
