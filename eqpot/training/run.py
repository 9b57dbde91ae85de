"""One run from a recipe to a verified potential and its numbers."""

import contextlib
import copy
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

import eqpot
from eqpot.data import Frame, GraphDataset
from eqpot.durable import locked_folder, write_durably
from eqpot.elements import SYMBOLS
from eqpot.export import export_torchscript
from eqpot.files import save_potential
from eqpot.physics.reference_energies import reference_energies
from eqpot.potential import Potential
from eqpot.program import ExportError
from eqpot.training.base_potential import BasePotential
from eqpot.training.checkpoint import CheckpointFolder
from eqpot.training.compiled import check_compiled
from eqpot.training.evaluation import evaluate
from eqpot.training.fine_tuning import FineTuning, start_fine_tuning, trainable_parameters
from eqpot.training.history import TrainingResult
from eqpot.training.initialization import fresh_potential
from eqpot.training.loop import train
from eqpot.training.low_rank import merged
from eqpot.training.output import (
    METRICS,
    check_output,
    read_audit,
    resolved,
    write_audit,
    write_recipe,
)
from eqpot.training.progress import RunLog, format_duration
from eqpot.training.recipe import Recipe, TrainingSection, parse_duration
from eqpot.training.result import RunResult
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

_ATOMS_IN_BATCH = 80
_TRAIN_FRAMES_EVALUATED = 2000


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
    CompilationError
        If steps shall be compiled and cannot be.
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
    if training.compiled:
        check_compiled(fabric.device)
    fabric.launch()
    log.silent = not fabric.is_global_zero
    started = time.monotonic()
    data = read_data(recipe, log)
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
        audit = _prepare(recipe, data, fabric, log, stack)
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
        _leave_group(fabric)
        if not fabric.is_global_zero:
            return None
        result.potential = merged(result.potential)
        result.raw_potential = merged(result.raw_potential)
        pace = ""
        if result.frames_per_second > 0.0:
            pace = (
                f"; lately {result.frames_per_second:.1f} frames/s, {result.waiting:.1%} of the "
                "time waiting for them"
            )
        log.line(f"trained {result.n_steps} steps in {format_duration(result.seconds)}{pace}")
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


def _leave_group(fabric: Fabric) -> None:
    """End the communication of the processes, before the first of them ends."""
    if fabric.world_size > 1:
        fabric.barrier()
        torch.distributed.destroy_process_group()


def _prepare(
    recipe: Recipe, data: RunData, fabric: Fabric, log: RunLog, stack: contextlib.ExitStack
) -> dict[str, Any] | None:
    """Audit the data and make the folder, in the first process; return the audit.

    Raises
    ------
    OSError
        If the folder cannot be made or is in use.
    ValueError
        If the audit finds an error that the recipe does not accept.
    """
    error: Exception | None = None
    found: dict[str, Any] | None = None
    if fabric.is_global_zero:
        try:
            output = Path(recipe.output)
            if recipe.data.audit:
                found = read_audit(output, dict(data.sha256)) or _audit(recipe, data, log)
            output.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked_folder(output))
            write_recipe(recipe)
            if found is not None:
                write_audit(output, found, dict(data.sha256))
            log.open(output / "train.log")
        except (OSError, ValueError) as raised:
            error = raised
    # an error of one process alone would leave the others waiting
    error = fabric.broadcast(error)
    if error is not None:
        raise error
    return found


def _audit(recipe: Recipe, data: RunData, log: RunLog) -> dict[str, Any]:
    audit = audit_data(data)
    causes = sorted({f.cause for f in audit.errors if f.cause not in recipe.data.accept})
    if causes:
        raise ValueError(
            f"the audit found what a training should not rest on:\n{audit}\nMend the data; or, to "
            f"train on them as they are, write `accept: [{', '.join(causes)}]` in section `data`"
        )
    log.line(str(audit))
    return audit.as_dict()


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
    try:
        export_torchscript(native, output / "potential.pt", recipe.training.dtype)
    except ExportError as error:  # the potential is written, and what follows tells more of it
        result.events.append({"step": result.n_steps, "kind": "no_export", "message": str(error)})
        log.line(f"no_export: {error}")
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


def _accelerator(wanted: str) -> str:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError('`training.accelerator` is "cuda", and torch sees no CUDA device')
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def _versions() -> dict[str, str]:
    return {
        "eqpot": eqpot.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
