"""The training loop: steps of a number known before the first; stopped and resumed at will."""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.logger import Logger

from eqpot import keys
from eqpot.allocation import keep_freed_memory
from eqpot.data import GraphDataset, write_store
from eqpot.interruption import InterruptedRunError, Signals
from eqpot.potential import Potential
from eqpot.training.averages import Average, BestWeights, build_average, fill_parameters
from eqpot.training.batches import Batch, FrameOrder, StepDataset, largest_frames, make_batch
from eqpot.training.checkpoint import CheckpointFolder, Snapshot, part_of
from eqpot.training.diagnosis import frame_errors
from eqpot.training.guard import DivergenceGuard
from eqpot.training.history import HistoryEntry, TrainingResult
from eqpot.training.loggers import build_loggers
from eqpot.training.loss import LABELS, LossWeights, combine, label_totals
from eqpot.training.memory import limited_memory, parse_size
from eqpot.training.metric import validation_metric
from eqpot.training.objective import Objective, added
from eqpot.training.optimizers import (
    build_optimizer,
    evaluation_weights,
    load_optimizer_state,
    optimizer_state,
)
from eqpot.training.patience import Patience
from eqpot.training.plan import Plan, plan_run
from eqpot.training.progress import RunLog
from eqpot.training.recipe import TrainingSection
from eqpot.training.rescue import DivergedError, Rescue
from eqpot.training.schedule import Schedule, build_schedule
from eqpot.training.stages import Stages

_STEPS_THAT_PROVE = 20
_SIGNAL_SECONDS = 0.5
_PARTS = ("raw", "average", "best", "optimizer")


def train(
    potential: Potential,
    train_set: GraphDataset,
    validation_set: GraphDataset,
    settings: TrainingSection,
    batch_size: int,
    force_unit: float,
    fabric: Fabric,
    checkpoints: CheckpointFolder,
    log: RunLog,
) -> TrainingResult:
    """Train a potential, or go on with a run that was stopped, and return it with averaged weights.

    The number of steps is fixed before the first: from the epochs, or from the time by a short
    calibration on a copy. So the schedule always runs to its end. A run that was stopped at any
    moment and resumed gives the same bits as one that was not, on the same machine; compiled steps
    on several threads may round differently.

    Each process takes its share of the frames of a step. The loss is a mean over the labels of the
    whole step, however they are spread over processes and over parts that fit the memory.

    Parameters
    ----------
    potential
        With fresh weights, on the device of ``fabric``.
    train_set, validation_set
        Graphs with labels.
    settings
        Hyper-parameters.
    batch_size
        Frames in a step, over all processes.
    force_unit
        Unit of the loss: root mean square of the forces, eV/Å.
    fabric
        Launched.
    checkpoints
        Where the state is kept.
    log
        Told of the progress.

    Raises
    ------
    CompilationError
        If steps shall be compiled and cannot be.
    DivergedError
        If the loss diverges again and again.
    InterruptedRunError
        After SIGINT or SIGTERM; the state is saved.
    MemoryError
        If a single frame does not fit into memory.
    """
    limit = None if settings.memory_limit is None else parse_size(settings.memory_limit)
    trainer = _Trainer(
        potential, train_set, validation_set, settings, batch_size, force_unit, fabric,
        checkpoints, log,
    )  # fmt: skip
    keep_freed_memory()
    with limited_memory(limit), Signals() as signals, _ended_loaders_told(settings):
        trainer.open(signals)
        trainer.advance()
    return trainer.result()


@contextlib.contextmanager
def _ended_loaders_told(settings: TrainingSection) -> Iterator[None]:
    """Say in plain words that a loader has ended, wherever PyTorch notices it."""
    try:
        yield
    except (RuntimeError, EOFError, ConnectionError) as error:
        signs = ("DataLoader worker", "can't start new thread")
        is_told = not isinstance(error, RuntimeError) or any(sign in str(error) for sign in signs)
        if not settings.num_workers or not is_told:
            raise
        # PyTorch raises once more where the program stands when the system's signal comes
        with contextlib.suppress(RuntimeError):
            time.sleep(_SIGNAL_SECONDS)
        raise MemoryError(
            f"a process that loads frames ended ({type(error).__name__}: {error}); fewer "
            "`training.num_workers` and a higher `training.memory_limit` help. The same command "
            "goes on from the last checkpoint"
        ) from error


