"""One run from a recipe to a verified potential and its numbers."""

import hashlib
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

import eqpot
from eqpot.data import (
    Frame,
    GraphDataset,
    check_distances,
    collate,
    read_frames,
    split_frames,
)
from eqpot.export import export_torchscript
from eqpot.files import save_potential, write_durably
from eqpot.models import build_model, settings_of
from eqpot.physics.reference_energies import SYMBOLS, reference_energies
from eqpot.physics.zbl import ZBLRepulsion
from eqpot.potential import Potential
from eqpot.training.base_potential import read_base_potential, recipe_with_base
from eqpot.training.evaluation import Evaluation, evaluate
from eqpot.training.fine_tuning import start_fine_tuning, trainable_parameters
from eqpot.training.initialization import scale_to_data
from eqpot.training.loop import LoopOptions, TrainingResult, train
from eqpot.training.low_rank import merged
from eqpot.training.progress import RunLog, format_duration
from eqpot.training.recipe import DEFAULT_MAX_TIME, Recipe, parse_duration, recipe_text
from eqpot.training.statistics import Statistics, training_statistics

_ATOMS_IN_BATCH = 80
_FRAMES_FOR_SCALE = 16


@dataclass(frozen=True)
class RunData:
    """The frames of a run, read and split."""

    train: list[Frame]
    validation: list[Frame]
    tests: dict[str, list[Frame]]
    replay: list[Frame]
    sha256: dict[str, str]


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


def run(recipe: Recipe, log: RunLog) -> RunResult | None:
    """Train by a recipe and write potential, export, metrics and log into its output folder.

    All input is read and checked before the folder is made.

    Parameters
    ----------
    recipe
        Every choice of the run.
    log
        Told of everything; opened here as ``train.log``.

    Returns
    -------
    RunResult or None
        ``None`` in all processes but the first.

    Raises
    ------
    FileExistsError
        If the output folder holds anything.
    ValueError
        If the data are not sound (see :func:`eqpot.data.read_frames`).
    """
    base = read_base_potential(recipe.fine_tuning)
    if base is not None:
        recipe = recipe_with_base(recipe, base)
    training = recipe.training
    output = Path(recipe.output)
    # before the launch: an error of one process alone would leave the others waiting
    if output.exists() and (output.is_file() or any(output.iterdir())):
        raise FileExistsError(
            f"{output}: `output` holds something already; name another folder or remove it"
        )
    fabric = Fabric(
        accelerator=_accelerator(training.accelerator),
        devices=training.devices,
        num_nodes=training.num_nodes,
    )
    fabric.launch()
    log.silent = not fabric.is_global_zero
    started = time.monotonic()
    data = read_data(recipe, log)
    # isolated atoms have given their E0s: the model is exact for them whatever its weights are
    learned = [frame for frame in data.train if not frame.is_isolated_atom]
    if not learned:
        raise ValueError("`data.train` holds isolated atoms only: there is nothing to learn from")
    elements = sorted({int(z) for frame in learned for z in frame.atomic_numbers})
    known = base.potential.atomic_numbers if base is not None else []
    _check_elements([*known, *elements], data)
    fine_tuning = None
    if base is not None:
        fine_tuning = start_fine_tuning(
            recipe, base, data.train, data.replay, data.validation, log, fabric.device
        )
        learned += fine_tuning.replay
    train_set = GraphDataset(learned, recipe.model.r_max)
    validation_set = GraphDataset(data.validation, recipe.model.r_max)
    statistics = training_statistics(train_set[index] for index in range(len(train_set)))
    if fine_tuning is not None:
        potential = fine_tuning.potential
    else:
        references = reference_energies(data.train, recipe.data.reference_energies)
        log.line(str(references))
        reference = {z: references.energies[z] for z in elements}
        potential = fresh_potential(recipe, reference, statistics, train_set)
    n_weights = sum(parameter.numel() for parameter in trainable_parameters(potential))
    log.line(
        f"{recipe.model.kind} {recipe.model.preset}: {n_weights} weights, r_max "
        f"{recipe.model.r_max} Å, {statistics.avg_num_neighbors:.1f} neighbours, "
        f"rms force {statistics.force_rms:.3f} eV/Å"
    )
    if fabric.is_global_zero:
        output.mkdir(parents=True, exist_ok=True)
        write_durably(output / "recipe.yaml", recipe_text(recipe).encode())
        log.open(output / "train.log")
    options = loop_options(recipe, statistics, len(learned))
    result = train(potential.to(fabric.device), train_set, validation_set, options, fabric, log)
    if not fabric.is_global_zero:
        return None
    log.line(f"trained {result.n_steps} steps in {format_duration(result.seconds)}")

    provenance = {
        "recipe": recipe.model_dump(mode="json"),
        "data_sha256": data.sha256,
        "versions": _versions(),
        "n_steps": result.n_steps,
        "n_epochs": result.n_epochs,
        "training_seconds": result.seconds,
    }
    if fine_tuning is not None:
        provenance["fine_tuning"] = fine_tuning.provenance()
    native = output / "potential.eqpot"

    def save(errors: dict[str, Any]) -> None:
        save_potential(
            native,
            merged(result.potential).to("cpu"),
            raw_weights=merged(result.raw_potential).to("cpu"),
            provenance=provenance,
            errors=errors,
        )

    save({})  # whatever the evaluation meets, the weights are there
    sets = {"train": learned, "validation": data.validation, **data.tests}
    evaluations = {name: evaluate(result.potential, frames) for name, frames in sets.items()}
    for name, evaluation in evaluations.items():
        log.line(f"{name}: {evaluation}")
    errors = {name: evaluation.as_dict() for name, evaluation in evaluations.items()}
    save(errors)
    export_torchscript(native, output / "potential.pt", training.dtype)
    metrics = {
        "errors": errors,
        "history": result.history_columns(),
        "statistics": {
            "n_weights": n_weights,
            "avg_num_neighbors": statistics.avg_num_neighbors,
            "force_rms": statistics.force_rms,
            "batch_size": options.batch_size,
        },
        "reference_energies": {
            SYMBOLS[z]: energy
            for z, energy in zip(
                potential.atomic_numbers, potential.reference_energies, strict=True
            )
        },
        "provenance": provenance,
        "total_seconds": time.monotonic() - started,
    }
    if fine_tuning is not None:
        metrics["fine_tuning"] = fine_tuning.metrics()
    text = json.dumps(metrics, indent=1, allow_nan=False)
    write_durably(output / "metrics.json", (text + "\n").encode())
    log.line(f"written: {native}, {output / 'potential.pt'}, {output / 'metrics.json'}")
    return RunResult(output, metrics, result, evaluations)


