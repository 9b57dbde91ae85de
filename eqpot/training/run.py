"""One run from a recipe to a verified potential and its numbers."""

import contextlib
import copy
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from lightning_fabric import Fabric

import eqpot
from eqpot.data import Frame, GraphDataset, collate
from eqpot.durable import locked_folder, write_durably
from eqpot.elements import SYMBOLS
from eqpot.export import export_torchscript
from eqpot.files import save_potential
from eqpot.models import build_model, settings_of
from eqpot.physics.reference_energies import reference_energies
from eqpot.physics.zbl import ZBLRepulsion
from eqpot.potential import Potential
from eqpot.training.base_potential import BasePotential, read_base_potential, recipe_with_base
from eqpot.training.checkpoint import NAME as CHECKPOINT
from eqpot.training.checkpoint import PREVIOUS as PREVIOUS_CHECKPOINT
from eqpot.training.checkpoint import CheckpointFolder, check_identity
from eqpot.training.evaluation import Evaluation, evaluate
from eqpot.training.fine_tuning import FineTuning, start_fine_tuning, trainable_parameters
from eqpot.training.history import TrainingResult
from eqpot.training.initialization import scale_to_data
from eqpot.training.loop import train
from eqpot.training.low_rank import merged
from eqpot.training.progress import RunLog, format_duration
from eqpot.training.recipe import Recipe, TrainingSection, parse_duration, read_recipe, recipe_text
from eqpot.training.run_data import (
    RunData,
    audit_data,
    check_elements,
    chosen,
    elements_of,
    graphs_of,
    joined,
    read_data,
    spread,
    without_isolated_atoms,
)
from eqpot.training.statistics import Statistics, training_statistics

RECIPE: Final = "recipe.yaml"
METRICS: Final = "metrics.json"
AUDIT: Final = "audit.json"
_ATOMS_IN_BATCH = 80
_FRAMES_FOR_SCALE = 16
_TRAIN_FRAMES_EVALUATED = 2000


@dataclass(frozen=True)
class RunResult:
    """What a run leaves, for the report.

    Attributes
    ----------
    output
        Folder.
    metrics
        The content of ``metrics.json``.
    training
        Potential and history.
    evaluations
        Errors by name of the set: ``train``, ``validation`` and each test file.
    """

    output: Path
    metrics: dict[str, Any]
    training: TrainingResult
    evaluations: dict[str, Evaluation]


def run(
    recipe: Recipe, log: RunLog, finish: Callable[[RunResult], None] | None = None
) -> RunResult | None:
    """Train by a recipe and write potential, export, metrics and log into its output folder.

    All input is read and checked before the folder is made. A run that was stopped, by whatever,
    goes on where it stood when it is called again; its checkpoints are removed at its end.

    Parameters
    ----------
    recipe
        Every choice of the run.
    log
        Told of everything; opened here as ``train.log``.
    finish
        Called with the result before the run counts as finished; such as the report.

    Returns
    -------
    RunResult or None
        ``None`` in all processes but the first.

    Raises
    ------
    FileExistsError
        If the output folder holds a finished run or foreign files.
    ValueError
        If it holds the run of another recipe or other data, or the data are not sound (see
        :func:`eqpot.data.read_frames`).
    InterruptedRunError
        After SIGINT or SIGTERM while training; the state is saved.
    """
    recipe, base = resolved(recipe)
    training = recipe.training
    output = Path(recipe.output)
    # before the launch: an error of one process alone would leave the others waiting
    check_output(recipe)
    fabric = Fabric(
        accelerator=_accelerator(training.accelerator),
        devices=training.devices,
        num_nodes=training.num_nodes,
    )
    fabric.launch()
    log.silent = not fabric.is_global_zero
    started = time.monotonic()
    data = read_data(recipe, log)
    audit = _audit(recipe, data, fabric, log) if recipe.data.audit else None
    start = _start(recipe, base, data, log, fabric)
    identity: dict[str, Any] = {"recipe": recipe.identity(), "data_sha256": data.sha256}
    if base is not None:
        identity["base_sha256"] = base.sha256
    checkpoints = CheckpointFolder(
        output,
        identity,
        parse_duration(training.checkpoint_interval),
        writes=fabric.is_global_zero,
    )
    with contextlib.ExitStack() as stack:
        if fabric.is_global_zero:
            output.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked_folder(output))
            write_durably(output / RECIPE, recipe_text(recipe).encode())
            if audit is not None:
                write_durably(output / AUDIT, (json.dumps(audit, indent=1) + "\n").encode())
            log.open(output / "train.log")
        fabric.barrier()
        result = train(
            start.potential.to(fabric.device),
            start.train_set,
            graphs_of(data.validation, recipe.model.r_max),
            start.training,
            start.batch_size,
            start.statistics.force_rms,
            fabric,
            checkpoints,
            log,
        )
        if not fabric.is_global_zero:
            return None
        result.potential = merged(result.potential)
        result.raw_potential = merged(result.raw_potential)
        log.line(
            f"trained {result.n_steps} steps in {format_duration(result.seconds)}; lately "
            f"{result.frames_per_second:.1f} frames/s, {result.waiting:.1%} waiting for frames"
        )
        whole = _write_results(recipe, data, start, result, audit, log, started)
        if finish is not None:
            finish(whole)
        checkpoints.remove()
        return whole


