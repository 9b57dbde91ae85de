"""The training loop: steps of a number known before the first; stopped and resumed at will."""

import copy
import gc
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import torch
from lightning_fabric import Fabric
from torch import Tensor

from eqpot import keys
from eqpot.data import GraphDataset, write_store
from eqpot.graph import graph_to
from eqpot.interruption import InterruptedRunError, Signals
from eqpot.potential import Potential
from eqpot.training.batches import Batch, FrameOrder, StepDataset, largest_frames, make_batch
from eqpot.training.checkpoint import CheckpointFolder, Snapshot
from eqpot.training.ema import ExponentialMovingAverage
from eqpot.training.guard import DivergenceGuard
from eqpot.training.loss import (
    LABELS,
    LossSettings,
    LossWeights,
    combine,
    label_totals,
    loss_sums,
)
from eqpot.training.memory import is_out_of_memory, limited_memory, parse_size
from eqpot.training.optimizers import build_optimizer, load_optimizer_state, optimizer_state
from eqpot.training.progress import RunLog, format_duration
from eqpot.training.recipe import DEFAULT_MAX_TIME, TrainingSection, parse_duration
from eqpot.training.rescue import DivergedError, FrameErrors, Rescue
from eqpot.training.schedule import energy_weight, learning_rate_factor

_CALIBRATION_SECONDS: Final = 4.0
_N_WARMUP: Final = 100
_N_VALIDATIONS: Final = 30


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


