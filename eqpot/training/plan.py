"""The plan of a run: how many steps it has, and when it validates; fixed before the first step."""

import contextlib
import copy
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Final

import torch

from eqpot.data import GraphDataset
from eqpot.potential import Potential
from eqpot.training.batches import FrameOrder, StepDataset
from eqpot.training.loss import LossWeights, label_totals
from eqpot.training.objective import Objective, added
from eqpot.training.optimizers import build_optimizer
from eqpot.training.progress import RunLog, format_duration
from eqpot.training.recipe import DEFAULT_MAX_TIME, TrainingSection, parse_duration

_CALIBRATION_SECONDS: Final = 4.0
_N_VALIDATIONS: Final = 30


@dataclass(frozen=True)
class Plan:
    """Length of a run.

    Attributes
    ----------
    n_steps
        Steps.
    validation_interval
        Steps between validations; there is one after the last step in any case.
    """

    n_steps: int
    validation_interval: int

    def as_dict(self) -> dict[str, int]:
        """Return the numbers by name."""
        return asdict(self)


def plan_run(
    potential: Potential,
    train_set: GraphDataset,
    validation_set: GraphDataset,
    settings: TrainingSection,
    order: FrameOrder,
    objective: Objective,
    log: RunLog,
) -> Plan:
    """Return the plan that all processes follow: by epochs, or by a time and a short calibration.

    Parameters
    ----------
    potential
        Not changed: the calibration works on a copy.
    train_set, validation_set
        Graphs.
    settings
        Give ``epochs`` or ``max_time``.
    order
        Frames of each step.
    objective
        Computes the steps.
    log
        Told of the pace.
    """
    if settings.epochs is not None:
        n_steps = order.n_steps(settings.epochs)
        return Plan(n_steps, max(order.n_steps(1), n_steps // _N_VALIDATIONS))
    max_seconds = parse_duration(settings.max_time or DEFAULT_MAX_TIME)
    started = time.monotonic()
    seconds = min(_CALIBRATION_SECONDS, 0.1 * max_seconds)
    step_seconds = _seconds_of_a_step(potential, train_set, settings, order, objective, seconds)
    before = time.monotonic()
    objective.rmse(potential, validation_set, 4 * order.batch_size)
    validation_seconds = time.monotonic() - before
    # at most a tenth of the time goes to validation
    n_validations = int(min(_N_VALIDATIONS, max(1.0, 0.1 * max_seconds / validation_seconds)))
    left = max_seconds - (time.monotonic() - started) - n_validations * validation_seconds
    n_steps = max(n_validations, int(left / step_seconds))
    n_steps, n_validations = objective.fabric.broadcast((n_steps, n_validations))
    log.line(
        f"{format_duration(max_seconds)} hold {n_steps} steps of {1e3 * step_seconds:.1f} ms: "
        f"{n_steps * order.batch_size / order.n_frames:.1f} epochs"
    )
    return Plan(n_steps, max(1, n_steps // n_validations))


def _seconds_of_a_step(
    potential: Potential,
    train_set: GraphDataset,
    settings: TrainingSection,
    order: FrameOrder,
    objective: Objective,
    seconds: float,
) -> float:
    """Return the median time of a step on a copy that is thrown away."""
    probe = copy.deepcopy(potential)
    optimizer = build_optimizer(probe, settings.optimizer, settings.learning_rate)
    dataset = StepDataset(train_set, order, objective.share, objective.edge_budget, frozenset())
    weights = LossWeights(settings.energy_weight, settings.forces_weight, settings.stress_weight)
    started = before = time.monotonic()
    times: list[float] = []
    with contextlib.closing(dataset.load(0, 2**31, settings.num_workers)) as batches:
        for batch in batches:
            totals = added(label_totals(part) for part in batch.parts)
            objective.sums_of_nothing(batch)
            objective.gradient(probe, train_set, batch, totals, weights)
            torch.nn.utils.clip_grad_norm_(
                [p for p in probe.parameters() if p.grad is not None], settings.max_gradient_norm
            )
            optimizer.step()
            now = time.monotonic()
            times.append(now - before)
            before = now
            if len(times) > 3 and now - started > seconds:
                break
    return statistics.median(times[2:])
