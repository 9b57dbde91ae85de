"""Schedules of the learning rate over the steps of a run, whose number is known beforehand."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from eqpot.training.patience import Patience
from eqpot.training.section import Section


class ScheduleSettings(Section):
    """How the learning rate changes over the run, as a factor on ``learning_rate``."""

    kind: Literal["cosine", "constant", "step", "exponential", "wsd", "plateau"] = "cosine"
    """A cosine or an exponential from 1 to ``final``; steps; a constant, then a decay (wsd); or
    steps when the validation no longer improves (plateau)."""
    warmup: Annotated[int, Field(ge=0)] = 100
    """Steps of a linear rise at the start, of any kind; at most a tenth of the run."""
    final: Annotated[float, Field(gt=0, le=1)] = 0.002
    """Factor at the end of cosine, exponential and wsd, and the lowest of step and plateau."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    """wsd: fraction of the run, at its end, in which the rate falls."""
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """step, plateau: the factor is multiplied by this at each step down."""
    interval: Annotated[float, Field(gt=0, le=1)] = 0.2
    """step: fraction of the run between steps down."""
    patience: Annotated[int, Field(ge=1)] = 3
    """plateau: validations in a row without improvement before a step down."""
    min_improvement: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """plateau: fraction of the best value by which a value must be lower to be an improvement."""


class Schedule:
    """Factor on the learning rate at each step; this one is constant after the warm-up.

    Parameters
    ----------
    settings
        Kind and numbers.
    n_steps
        Steps of the run.
    """

    def __init__(self, settings: ScheduleSettings, n_steps: int) -> None:
        self.settings = settings
        self.n_steps = n_steps
        self.n_warmup = min(settings.warmup, n_steps // 10)

    def factor(self, step: int) -> float:
        """Return the factor at a step, from 0 to ``n_steps - 1``."""
        progress = min(1.0, step / max(1, self.n_steps - 1))
        warmup = min(1.0, (step + 1) / max(1, self.n_warmup))
        return warmup * self._factor(progress)

    def _factor(self, progress: float) -> float:
        """Return the factor without the warm-up at a fraction of the run, from 0 to 1."""
        return 1.0

    def observe(self, metric: float) -> None:
        """Take note of a validation; lower is better."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold, as plain JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""


class _Cosine(Schedule):
    def _factor(self, progress: float) -> float:
        final = self.settings.final
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


class _Exponential(Schedule):
    def _factor(self, progress: float) -> float:
        return float(self.settings.final**progress)


class _Step(Schedule):
    def _factor(self, progress: float) -> float:
        n_down = math.floor(progress / self.settings.interval + 1e-9)  # 0.6 / 0.2 is below 3
        return max(self.settings.final, float(self.settings.gamma**n_down))


class _WarmupStableDecay(Schedule):
    def _factor(self, progress: float) -> float:
        final, decay = self.settings.final, self.settings.decay
        fallen = max(0.0, (progress - (1 - decay)) / decay)
        return 1 - (1 - final) * math.sqrt(min(1.0, fallen))


class _Plateau(Schedule):
    def __init__(self, settings: ScheduleSettings, n_steps: int) -> None:
        super().__init__(settings, n_steps)
        self.patience = Patience(settings.patience, settings.min_improvement)
        self.n_down = 0

    def _factor(self, progress: float) -> float:
        return max(self.settings.final, float(self.settings.gamma**self.n_down))

    def observe(self, metric: float) -> None:
        if self.patience.observe(metric):
            self.n_down += 1
            self.patience.n_waited = 0

    def state_dict(self) -> dict[str, Any]:
        return {"n_down": self.n_down, "patience": self.patience.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.n_down = state["n_down"]
        self.patience.load_state_dict(state["patience"])


_KINDS: dict[str, type[Schedule]] = {
    "cosine": _Cosine,
    "constant": Schedule,
    "step": _Step,
    "exponential": _Exponential,
    "wsd": _WarmupStableDecay,
    "plateau": _Plateau,
}


def build_schedule(settings: ScheduleSettings, n_steps: int) -> Schedule:
    r"""Return the schedule of a run.

    With the progress :math:`t` from 0 to 1, the end :math:`e` (``final``), and the warm-up as a
    further factor:

    .. math::
        \text{cosine} &: e + (1 - e) (1 + \cos \pi t) / 2 \\
        \text{exponential} &: e^t \\
        \text{step} &: \gamma^{\lfloor t / \mathrm{interval} \rfloor}, \text{ not below } e \\
        \text{wsd} &: 1 - (1 - e) \sqrt{\max(0, t - 1 + d) / d}, \quad d = \mathrm{decay}

    and plateau multiplies by γ whenever the validation has not improved ``patience`` times in a
    row, not below :math:`e`.

    Parameters
    ----------
    settings
        Kind and numbers.
    n_steps
        Steps of the run.

    References
    ----------
    Loshchilov and Hutter, SGDR, ICLR 2017, eq. 5, without restarts. Warm-up, stable, decay: Hu et
    al., MiniCPM, arXiv:2404.06395; the decay "1-sqrt" of Hägele et al., NeurIPS 2024,
    arXiv:2405.18392.
    """
    return _KINDS[settings.kind](settings, n_steps)
