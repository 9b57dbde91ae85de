"""The frames of a run: read, counted, split."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from eqpot.data import Frame, check_distances, read_frames, split_frames
from eqpot.elements import SYMBOLS
from eqpot.training.progress import RunLog
from eqpot.training.recipe import Recipe


@dataclass(frozen=True)
class RunData:
    """The frames of a run, read and split."""

    train: list[Frame]
    validation: list[Frame]
    tests: dict[str, list[Frame]]
    sha256: dict[str, str]


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
    return RunData(train_frames, validation, tests, sha256)


def _check_distances(frame: Frame) -> None:
    try:
        check_distances(frame.positions, frame.cell, frame.pbc)
    except ValueError as error:
        raise ValueError(f"{frame.source}: {error}") from error


def check_elements(elements: list[int], data: RunData) -> None:
    """Check that validation and test frames hold no element that the training frames lack.

    Raises
    ------
    ValueError
        If one does; names the frame.
    """
    for frames in (data.validation, *data.tests.values()):
        for frame in frames:
            unknown = set(frame.atomic_numbers.tolist()) - set(elements)
            if unknown:
                symbols = ", ".join(SYMBOLS[z] for z in sorted(unknown))
                raise ValueError(
                    f"{frame.source}: holds {symbols}, which no training frame holds; add frames "
                    f"with {symbols} to `data.train`, or take this frame out"
                )