@dataclass(frozen=True)
class _Start:
    """A run before its first step; ``training`` holds the learning rate as it will be."""

    potential: Potential
    learned: Sequence[Frame]
    train_set: GraphDataset
    statistics: Statistics
    training: TrainingSection
    batch_size: int
    fine_tuning: FineTuning | None


def _audit(recipe: Recipe, data: RunData, fabric: Fabric, log: RunLog) -> dict[str, Any]:
    """Return the audit of the data; that of a run that goes on is in its folder.

    Raises
    ------
    ValueError
        If something is wrong.
    """
    path = Path(recipe.output) / AUDIT
    if path.is_file():
        earlier: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return earlier
    found: dict[str, Any] = {}
    errors = ""
    if fabric.is_global_zero:
        audit = audit_data(data)
        log.line(str(audit))
        found, errors = audit.as_dict(), audit.error_text(recipe.data.accept)
    errors = fabric.broadcast(errors)
    if errors:
        raise ValueError(
            f"the audit found what a training should not rest on:\n{errors}\nMend the data; or, to "
            "train on them as they are, name the cause (in brackets) in `data.accept`"
        )
    return found


def _start(
    recipe: Recipe, base: BasePotential | None, data: RunData, log: RunLog, fabric: Fabric
) -> _Start:
    """Return the potential to train, fresh or trained before, and what it learns from."""
    training = recipe.training
    # isolated atoms have given their E0s: the model is exact for them whatever its weights are
    learned = without_isolated_atoms(data.train)
    if not learned:
        raise ValueError("`data.train` holds isolated atoms only: there is nothing to learn from")
    elements = elements_of(learned)
    known = base.potential.atomic_numbers if base is not None else []
    check_elements([*known, *elements], data)
    fine_tuning = None
    if base is not None:
        fine_tuning = start_fine_tuning(
            recipe, base, data.train, data.replay, data.validation, log, fabric.device
        )
        learned = joined([learned, fine_tuning.replay])
        factor = recipe.fine_tuning.learning_rate_factor or 1.0
        training = training.model_copy(update={"learning_rate": factor * training.learning_rate})
    train_set = graphs_of(learned, recipe.model.r_max)
    statistics = training_statistics(train_set)
    if fine_tuning is not None:
        potential = fine_tuning.potential
    else:
        references = reference_energies(data.train, recipe.data.reference_energies)
        log.line(str(references))
        energies = {z: references.energies[z] for z in elements}
        potential = fresh_potential(recipe, energies, statistics, train_set)
    log.line(
        f"{recipe.model.kind} {recipe.model.preset}: {_n_weights(potential)} weights, r_max "
        f"{recipe.model.r_max} Å, {statistics.avg_num_neighbors:.1f} neighbours, "
        f"rms force {statistics.force_rms:.3f} eV/Å"
    )
    batch_size = training.batch_size or max(1, round(_ATOMS_IN_BATCH / statistics.n_atoms))
    batch_size = min(batch_size, len(learned))
    return _Start(potential, learned, train_set, statistics, training, batch_size, fine_tuning)


def _n_weights(potential: Potential) -> int:
    return sum(parameter.numel() for parameter in trainable_parameters(potential))