def read_data(recipe: Recipe, log: RunLog) -> RunData:
    """Read, count and split the frames of a recipe.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`eqpot.data.read_frames` and :func:`eqpot.data.split_frames`.
    """
    section = recipe.data
    sha256: dict[str, str] = {}
    units = {str(k): v for k, v in section.units.items()} if section.units is not None else None

    def read(name: str) -> list[Frame]:
        reading = read_frames(
            name,
            energy_key=section.energy_key,
            forces_key=section.forces_key,
            stress_key=section.stress_key,
            virial_key=section.virial_key,
            units=units,
        )
        log.line(str(reading))
        for frame in reading.frames:
            _check_distances(frame)
        with Path(name).open("rb") as file:
            sha256[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return reading.frames

    frames = [frame for name in section.train for frame in read(name)]
    if isinstance(section.validation, str):
        train_frames, validation = frames, read(section.validation)
        validation = [frame for frame in validation if not frame.is_isolated_atom]
        if not validation:
            raise ValueError(f"{section.validation}: holds no frame but isolated atoms")
    else:
        split = split_frames(frames, section.validation, recipe.training.seed)
        train_frames = [frames[index] for index in split.train]
        validation = [frames[index] for index in split.validation]
    n_isolated = sum(frame.is_isolated_atom for frame in train_frames)
    log.line(
        f"{len(train_frames) - n_isolated} frames to train, {len(validation)} to validate, "
        f"{n_isolated} isolated atoms"
    )
    tests = {
        name: [frame for frame in read(name) if not frame.is_isolated_atom] for name in section.test
    }
    for name, test_frames in tests.items():
        if not test_frames:
            raise ValueError(f"{name}: holds no frame but isolated atoms")
    replay = [frame for name in recipe.fine_tuning.replay for frame in read(name)]
    return RunData(train_frames, validation, tests, replay, sha256)


def _check_distances(frame: Frame) -> None:
    try:
        check_distances(frame.positions, frame.cell, frame.pbc)
    except ValueError as error:
        raise ValueError(f"{frame.source}: {error}") from error


def _accelerator(wanted: str) -> str:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError('`training.accelerator` is "cuda", and torch sees no CUDA device')
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def _check_elements(elements: list[int], data: RunData) -> None:
    for frames in (data.validation, *data.tests.values()):
        for frame in frames:
            unknown = set(frame.atomic_numbers.tolist()) - set(elements)
            if unknown:
                symbols = ", ".join(SYMBOLS[z] for z in sorted(unknown))
                raise ValueError(
                    f"{frame.source}: holds {symbols}, which no training frame holds; add frames "
                    f"with {symbols} to `data.train`, or take this frame out"
                )


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


def loop_options(recipe: Recipe, statistics: Statistics, n_frames: int) -> LoopOptions:
    """Return the options of the loop: those of the recipe, and what the data decide."""
    training = recipe.training
    factor = recipe.fine_tuning.learning_rate_factor or 1.0
    length = training.max_time
    if length is None and training.epochs is None:
        length = DEFAULT_MAX_TIME
    batch_size = training.batch_size or max(1, round(_ATOMS_IN_BATCH / statistics.n_atoms))
    return LoopOptions(
        max_seconds=parse_duration(length) if length is not None else None,
        n_epochs=training.epochs,
        batch_size=min(batch_size, n_frames),
        seed=training.seed,
        learning_rate=factor * training.learning_rate,
        energy_weight=training.energy_weight,
        final_energy_weight=training.final_energy_weight,
        energy_ramp=training.energy_ramp,
        forces_weight=training.forces_weight,
        stress_weight=training.stress_weight,
        ema_decay=training.ema_decay,
        max_gradient_norm=training.max_gradient_norm,
        force_unit=statistics.force_rms,
    )


def _versions() -> dict[str, str]:
    return {
        "eqpot": eqpot.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