@dataclass
class TrainingResult:
    """What :func:`train` leaves.

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
    frames_per_second: float = 0.0
    waiting: float = 0.0

    def history_columns(self) -> dict[str, list[float | None]]:
        """Return the history by column; an error without labels is ``None``."""
        rows = [_plain(entry) for entry in self.history]
        names = rows[0] if rows else {}
        return {name: [row[name] for row in rows] for name in names}


def _plain(entry: HistoryEntry) -> dict[str, float | None]:
    return {k: v if math.isfinite(v) else None for k, v in asdict(entry).items()}


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
    moment and resumed gives the same bits as one that was not, on the same machine.

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
    with limited_memory(limit), Signals() as signals:
        trainer.open(signals)
        trainer.advance()
    return trainer.result()


class _Trainer:
    """One run, from its first step or from a checkpoint."""

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
        self.order = FrameOrder(len(train_set), batch_size, settings.seed)
        self.average = ExponentialMovingAverage(potential, settings.ema_decay)
        self.optimizer = build_optimizer(potential, settings.learning_rate)
        self.guard = DivergenceGuard(settings.spike_factor)
        # taken back by a rollback
        self.step = 0
        self.history: list[HistoryEntry] = []
        self.loss_sum, self.n_losses = 0.0, 0
        # not taken back
        self.n_steps = self.validation_interval = 0
        self.edge_budget = settings.edge_budget
        self.events: list[dict[str, Any]] = []
        self.seconds_before = 0.0
        self.rescue = Rescue(settings.max_rollbacks, len(train_set))
        self.good: Snapshot | None = None
        # of this part of the run
        self.started = time.monotonic()
        self.n_frames_seen, self.seconds_waited = 0, 0.0
        self.signals = Signals()

    # --- the run

    def open(self, signals: Signals) -> None:
        """Take over the checkpoint, or make the plan of a new run."""
        self.signals = signals
        checkpoint, word = self.checkpoints.load()
        if checkpoint is None:
            self._plan()
            self.good = self._snapshot()
            self._probe_memory()
        else:
            self._load_run(checkpoint.run)
            self.good = checkpoint.good or checkpoint.now
            self._restore(checkpoint.now)
            self._note("resumed", f"{word}, step {self.step} of {self.n_steps}")
        self.checkpoints.save(self._run_values(), self._snapshot(), self.good)

    def advance(self) -> None:
        """Take the steps that are left."""
        self.started = time.monotonic()
        self.log.start_steps(self.n_steps, self.step)
        batches = self._load_batches()
        while True:
            if self._validation_is_due():
                self._validate()
            if self.step == self.n_steps:
                break
            waiting = time.monotonic()
            try:
                batch = next(batches)
            except RuntimeError:
                # a signal to the whole group ends the workers too
                if self.signals.number is None:
                    raise
                self._stop()
            self.seconds_waited += time.monotonic() - waiting
            plan = self.edge_budget, self.rescue.excluded, self.step
            loss = self._take_step(batch)
            if loss is not None:
                self.n_frames_seen += self.order.batch_size
                self.log.step(self.step, self.n_steps, loss)
            if plan != (self.edge_budget, self.rescue.excluded, self.step - 1):
                batches = self._load_batches()
            if self._stop_is_wanted():
                self._stop()
            if self.checkpoints.is_due:
                self._save()
        self.log.stop_steps()
        self._save()

    def result(self) -> TrainingResult:
        """Return what the run has left."""
        seconds = max(1e-9, time.monotonic() - self.started)
        return TrainingResult(
            self.average.module,
            self.potential,
            self.n_steps,
            self._epoch(),
            self._seconds(),
            self.history,
            self.events,
            self.n_frames_seen / seconds,
            self.seconds_waited / seconds,
        )

    def _load_batches(self) -> Iterator[Batch]:
        share = self.fabric.global_rank, self.fabric.world_size
        dataset = StepDataset(
            self.train_set, self.order, share, self.edge_budget, self.rescue.excluded
        )
        return dataset.load(self.step, self.n_steps, self.settings.num_workers)

    def _stop_is_wanted(self) -> bool:
        wanted = torch.tensor(float(self.signals.number or 0))
        if self.fabric.world_size > 1:
            wanted = self._reduced(wanted.to(self.fabric.device), "max")
            self.signals.number = int(wanted) or None
        return bool(wanted)

    def _stop(self) -> None:
        self._save()
        self.log.stop_steps()
        assert self.signals.number is not None
        raise InterruptedRunError(
            self.signals.number,
            f"stopped at step {self.step} of {self.n_steps}; saved: the same command goes on",
        )

    def _epoch(self) -> float:
        return self.step * self.order.batch_size / self.order.n_frames

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    # --- a step

    def _take_step(self, batch: Batch) -> float | None:
        """Take a step and return its loss; ``None`` if it was not taken or taken back."""
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        weights = self._loss_weights()
        totals, nothing = self._summed(
            _added(label_totals(part) for part in batch.parts), self._sums_of_nothing(batch)
        )
        (sums,) = self._summed(self._gradients(self.potential, batch, totals, weights))
        self._sum_gradients()
        loss = float(combine(sums, totals, weights))
        parameters = [p for p in self.potential.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_gradient_norm))
        force_error = float(sums[keys.FORCES] / totals[keys.FORCES])  # NaN without labels
        baseline = float(nothing[keys.FORCES] / totals[keys.FORCES])
        if not math.isfinite(loss + norm):
            reason: str | None = f"the loss is {loss:.3g} and the norm of its gradient {norm:.3g}"
        else:
            reason = self.guard.judge(force_error, baseline)
            if reason is not None:
                reason = f"the error of the forces is {reason}"
        if reason is not None and not self._take_anyway(reason, rate):
            return None
        if any(totals[name] > 0 for name in LABELS):  # else all frames were left out
            self.optimizer.step()
            self.average.update(self.potential)
            self.guard.accept(force_error)
            self.loss_sum += loss
            self.n_losses += 1
        self.step += 1
        return loss

    def _learning_rate(self) -> float:
        n_warmup = min(_N_WARMUP, self.n_steps // 10)
        factor = learning_rate_factor(self.step, self.n_steps, n_warmup)
        return self.settings.learning_rate * factor * self.rescue.rate_factor

    def _loss_weights(self) -> LossWeights:
        settings = self.settings
        energy = energy_weight(
            self.step,
            self.n_steps,
            settings.energy_weight,
            settings.final_energy_weight,
            settings.energy_ramp,
        )
        return LossWeights(energy, settings.forces_weight, settings.stress_weight)

    def _gradients(
        self,
        potential: Potential,
        batch: Batch,
        totals: dict[str, Tensor],
        weights: LossWeights,
    ) -> dict[str, Tensor]:
        """Set the gradient of this process' share of the loss and return its numerators.

        Where memory does not suffice, the frames are packed into smaller parts, and that size is
        kept. The gradient is the same: it is a sum over frames.
        """
        while True:
            try:
                potential.zero_grad(set_to_none=True)
                sums = []
                for part in batch.parts:
                    graph = graph_to(part, self.fabric.device)
                    part_sums = loss_sums(
                        potential(graph, training=True), graph, self.force_unit, self.settings.loss
                    )
                    combine(part_sums, totals, weights).backward()
                    sums.append({name: value.detach() for name, value in part_sums.items()})
                return _added(sums)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # here the error, which holds all tensors of the step, is gone
            batch = self._in_smaller_parts(batch, self.train_set)

    def _in_smaller_parts(self, batch: Batch, dataset: GraphDataset) -> Batch:
        gc.collect()
        if self.fabric.device.type == "cuda":
            torch.cuda.empty_cache()
        sizes = [part[keys.EDGE_INDEX].shape[1] for part in batch.parts]
        if all(len(group) == 1 for group in batch.groups):
            index = batch.groups[sizes.index(max(sizes))][0]
            raise MemoryError(
                f"{dataset.frames[index].source}: the frame alone, with {max(sizes)} neighbours, "
                "does not fit into memory; take it out, or choose a smaller `model.r_max` or preset"
            )
        divided = [size for size, group in zip(sizes, batch.groups, strict=True) if len(group) > 1]
        self.edge_budget = max(1, max(divided) // 2)
        self._note(
            "memory",
            f"memory did not suffice for {max(divided)} neighbours at once; from here on at most "
            f"{self.edge_budget} are computed together, with the same gradient",
        )
        return make_batch(dataset, batch.frames, self.edge_budget)

    def _sum_gradients(self) -> None:
        """Sum the gradients over the processes; each has that of its share of the loss."""
        if self.fabric.world_size == 1:
            return
        parameters = [p for p in self.potential.parameters() if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        pieces = self._reduced(flat, "sum").split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)

    def _reduced(self, values: Tensor, operation: str) -> Tensor:
        reduced = self.fabric.all_reduce(values, reduce_op=operation)
        assert isinstance(reduced, Tensor)
        return reduced

    def _summed(self, *values: dict[str, Tensor]) -> tuple[dict[str, Tensor], ...]:
        """Return numerators or denominators, summed over the processes."""
        if self.fabric.world_size == 1:
            return values
        rows = torch.stack([torch.stack([entry[name] for name in LABELS]) for entry in values])
        rows = self._reduced(rows.to(self.fabric.device), "sum").cpu()
        return tuple(dict(zip(LABELS, row.unbind(), strict=True)) for row in rows)

    # --- validation

    def _validation_is_due(self) -> bool:
        if self.step == 0 or (self.history and self.history[-1].step == self.step):
            return False
        return self.step % self.validation_interval == 0 or self.step == self.n_steps

    def _validate(self) -> None:
        errors = self._errors(self.average.module)
        entry = HistoryEntry(
            self.step,
            self._epoch(),
            self._seconds(),
            self.optimizer.param_groups[0]["lr"],
            self.loss_sum / max(1, self.n_losses),
            *(errors[name] for name in LABELS),
        )
        self.loss_sum, self.n_losses = 0.0, 0
        self.history.append(entry)
        self.log.line(
            f"epoch {entry.epoch:7.1f}  step {entry.step:7d}  loss {entry.train_loss:9.3e}  "
            f"validation RMSE: energy {1e3 * entry.energy_rmse:8.2f} meV/atom, "
            f"forces {1e3 * entry.forces_rmse:7.2f} meV/Å  lr {entry.learning_rate:.1e}"
        )
        best = min((e.forces_rmse for e in self.history), default=math.inf)
        if not entry.forces_rmse > 3.0 * best:  # a state worth going back to, or one without forces
            self.good = self._snapshot()

    def _errors(self, potential: Potential) -> dict[str, float]:
        """Return the errors of energy, forces and virials: RMSE in eV/atom, eV/Å and eV/atom.

        A label that no frame carries gives NaN.
        """
        own = range(len(self.validation_set))[self.fabric.global_rank :: self.fabric.world_size]
        size = max(1, 4 * self.order.batch_size)
        sums, totals = _zeros(), _zeros()
        for start in range(0, len(own), size):
            batch = make_batch(self.validation_set, own[start : start + size], self.edge_budget)
            done = False
            while not done:
                try:
                    found = [self._squares(potential, part) for part in batch.parts]
                    done = True
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                if not done:
                    batch = self._in_smaller_parts(batch, self.validation_set)
            sums = _added([sums, *(part for part, _ in found)])
            totals = _added([totals, *(part for _, part in found)])
        sums, totals = self._summed(sums, totals)
        return {name: float((sums[name] / totals[name]).sqrt()) for name in LABELS}

    def _squares(
        self, potential: Potential, part: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return sums of squared errors and their number; frames and atoms weigh the same."""
        graph = graph_to(part, self.fabric.device)
        for name in (keys.WEIGHT, keys.ATOM_WEIGHT):
            graph[name] = torch.ones_like(graph[name])
        sums = loss_sums(potential(graph), graph, 1.0, LossSettings())
        return sums, label_totals(graph)

    # --- divergence

    def _take_anyway(self, reason: str, rate: float) -> bool:
        """Answer a step that must not be taken as it is; return whether it may be taken after all.

        All processes come to the same answer: each looks at all frames of the step.
        """
        assert self.good is not None
        frames = [i for i in self.order.frames(self.step) if i not in self.rescue.excluded]
        probe = copy.deepcopy(self.potential)
        errors = self._frame_errors(probe, frames)
        _load_parameters(probe, self.good.tensors, "raw")
        good_errors = self._frame_errors(probe, frames)
        sources = {i: self.train_set.frames[i].source or f"frame {i}" for i in frames}
        good_step = self.good.values["step"]
        answer = self.rescue.answer(
            reason, self.step, rate, good_step, self.guard, sources, errors, good_errors
        )
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
        return answer.takes_step

    def _sums_of_nothing(self, batch: Batch) -> dict[str, Tensor]:
        """Return the numerators of the loss of energies, forces and stresses of zero."""
        parts = []
        for part in batch.parts:
            zeros = {name: torch.zeros_like(part[name]) for name in LABELS}
            parts.append(loss_sums(zeros, part, self.force_unit, self.settings.loss))
        return _added(parts)

    def _frame_errors(self, probe: Potential, frames: list[int]) -> dict[int, FrameErrors]:
        """Return the errors of each frame alone."""
        found = {}
        weights = self._loss_weights()
        for index in frames:
            batch = make_batch(self.train_set, [index], None)
            totals = label_totals(batch.parts[0])
            sums = self._gradients(probe, batch, totals, weights)
            nothing = self._sums_of_nothing(batch)
            gradients = [p.grad for p in probe.parameters() if p.grad is not None]
            found[index] = FrameErrors(
                float(combine(sums, totals, weights)),
                float(torch.nn.utils.get_total_norm(gradients)),
                float(sums[keys.FORCES] / totals[keys.FORCES]),
                float(nothing[keys.FORCES] / totals[keys.FORCES]),
            )
        return found

    # --- the plan

    def _plan(self) -> None:
        """Set the number of steps and the steps between validations, equal in all processes."""
        settings, order = self.settings, self.order
        if settings.epochs is not None:
            self.n_steps = order.n_steps(settings.epochs)
            self.validation_interval = max(order.n_steps(1), self.n_steps // _N_VALIDATIONS)
            return
        max_seconds = parse_duration(settings.max_time or DEFAULT_MAX_TIME)
        started = time.monotonic()
        step_seconds = self._seconds_of_a_step(min(_CALIBRATION_SECONDS, 0.1 * max_seconds))
        before = time.monotonic()
        self._errors(self.average.module)
        validation_seconds = time.monotonic() - before
        # at most a tenth of the time goes to validation
        n_validations = int(min(_N_VALIDATIONS, max(1.0, 0.1 * max_seconds / validation_seconds)))
        left = max_seconds - (time.monotonic() - started) - n_validations * validation_seconds
        n_steps = max(n_validations, int(left / step_seconds))
        n_steps, n_validations = self.fabric.broadcast((n_steps, n_validations))
        self.n_steps, self.validation_interval = n_steps, max(1, n_steps // n_validations)
        self.log.line(
            f"{format_duration(max_seconds)} hold {n_steps} steps of {1e3 * step_seconds:.1f} ms: "
            f"{n_steps * order.batch_size / order.n_frames:.1f} epochs"
        )

    def _seconds_of_a_step(self, seconds: float) -> float:
        """Return the mean time of a step on a copy that is thrown away."""
        probe = copy.deepcopy(self.potential)
        optimizer = build_optimizer(probe, self.settings.learning_rate)
        share = self.fabric.global_rank, self.fabric.world_size
        dataset = StepDataset(self.train_set, self.order, share, self.edge_budget, frozenset())
        started = before = time.monotonic()
        times: list[float] = []
        for batch in dataset.load(0, 2**31, self.settings.num_workers):
            totals = _added(label_totals(part) for part in batch.parts)
            self._gradients(probe, batch, totals, self._loss_weights())
            torch.nn.utils.clip_grad_norm_(probe.parameters(), self.settings.max_gradient_norm)
            optimizer.step()
            now = time.monotonic()
            times.append(now - before)
            before = now
            if len(times) > 3 and now - started > seconds:
                break
        return sum(times[2:]) / len(times[2:])

    def _probe_memory(self) -> None:
        """Compute the batch with the most neighbours, so that memory ends now or not at all."""
        largest = largest_frames(self.train_set, self.order.batch_size)
        own = largest[self.fabric.global_rank :: self.fabric.world_size]
        batch = make_batch(self.train_set, own, self.edge_budget)
        totals = _added(label_totals(part) for part in batch.parts)
        self._gradients(self.potential, batch, totals, self._loss_weights())
        self.potential.zero_grad(set_to_none=True)

    # --- state

    def _note(self, kind: str, message: str) -> None:
        self.events.append({"step": self.step, "kind": kind, "message": message})
        self.log.line(f"{kind.replace('_', ' ')}: {message}")

    def _save(self) -> None:
        now = self._snapshot()
        same = self.good is not None and self.good.values["step"] == self.step
        self.checkpoints.save(self._run_values(), now, None if same else self.good)

    def _snapshot(self) -> Snapshot:
        tensors: dict[str, Tensor] = {}
        tensors |= {f"raw.{k}": p for k, p in self.potential.named_parameters()}
        tensors |= {f"ema.{k}": p for k, p in self.average.module.named_parameters()}
        optimizer_tensors, optimizer_values = optimizer_state(self.optimizer)
        tensors |= {f"optimizer.{k}": t for k, t in optimizer_tensors.items()}
        values = {
            "step": self.step,
            "history": [_plain(entry) for entry in self.history],
            "loss_sum": self.loss_sum,
            "n_losses": self.n_losses,
            "n_updates": self.average.n_updates,
            "guard": self.guard.state_dict(),
            "optimizer": optimizer_values,
        }
        return Snapshot(
            {k: t.detach().to("cpu", copy=True).contiguous() for k, t in tensors.items()}, values
        )

    def _restore(self, snapshot: Snapshot) -> None:
        tensors, values = snapshot.tensors, snapshot.values
        _load_parameters(self.potential, tensors, "raw")
        _load_parameters(self.average.module, tensors, "ema")
        mark = "optimizer."
        load_optimizer_state(
            self.optimizer,
            {k.removeprefix(mark): t for k, t in tensors.items() if k.startswith(mark)},
            values["optimizer"],
        )
        self.step = values["step"]
        self.history = [_entry(row) for row in values["history"]]
        self.loss_sum, self.n_losses = values["loss_sum"], values["n_losses"]
        self.average.n_updates = values["n_updates"]
        self.guard.load_state_dict(values["guard"])

    def _run_values(self) -> dict[str, Any]:
        return {
            "n_steps": self.n_steps,
            "validation_interval": self.validation_interval,
            "edge_budget": self.edge_budget,
            "events": self.events,
            "seconds": self._seconds(),
            "rescue": self.rescue.state_dict(),
        }

    def _load_run(self, values: Mapping[str, Any]) -> None:
        self.n_steps = values["n_steps"]
        self.validation_interval = values["validation_interval"]
        self.edge_budget = values["edge_budget"]
        self.events = list(values["events"])
        self.seconds_before = values["seconds"]
        self.rescue.load_state_dict(values["rescue"])


def _zeros() -> dict[str, Tensor]:
    return {name: torch.zeros((), dtype=torch.float64) for name in LABELS}


def _added(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return sums by label, float64, on the CPU."""
    total = _zeros()
    for part in parts:
        total = {name: total[name] + part[name].to(total[name]) for name in LABELS}
    return total


def _entry(row: dict[str, Any]) -> HistoryEntry:
    values: dict[str, Any] = {k: math.nan if v is None else v for k, v in row.items()}
    return HistoryEntry(**values)


@torch.no_grad()
def _load_parameters(potential: Potential, tensors: Mapping[str, Tensor], prefix: str) -> None:
    for name, parameter in potential.named_parameters():
        parameter.copy_(tensors[f"{prefix}.{name}"])