class _Trainer:
    """One run, from its first step or from a checkpoint."""

    # made when the number of steps is known
    plan: Plan
    stages: Stages
    schedule: Schedule
    average: Average[Potential]
    best: BestWeights[Potential]
    good: Snapshot
    candidate: Snapshot | None

    def __init__(
        self,
        potential: Potential,
        train_set: GraphDataset,
        validation_set: GraphDataset,
        settings: TrainingSection,
        batch_size: int,
        force_unit: float,
        fabric: Fabric,
        checkpoints: CheckpointFolder,
        log: RunLog,
    ) -> None:
        self.potential, self.settings, self.force_unit = potential, settings, force_unit
        self.train_set, self.validation_set = train_set, validation_set
        self.fabric, self.checkpoints, self.log = fabric, checkpoints, log
        self.objective = Objective(
            settings.loss, force_unit, settings.precision, settings.compiled,
            settings.edge_budget, fabric, self._note,
        )  # fmt: skip
        self.order = FrameOrder(len(train_set), batch_size, settings.seed)
        self.optimizer = build_optimizer(potential, settings.optimizer, settings.learning_rate)
        # what a rollback takes back
        self.step = 0
        self.history: list[HistoryEntry] = []
        self.loss_sum, self.n_losses = 0.0, 0
        self.guard = DivergenceGuard(settings.spike_factor)
        self.patience = Patience(
            settings.early_stopping.patience, settings.early_stopping.min_improvement
        )
        self.is_over = False
        # what it does not
        self.events: list[dict[str, Any]] = []
        self.seconds_before = 0.0
        self.rescue = Rescue(settings.max_rollbacks, len(train_set))
        # of this part of the run
        self.started = time.monotonic()
        self.n_frames_seen, self.seconds_waited = 0, 0.0
        self.signals = Signals()

    # --- the run

    def open(self, signals: Signals) -> None:
        """Take over the checkpoint, or make the plan of a new run."""
        self.signals = signals
        checkpoint, word = self.checkpoints.load()
        self.fabric.barrier()  # all have read before one writes
        if checkpoint is None:
            self._probe_memory()
            plan = plan_run(
                self.potential, self.train_set, self.validation_set, self.settings, self.order,
                self.objective, self.log,
            )  # fmt: skip
            self._build(plan)
            self.good = self._snapshot()
            self.candidate = None
        else:
            self._build(Plan(**checkpoint.run["plan"]))
            self._load_run(checkpoint.run)
            self._restore(checkpoint.now)
            self.good = checkpoint.good or checkpoint.now
            self.candidate = checkpoint.candidate
            self._note("resumed", f"{word}, step {self.step} of {self.plan.n_steps}")
        self.loggers = build_loggers(
            self.settings.loggers,
            self.checkpoints.folder / "logs",
            self.checkpoints.folder.name,
            last_step=self.step,
        )
        if self.step == 0:
            recipe = self.checkpoints.identity.get("recipe", {})
            self._tell_loggers(lambda logger: logger.log_hyperparams(recipe))
        self._save()

    def _build(self, plan: Plan) -> None:
        settings, self.plan = self.settings, plan
        weights = LossWeights(
            settings.energy_weight, settings.forces_weight, settings.stress_weight
        )
        self.stages = Stages(
            settings.learning_rate,
            weights,
            settings.final_energy_weight,
            settings.energy_ramp,
            settings.stages,
            plan.n_steps,
        )
        self.schedule = build_schedule(settings.schedule, plan.n_steps)
        self.average = build_average(
            settings.average, settings.ema_decay, self.potential, plan.n_steps
        )
        self.best = BestWeights(self.potential)

    def advance(self) -> None:
        """Take the steps that are left."""
        self.started = time.monotonic()
        self.log.start_steps(self.plan.n_steps, self.step)
        is_over = False
        while not is_over:
            with contextlib.closing(self._load_batches()) as batches:
                is_over = self._take_steps(batches)
        self.log.stop_steps()
        self._save()

    def _take_steps(self, batches: Iterator[Batch]) -> bool:
        """Take steps and return whether the run is over; if not, it goes on with other batches."""
        while True:
            if self._validation_is_due():
                self._validate()
            if self._stop_is_wanted():
                self._stop()
            if self.is_over or self.step == self.plan.n_steps:
                return True
            batch = self._next(batches)
            before = self.objective.edge_budget, self.rescue.excluded, self.step + 1
            loss = self._take_step(batch)
            if loss is not None:
                self.n_frames_seen += self.order.batch_size
                self.log.step(self.step, self.plan.n_steps, loss)
            if self.checkpoints.is_due:
                self._save()
            if before != (self.objective.edge_budget, self.rescue.excluded, self.step):
                return False

    def result(self) -> TrainingResult:
        """Return what the run has left."""
        self._tell_loggers(lambda logger: logger.finalize("success"))
        seconds = max(1e-9, time.monotonic() - self.started)
        deployed = self.best if self.settings.average.deploy == "best" else self.average
        return TrainingResult(
            deployed.module,
            self.potential,
            self.step,
            self._epoch(),
            self._seconds(),
            self.history,
            self.events,
            self.rescue.excluded,
            self.n_frames_seen / seconds,
            self.seconds_waited / seconds,
        )

    def _load_batches(self) -> Generator[Batch]:
        budget, excluded = self.objective.edge_budget, self.rescue.excluded
        dataset = StepDataset(self.train_set, self.order, self.objective.share, budget, excluded)
        return dataset.load(self.step, self.plan.n_steps, self.settings.num_workers)

    def _next(self, batches: Iterator[Batch]) -> Batch:
        before = time.monotonic()
        batch = next(batches)
        self.seconds_waited += time.monotonic() - before
        return batch

    def _stop_is_wanted(self) -> bool:
        number = self.objective.reduced(torch.tensor(float(self.signals.number or 0)), "max")
        self.signals.number = int(number) or None
        return bool(number)

    def _stop(self) -> None:
        self._save()
        self.log.stop_steps()
        assert self.signals.number is not None
        raise InterruptedRunError(
            self.signals.number,
            f"stopped at step {self.step} of {self.plan.n_steps}; it is saved, and the same "
            "command goes on",
        )

    def _epoch(self) -> float:
        return self.step * self.order.batch_size / self.order.n_frames

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def _tell_loggers(self, tell: Callable[[Logger], None]) -> None:
        """Tell the loggers; one that fails is left out: no table is worth the run."""
        for logger in list(self.loggers):
            try:
                tell(logger)
            except Exception as error:
                self.loggers.remove(logger)
                self._note("logger", f"{logger.name} is left out: {type(error).__name__}: {error}")

    def _note(self, kind: str, message: str) -> None:
        self.events.append({"step": self.step, "kind": kind, "message": message})
        self.log.line(f"{kind.replace('_', ' ')}: {message}")

    # --- a step

    def _take_step(self, batch: Batch) -> float | None:
        """Take a step and return its loss; ``None`` if it was not taken or taken back."""
        now = self.stages.at(self.step)
        rate = now.learning_rate * self.schedule.factor(self.step) * self.rescue.rate_factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        totals, nothing = self.objective.summed(
            added(label_totals(part) for part in batch.parts),
            self.objective.sums_of_nothing(batch),
        )
        gradient = self.objective.gradient(
            self.potential, self.train_set, batch, totals, now.weights
        )
        (sums,) = self.objective.summed(gradient)
        self.objective.sum_gradients(self.potential)
        loss = float(combine(sums, totals, now.weights))
        norm = self._clip_gradients()
        # NaN where no frame has forces
        errors = float(sums[keys.FORCES] / totals[keys.FORCES])
        baseline = float(nothing[keys.FORCES] / totals[keys.FORCES])
        reason = self.guard.judge(errors, baseline)
        if reason is not None:
            reason = f"the error of the forces is {reason}"
        if not math.isfinite(loss + norm):
            reason = f"the loss is {loss:.3g} and the norm of its gradient {norm:.3g}"
        if reason is not None and not self._take_anyway(reason, rate, now.weights):
            return None
        if any(totals[name] > 0 for name in LABELS):  # else all its frames are left out
            self.optimizer.step()
            with evaluation_weights(self.optimizer):
                self.average.update(self.potential)
            self._count(errors, baseline)
            self.loss_sum += loss
            self.n_losses += 1
        self.step += 1
        return loss

    def _clip_gradients(self) -> float:
        parameters = [p for p in self.potential.parameters() if p.grad is not None]
        limit = self.settings.max_gradient_norm
        return float(torch.nn.utils.clip_grad_norm_(parameters, limit))

    def _probe_memory(self) -> None:
        """Compute the step with the most neighbours, so that memory ends now or hardly ever."""
        rank, n_ranks = self.objective.share
        largest = largest_frames(self.train_set, self.order.batch_size)[rank::n_ranks]
        batch = make_batch(self.train_set, largest, self.objective.edge_budget)
        totals = added(label_totals(part) for part in batch.parts)
        weights = LossWeights(1.0, 1.0, 1.0)
        self.objective.gradient(self.potential, self.train_set, batch, totals, weights)
        self.potential.zero_grad(set_to_none=True)
        self.objective.share_budget()

    # --- validation

    def _validation_is_due(self) -> bool:
        if self.step == 0 or (self.history and self.history[-1].step == self.step):
            return False
        return self.step % self.plan.validation_interval == 0 or self.step == self.plan.n_steps

    def _validate(self) -> None:
        errors = self.objective.rmse(
            self.average.module,
            self.validation_set,
            4 * self.order.batch_size,
            self._stop_if_alone,
        )
        entry = HistoryEntry(
            self.step,
            self._epoch(),
            self._seconds(),
            self.optimizer.param_groups[0]["lr"],
            self.loss_sum / max(1, self.n_losses),
            *(errors[name] for name in LABELS),
        )
        self.loss_sum, self.n_losses = 0.0, 0
        best_before = min((e.forces_rmse for e in self.history), default=math.inf)
        self.history.append(entry)
        self.log.line(
            f"epoch {entry.epoch:7.1f}  step {entry.step:7d}  loss {entry.train_loss:9.3e}  "
            f"validation RMSE: energy {1e3 * entry.energy_rmse:8.2f} meV/atom, "
            f"forces {1e3 * entry.forces_rmse:7.2f} meV/Å  lr {entry.learning_rate:.1e}"
        )
        metric = validation_metric(
            self.settings.metric,
            entry.energy_rmse,
            entry.forces_rmse,
            entry.virial_rmse,
            self.force_unit,
            self.stages.at(self.plan.n_steps - 1).weights,
        )
        metrics = {**asdict(entry), "metric": metric}
        self._tell_loggers(lambda logger: logger.log_metrics(metrics, step=self.step))
        self.schedule.observe(metric)
        self.best.observe(metric, self.step, self.average.module)
        if self.patience.observe(metric) and self.step < self.plan.n_steps:
            self.is_over = True
            self._note(
                "stopped_early", f"no better validation in {self.patience.n_waited}; the run ends"
            )
        if math.isfinite(metric) and not entry.forces_rmse > 3.0 * best_before:
            self.candidate = self._snapshot()

    def _stop_if_alone(self) -> None:
        """Stop within a validation, which comes again; several processes must stop together."""
        if self.signals.number is not None and self.fabric.world_size == 1:
            self._stop()

    # --- divergence

    def _count(self, error: float, baseline: float) -> None:
        """Count a step that was taken; after enough of them the last validated state was good."""
        self.guard.accept(error, baseline)
        candidate = self.candidate
        if candidate is not None and self.step >= candidate.values["step"] + _STEPS_THAT_PROVE:
            self.good, self.candidate = candidate, None

    def _take_anyway(self, reason: str, rate: float, weights: LossWeights) -> bool:
        """Answer a step that must not be taken as it is; return whether it may be taken after all.

        Each process looks at all frames of the step, and all follow the first one.
        """
        frames = [i for i in self.order.frames(self.step) if i not in self.rescue.excluded]
        probe = copy.deepcopy(self.potential)
        errors = frame_errors(self.objective, probe, self.train_set, frames, weights)
        fill_parameters(probe, part_of(self.good.tensors, "raw"))
        good_errors = frame_errors(self.objective, probe, self.train_set, frames, weights)
        sources = {i: self.train_set.frames[i].source or f"frame {i}" for i in frames}
        good_step = self.good.values["step"]
        answer = self.rescue.answer(
            reason, self.step, rate, good_step, self.guard, sources, errors, good_errors
        )
        answer, state = self.fabric.broadcast((answer, self.rescue.state_dict()))
        self.rescue.load_state_dict(state)
        message = answer.message
        if not answer.takes_step and self.checkpoints.writes:
            path = self.checkpoints.folder / f"batch_of_step_{self.step}.h5"
            write_store(path, [self.train_set.frames[i] for i in frames])
            message += f"; the frames of the step are in {path}"
        if answer.kind is not None:
            self._note(answer.kind, message)
        if answer.ends:
            raise DivergedError(message)
        if answer.rolls_back:
            self._restore(self.good)
            self.candidate = None
        return answer.takes_step

    # --- state

    def _save(self) -> None:
        is_good = self.good.values["step"] == self.step
        good = None if is_good else self.good
        self.checkpoints.save(self._run_values(), self._snapshot(), good, self.candidate)

    def _snapshot(self) -> Snapshot:
        raw = {k: p.detach().to("cpu", copy=True) for k, p in self.potential.named_parameters()}
        average, average_values = self.average.state()
        best, best_values = self.best.state()
        optimizer, optimizer_values = optimizer_state(self.optimizer)
        parts = dict(zip(_PARTS, (raw, average, best, optimizer), strict=True))
        tensors = {f"{p}.{k}": t.contiguous() for p, part in parts.items() for k, t in part.items()}
        values = {
            "step": self.step,
            "is_over": self.is_over,
            "history": [entry.as_dict() for entry in self.history],
            "losses": [self.loss_sum, self.n_losses],
            "average": average_values,
            "best": best_values,
            "optimizer": optimizer_values,
            "guard": self.guard.state_dict(),
            "patience": self.patience.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        return Snapshot(tensors, values)

    def _restore(self, snapshot: Snapshot) -> None:
        tensors, values = snapshot.tensors, snapshot.values
        fill_parameters(self.potential, part_of(tensors, "raw"))
        self.average.load_state(part_of(tensors, "average"), values["average"])
        self.best.load_state(part_of(tensors, "best"), values["best"])
        load_optimizer_state(self.optimizer, part_of(tensors, "optimizer"), values["optimizer"])
        self.step, self.is_over = values["step"], values["is_over"]
        self.history = [HistoryEntry.from_dict(row) for row in values["history"]]
        self.loss_sum, self.n_losses = values["losses"]
        self.guard.load_state_dict(values["guard"])
        self.patience.load_state_dict(values["patience"])
        self.schedule.load_state_dict(values["schedule"])

    def _run_values(self) -> dict[str, Any]:
        return {
            "plan": self.plan.as_dict(),
            "edge_budget": self.objective.edge_budget,
            "edge_budget_of_recipe": self.settings.edge_budget,
            "events": self.events,
            "seconds": self._seconds(),
            "rescue": self.rescue.state_dict(),
        }

    def _load_run(self, values: Mapping[str, Any]) -> None:
        # what the run has found out about the memory holds until the recipe says something else
        own = self.settings.edge_budget
        if values.get("edge_budget_of_recipe", own) == own:
            self.objective.edge_budget = values["edge_budget"]
        self.events = list(values["events"])
        self.seconds_before = values["seconds"]
        self.rescue.load_state_dict(values["rescue"])