def _write_results(
    recipe: Recipe,
    data: RunData,
    start: _Start,
    result: TrainingResult,
    audit: dict[str, Any] | None,
    log: RunLog,
    started: float,
) -> RunResult:
    """Write potential, export and metrics."""
    output, fine_tuning = Path(recipe.output), start.fine_tuning
    provenance = {
        "recipe": recipe.model_dump(mode="json"),
        "data_sha256": data.sha256,
        "versions": _versions(),
        "n_steps": result.n_steps,
        "n_epochs": result.n_epochs,
    }
    if fine_tuning is not None:
        provenance["fine_tuning"] = fine_tuning.provenance()
    native = output / "potential.eqpot"

    def save(errors: dict[str, Any]) -> None:
        save_potential(
            native,
            copy.deepcopy(result.potential).to("cpu"),
            raw_weights=copy.deepcopy(result.raw_potential).to("cpu"),
            provenance=provenance,
            errors=errors,
        )

    save({})  # whatever the evaluation meets, the weights are there
    used = [index for index in range(len(start.learned)) if index not in result.excluded]
    sample = spread(chosen(start.learned, used), _TRAIN_FRAMES_EVALUATED)
    sets = {"train": sample, "validation": data.validation, **data.tests}
    evaluations = {name: evaluate(result.potential, frames) for name, frames in sets.items()}
    for name, evaluation in evaluations.items():
        log.line(f"{name}: {evaluation}")
    errors = {name: evaluation.as_dict() for name, evaluation in evaluations.items()}
    save(errors)
    export_torchscript(native, output / "potential.pt", recipe.training.dtype)
    potential, statistics = result.potential, start.statistics
    references = zip(potential.atomic_numbers, potential.reference_energies, strict=True)
    metrics = {
        "errors": errors,
        "history": result.history_columns(),
        "events": result.events,
        "statistics": {
            "n_weights": _n_weights(start.potential),
            "avg_num_neighbors": statistics.avg_num_neighbors,
            "force_rms": statistics.force_rms,
            "batch_size": start.batch_size,
            "frames_per_second": result.frames_per_second,
            "waiting": result.waiting,
        },
        "reference_energies": {SYMBOLS[z]: energy for z, energy in references},
        "provenance": provenance,
        "training_seconds": result.seconds,
        "total_seconds": time.monotonic() - started,
    }
    if audit is not None:
        metrics["audit"] = audit
    if fine_tuning is not None:
        metrics["fine_tuning"] = fine_tuning.metrics()
    text = json.dumps(metrics, indent=1, allow_nan=False)
    write_durably(output / METRICS, (text + "\n").encode())
    log.line(f"written: {native}, {output / 'potential.pt'}, {output / METRICS}")
    return RunResult(output, metrics, result, evaluations)


def resolved(recipe: Recipe) -> tuple[Recipe, BasePotential | None]:
    """Return the recipe with what the potential it starts from decides, and that potential.

    Raises
    ------
    OSError, ValueError
        If the potential cannot be read, or does not fit the recipe.
    """
    base = read_base_potential(recipe.fine_tuning)
    return (recipe, None) if base is None else (recipe_with_base(recipe, base), base)


def check_output(recipe: Recipe) -> None:
    """Check that the output folder may be used: it is empty, or holds this run unfinished.

    Raises
    ------
    FileExistsError
        If it holds a finished run or files that are of no run.
    ValueError
        If it holds a run of another recipe; names what differs.
    """
    output = Path(recipe.output)
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    # a run killed at its very start leaves no more than an unfinished file
    if output.is_file() or (
        not (output / RECIPE).is_file() and any(path.suffix != ".part" for path in output.iterdir())
    ):
        raise FileExistsError(
            f"{output}: `output` holds something that is no run of training; name another folder "
            "or remove it"
        )
    if is_finished(recipe):
        raise FileExistsError(
            f"{output}: holds the finished run of this recipe; name another `output` to repeat it"
        )


def is_finished(recipe: Recipe) -> bool:
    """Return whether the output folder holds the finished run of this recipe.

    Raises
    ------
    ValueError
        If it holds a run of another recipe; names what differs.
    """
    output = Path(recipe.output)
    if not (output / RECIPE).is_file():
        return False
    recipe, _ = resolved(recipe)
    check_identity(output, read_recipe(output / RECIPE).identity(), recipe.identity())
    left = [name for name in (CHECKPOINT, PREVIOUS_CHECKPOINT) if (output / name).exists()]
    return (output / METRICS).is_file() and not left


def _accelerator(wanted: str) -> str:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError('`training.accelerator` is "cuda", and torch sees no CUDA device')
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def fresh_potential(
    recipe: Recipe,
    references: dict[int, float],
    statistics: Statistics,
    train_set: GraphDataset,
) -> Potential:
    """Return an untrained potential at the scale of the data, the same for the same seed."""
    numbers = list(references)
    settings = settings_of(recipe.model.kind, recipe.model.preset, recipe.model.changes())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        model = build_model(
            settings, len(numbers), recipe.model.r_max, statistics.avg_num_neighbors
        )
    repulsion = ZBLRepulsion.of_elements(numbers) if recipe.model.repulsion else None
    potential = Potential(
        model,
        numbers,
        [references[z] for z in numbers],
        statistics.force_rms,
        recipe.model.r_max,
        repulsion,
    )
    potential = potential.to(torch.float32 if recipe.training.dtype == "float32" else torch.float64)
    rng = np.random.default_rng(recipe.training.seed)
    chosen = rng.permutation(len(train_set))[:_FRAMES_FOR_SCALE]
    scale_to_data(potential, collate([train_set[int(index)] for index in chosen]))
    return potential


def _versions() -> dict[str, str]:
    return {
        "eqpot": eqpot.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
