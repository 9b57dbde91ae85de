"""The training loop: steps of a fixed number, known before the first."""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from eqpot import keys
from eqpot.data import GraphDataset, collate
from eqpot.graph import Graph, graph_to
from eqpot.potential import Potential
from eqpot.training.ema import ExponentialMovingAverage
from eqpot.training.loss import LossWeights, loss_terms, total_loss
from eqpot.training.progress import RunLog, format_duration
from eqpot.training.schedule import energy_weight, learning_rate_factor

_CALIBRATION_SECONDS = 4.0
_N_WARMUP = 100


@dataclass(frozen=True)
class LoopOptions:
    """Options of :func:`train`; see :class:`eqpot.training.recipe.TrainingSection`.

    Attributes
    ----------
    max_seconds, n_epochs
        Length of the run: one of them is given.
    batch_size
        Frames in a step, over all devices.
    force_unit
        Root mean square of the forces, eV/Å: unit of the loss.
    """

    max_seconds: float | None
    n_epochs: int | None
    batch_size: int
    seed: int
    learning_rate: float
    energy_weight: float
    final_energy_weight: float
    energy_ramp: float
    forces_weight: float
    stress_weight: float
    ema_decay: float
    max_gradient_norm: float
    force_unit: float


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
        Length of the run.
    history
        Validations, the last one at the end.
    """

    potential: Potential
    raw_potential: Potential
    n_steps: int
    n_epochs: float
    seconds: float
    history: list[HistoryEntry] = field(default_factory=list)

    def history_columns(self) -> dict[str, list[float | None]]:
        """Return the history by column; an error without labels is ``None``."""
        rows = [asdict(entry) for entry in self.history]
        names = rows[0] if rows else {}
        return {
            name: [row[name] if math.isfinite(row[name]) else None for row in rows]
            for name in names
        }


class NonFiniteLossError(FloatingPointError):
    """The loss is NaN or infinite; the message names the frames of the batch."""


class _Batches:
    """Endless batches of frames in an order that depends on the seed and the epoch alone."""

    def __init__(self, dataset: GraphDataset, batch_size: int, seed: int, fabric: Fabric) -> None:
        self.dataset = dataset
        self.batch_size = min(batch_size, len(dataset))
        self.seed = seed
        self.rank, self.n_ranks = fabric.global_rank, fabric.world_size
        self.n_batches = len(dataset) // self.batch_size

    def indices(self) -> Iterator[list[int]]:
        """Yield the frames of each step; each process draws its share of them."""
        epoch = 0
        while True:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(len(self.dataset), generator=generator).tolist()
            for index in range(self.n_batches):
                batch = order[index * self.batch_size : (index + 1) * self.batch_size]
                yield batch[self.rank :: self.n_ranks]
            epoch += 1

    def __iter__(self) -> Iterator[tuple[list[int], Graph]]:
        for chosen in self.indices():
            yield chosen, collate([self.dataset[index] for index in chosen])


def train(
    potential: Potential,
    train_set: GraphDataset,
    validation_set: GraphDataset,
    options: LoopOptions,
    fabric: Fabric,
    log: RunLog,
) -> TrainingResult:
    """Train a potential and return it with averaged weights.

    The number of steps is fixed before the first: from the epochs, or from the time by a short
    calibration on a copy. So the schedule always runs to its end.

    Parameters
    ----------
    potential
        With fresh weights, on the device of ``fabric``.
    train_set, validation_set
        Graphs with labels.
    options
        Hyper-parameters.
    fabric
        Launched.
    log
        Told of the progress.

    Raises
    ------
    NonFiniteLossError
        If the loss is not finite, before the weights are touched.
    """
    batches = _Batches(train_set, options.batch_size, options.seed, fabric)
    if batches.batch_size < fabric.world_size:
        raise ValueError(
            f"`batch_size` must be at least the number of devices ({fabric.world_size}), "
            f"got {batches.batch_size}"
        )
    n_steps, validation_interval = _plan(potential, batches, validation_set, options, fabric, log)
    average = ExponentialMovingAverage(potential, options.ema_decay)
    learns = [parameter for parameter in potential.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learns, lr=options.learning_rate, amsgrad=True)
    module, optimizer = fabric.setup(potential, optimizer)
    result = TrainingResult(average.module, potential, n_steps, n_steps / batches.n_batches, 0.0)

    log.start_steps(n_steps)
    started = time.monotonic()
    losses: list[Tensor] = []
    n_warmup = min(_N_WARMUP, n_steps // 10)
    for step, (chosen, graph) in zip(range(n_steps), batches, strict=False):
        rate = options.learning_rate * learning_rate_factor(step, n_steps, n_warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _loss(module, graph_to(graph, fabric.device), options, step, n_steps)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        norm = fabric.clip_gradients(
            module, optimizer, max_norm=options.max_gradient_norm, error_if_nonfinite=False
        )
        assert norm is not None
        if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
            frames = [train_set.frames[index].source or f"frame {index}" for index in chosen]
            raise NonFiniteLossError(
                f"the loss is {loss.item()} and its gradient {norm.item()} at step {step}; frames "
                f"of the batch: {'; '.join(frames)}. Look at their labels, or lower "
                f"`training.learning_rate` (now {options.learning_rate})"
            )
        optimizer.step()
        average.update(potential)
        losses.append(loss.detach())
        done = step + 1
        if done % validation_interval == 0 or done == n_steps:
            entry = HistoryEntry(
                done,
                done / batches.n_batches,
                time.monotonic() - started,
                rate,
                float(torch.stack(losses).mean()),
                *validation_errors(average.module, validation_set, options, fabric),
            )
            losses.clear()
            result.history.append(entry)
            log.line(
                f"epoch {entry.epoch:7.1f}  step {done:7d}  loss {entry.train_loss:9.3e}  "
                f"validation RMSE: energy {1e3 * entry.energy_rmse:8.2f} meV/atom, "
                f"forces {1e3 * entry.forces_rmse:7.2f} meV/Å  lr {rate:.1e}"
            )
        log.step(done, n_steps, loss.item())
    log.stop_steps()
    result.seconds = time.monotonic() - started
    return result


def _loss(module: Any, graph: Graph, options: LoopOptions, step: int, n_steps: int) -> Tensor:
    weights = LossWeights(
        energy_weight(
            step, n_steps, options.energy_weight, options.final_energy_weight, options.energy_ramp
        ),
        options.forces_weight,
        options.stress_weight,
    )
    outputs = module(graph, training=True)
    return total_loss(loss_terms(outputs, graph, options.force_unit), weights)


def _plan(
    potential: Potential,
    batches: _Batches,
    validation_set: GraphDataset,
    options: LoopOptions,
    fabric: Fabric,
    log: RunLog,
) -> tuple[int, int]:
    """Return the number of steps and the steps between validations, equal in all processes."""
    if options.n_epochs is not None:
        n_steps = options.n_epochs * batches.n_batches
        return n_steps, max(batches.n_batches, n_steps // 30)
    assert options.max_seconds is not None
    probe = copy.deepcopy(potential)
    learns = [parameter for parameter in probe.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learns, lr=1e-6, amsgrad=True)
    seconds = min(_CALIBRATION_SECONDS, 0.1 * options.max_seconds)
    started = time.monotonic()
    times = []
    before = started
    for _, graph in batches:
        loss = _loss(probe, graph_to(graph, fabric.device), options, 0, 1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(probe.parameters(), options.max_gradient_norm)
        optimizer.step()
        loss.item()
        now = time.monotonic()
        times.append(now - before)
        before = now
        if len(times) > 3 and time.monotonic() - started > seconds:
            break
    step_seconds = sum(times[2:]) / len(times[2:])
    before = time.monotonic()
    validation_errors(probe, validation_set, options, fabric)
    validation_seconds = time.monotonic() - before
    # at most a tenth of the time goes to validation
    n_validations = int(min(30.0, max(1.0, 0.1 * options.max_seconds / validation_seconds)))
    left = options.max_seconds - (time.monotonic() - started) - n_validations * validation_seconds
    n_steps = max(n_validations, int(left / step_seconds))
    n_steps, n_validations = fabric.broadcast((n_steps, n_validations))
    log.line(
        f"{format_duration(options.max_seconds)} hold {n_steps} steps of "
        f"{1e3 * step_seconds:.1f} ms: {n_steps / batches.n_batches:.1f} epochs"
    )
    return n_steps, max(1, n_steps // n_validations)


def validation_errors(
    potential: Potential, dataset: GraphDataset, options: LoopOptions, fabric: Fabric
) -> tuple[float, float, float]:
    """Return the errors of energy, forces and virials: RMSE in eV/atom, eV/Å and eV/atom.

    A label that no frame carries gives NaN.
    """
    sums = torch.zeros(2, 3, dtype=torch.float64)
    loader = DataLoader(dataset, batch_size=max(1, 4 * options.batch_size), collate_fn=collate)
    for graph in loader:
        graph[keys.WEIGHT] = torch.ones_like(graph[keys.WEIGHT])
        terms = loss_terms(
            potential(graph_to(graph, fabric.device)), graph_to(graph, fabric.device), 1.0
        )
        for column, name in enumerate((keys.ENERGY, keys.FORCES, keys.STRESS)):
            present = (~graph[name].isnan()).sum()
            sums[0, column] += float(terms[name]) * present
            sums[1, column] += present
    values = (sums[0] / sums[1]).sqrt().tolist()
    return values[0], values[1], values[2]
