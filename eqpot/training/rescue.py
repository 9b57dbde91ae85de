"""What to do when a run diverges: leave out a frame, go back with a lower rate, or end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from eqpot.training.guard import DivergenceGuard

_RATE_FACTOR: Final = 0.25
_LEAST_EXCLUDED: Final = 10
_SHARE_EXCLUDED: Final = 0.01
_NAMED: Final = 5


class DivergedError(FloatingPointError):
    """The run diverged more often than it was rolled back; the message names the frames."""


@dataclass(frozen=True)
class FrameErrors:
    """Errors of one frame alone, in units of the loss.

    Attributes
    ----------
    loss
        Its loss.
    gradient
        Norm of the gradient of its loss.
    forces
        Force term of the loss; NaN without forces.
    baseline
        The same for forces of zero.
    """

    loss: float
    gradient: float
    forces: float
    baseline: float

    @property
    def is_finite(self) -> bool:
        """Whether it can be learned from."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient)


@dataclass(frozen=True)
class Answer:
    """What to do.

    Attributes
    ----------
    kind
        Of the event to record: ``frame_excluded``, ``outlier``, ``rollback``, ``diverged``;
        ``None`` if it was recorded before.
    message
        For the log.
    """

    kind: str | None
    message: str

    @property
    def takes_step(self) -> bool:
        """Whether the step may be taken after all."""
        return self.kind in (None, "outlier")

    @property
    def rolls_back(self) -> bool:
        """Whether the run goes back to the last good state."""
        return self.kind == "rollback"

    @property
    def ends(self) -> bool:
        """Whether the run must end."""
        return self.kind == "diverged"


class Rescue:
    """Decides by the errors of the frames of a step, with the present and the last good weights.

    A frame that cannot be learned from with good weights has wrong labels or positions: it is left
    out. One whose error is a spike with good weights too is an outlier: it is named once, and as
    the gradient is clipped, it may be learned from. Otherwise the weights are to blame: the run
    goes back to the last good ones with a quarter of the learning rate.

    Parameters
    ----------
    max_rollbacks
        How often a run may go back.
    n_frames
        Frames of the training set.
    """

    def __init__(self, max_rollbacks: int, n_frames: int) -> None:
        self.max_rollbacks = max_rollbacks
        self.max_excluded = max(_LEAST_EXCLUDED, int(_SHARE_EXCLUDED * n_frames))
        self.n_rollbacks = 0
        self.excluded: frozenset[int] = frozenset()
        self.outliers: set[int] = set()

    @property
    def rate_factor(self) -> float:
        """Factor on the learning rate, after all rollbacks so far."""
        return _RATE_FACTOR**self.n_rollbacks

    def answer(
        self,
        reason: str,
        step: int,
        rate: float,
        good_step: int,
        guard: DivergenceGuard,
        sources: Mapping[int, str],
        errors: Mapping[int, FrameErrors],
        good_errors: Mapping[int, FrameErrors],
    ) -> Answer:
        """Return what to do about a step.

        Parameters
        ----------
        reason
            Why the step must not be taken as it is.
        step, rate
            The step and its learning rate.
        good_step
            Step of the last good weights.
        guard
            Knows what a spike is.
        sources
            Where the frames of the step come from.
        errors, good_errors
            Of each frame, with the present and with the last good weights.
        """
        poisoned = [i for i, error in good_errors.items() if not error.is_finite]
        if poisoned:
            return self._exclude(poisoned, good_step, sources, good_errors)
        step_is_finite = all(error.is_finite for error in errors.values())
        outliers = [
            i for i, error in good_errors.items() if guard.is_spike(error.forces, error.baseline)
        ]
        if outliers and step_is_finite:
            new = [i for i in outliers if i not in self.outliers]
            self.outliers.update(new)
            names = "; ".join(sources[i] for i in new)
            message = (
                f"{names}: the error of the forces is more than {guard.spike_factor:g} times that "
                "of other frames, whatever the weights; look at the labels. The frame is kept"
            )
            return Answer("outlier" if new else None, message)
        worst = sorted(errors, key=lambda i: -_size(errors[i]))[:_NAMED]
        names = "; ".join(f"{sources[i]} (loss {errors[i].loss:.3g})" for i in worst)
        what = f"at step {step} {reason} (learning rate {rate:.2g}); frames, worst first: {names}"
        if self.n_rollbacks >= self.max_rollbacks:
            return Answer(
                "diverged",
                f"{what}. The run went back {self.n_rollbacks} times and diverges still: look at "
                "these frames, or begin again with a lower `training.learning_rate`",
            )
        self.n_rollbacks += 1
        return Answer(
            "rollback",
            f"{what}. Goes back to step {good_step} with {self.rate_factor:.3g} of the learning "
            f"rate ({self.n_rollbacks} of at most {self.max_rollbacks} times)",
        )

    def _exclude(
        self,
        frames: list[int],
        good_step: int,
        sources: Mapping[int, str],
        good_errors: Mapping[int, FrameErrors],
    ) -> Answer:
        self.excluded |= set(frames)
        names = "; ".join(
            f"{sources[i]}: its loss is {good_errors[i].loss:.3g} and the norm of its gradient "
            f"{good_errors[i].gradient:.3g}"
            for i in frames
        )
        what = (
            f"{names}, with the good weights of step {good_step} too: no weights can learn this; "
            "its labels or positions are wrong"
        )
        if len(self.excluded) > self.max_excluded:
            return Answer(
                "diverged", f"{what}. {len(self.excluded)} such frames: mend the data first"
            )
        return Answer("frame_excluded", f"{what}. It is left out from here on")

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {
            "n_rollbacks": self.n_rollbacks,
            "excluded": sorted(self.excluded),
            "outliers": sorted(self.outliers),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self.n_rollbacks = state["n_rollbacks"]
        self.excluded = frozenset(state["excluded"])
        self.outliers = set(state["outliers"])


def _size(error: FrameErrors) -> float:
    return error.loss if math.isfinite(error.loss) else math.inf
