"""The frames of a run: read or opened, counted, split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eqpot.data import (
    Concatenation,
    Frame,
    FrameStore,
    GraphDataset,
    LabelReport,
    Reweighted,
    Subset,
    n_atoms_of,
    read_frames,
    split_frames,
)
from eqpot.data.audit import Audit, audit_frames
from eqpot.data.checksums import sha256_of
from eqpot.data.frames import counted_frames
from eqpot.data.graphs import CACHE_BYTES
from eqpot.data.groups import strata, trajectory_groups
from eqpot.data.suffixes import STORES
from eqpot.data.weights import check_config_weights, weighted
from eqpot.elements import SYMBOLS
from eqpot.missing import missing_file
from eqpot.training.progress import RunLog
from eqpot.training.recipe import DataSection, Recipe


@dataclass(frozen=True)
class RunData:
    """The frames of a run; those of stores stay on the disk.

    Attributes
    ----------
    train, validation
        Frames, isolated atoms among the first only.
    tests
        By file.
    replay
        Old frames, of which fine-tuning draws.
    sha256
        Of each file.
    audited
        The sets to audit by name: as the files have them, before frames that validate are drawn.
    reports
        What labels were found in the files of each set.
    """

    train: Sequence[Frame]
    validation: Sequence[Frame]
    tests: Mapping[str, Sequence[Frame]]
    replay: Sequence[Frame]
    sha256: Mapping[str, str]
    audited: Mapping[str, Sequence[Frame]]
    reports: Mapping[str, LabelReport]


class _Files:
    """Opens the files of a recipe and keeps what is known of them."""

    def __init__(self, section: DataSection, log: RunLog) -> None:
        self.section, self.log = section, log
        self.sha256: dict[str, str] = {}
        self.reports: dict[str, LabelReport] = {}

    def open(self, name: str) -> Sequence[Frame]:
        section = self.section
        frames: Sequence[Frame]
        if Path(name).suffix.lower() in STORES:
            frames = FrameStore(name)
            self.log.line(f"{name}: {len(frames)} frames, {int(frames.n_atoms.sum())} atoms")
        else:
            units = section.units
            reading = read_frames(
                name,
                energy_key=section.energy_key,
                forces_key=section.forces_key,
                stress_key=section.stress_key,
                virial_key=section.virial_key,
                group_key=section.group_key,
                atomic_numbers_key=section.atomic_numbers_key,
                positions_key=section.positions_key,
                cell_key=section.cell_key,
                units=None if units is None else {str(k): v for k, v in units.items()},
            )
            self.log.line(str(reading))
            self.reports[name] = reading.report
            frames = reading.frames
        self.sha256[name] = sha256_of(Path(name))
        return frames

    def open_without_isolated_atoms(self, name: str) -> Sequence[Frame]:
        frames = without_isolated_atoms(self.open(name))
        if not frames:
            raise ValueError(f"{name}: holds no frame but isolated atoms")
        return frames


def read_data(recipe: Recipe, log: RunLog) -> RunData:
    """Read, count and split the frames of a recipe.

    Raises
    ------
    FileNotFoundError
        If a file is missing; told by its key in the recipe, before any is read.
    ValueError
        As :func:`eqpot.data.read_frames` and :func:`eqpot.data.split_frames`.
    """
    section = recipe.data
    _check_files(recipe)
    files = _Files(section, log)
    train = joined([files.open(name) for name in section.train])
    audited = {"train": train}
    if isinstance(section.validation, str):
        validation = files.open_without_isolated_atoms(section.validation)
        audited["validation"] = validation
        log.line(f"{counted_frames(len(train))} to train, {len(validation)} to validate")
    else:
        by_group = section.split == "group"
        groups = trajectory_groups(train, section.validation) if by_group else None
        kinds = strata(train) if section.split == "stratified" else None
        split = split_frames(
            train, section.validation, recipe.training.seed, groups=groups, strata=kinds
        )
        log.line(str(split))
        train, validation = chosen(train, split.train), chosen(train, split.validation)
    if section.config_weights:
        check_config_weights(section.config_weights, {frame.config_type for frame in train})
        train = _reweighted(train, section.config_weights)
    n_isolated = len(train) - len(without_isolated_atoms(train))
    if n_isolated:
        log.line(f"isolated atoms among the frames to train: {n_isolated}, for E0 alone")
    tests = {name: files.open_without_isolated_atoms(name) for name in section.test}
    validation_file = str(section.validation)
    reports = {name: files.reports[name] for name in section.test if name in files.reports}
    if validation_file in files.reports:
        reports["validation"] = files.reports[validation_file]
    of_training = [files.reports[name] for name in section.train if name in files.reports]
    if of_training:
        reports["train"] = LabelReport()
        for report in of_training:
            reports["train"].merge(report)
    replay = joined([files.open(name) for name in recipe.fine_tuning.replay])
    return RunData(train, validation, tests, replay, files.sha256, audited | tests, reports)


def _check_files(recipe: Recipe) -> None:
    """Raise :class:`FileNotFoundError` for a file that is missing, before the first is read."""
    section = recipe.data
    named = {
        "data.train": section.train,
        "data.validation": [section.validation] if isinstance(section.validation, str) else [],
        "data.test": section.test,
        "fine_tuning.replay": recipe.fine_tuning.replay,
    }
    for key, names in named.items():
        for name in names:
            if not Path(name).exists():
                raise FileNotFoundError(f"`{key}`: {missing_file(Path(name))}")


def audit_data(data: RunData) -> Audit:
    """Return what is wrong with the frames of a run."""
    return audit_frames(data.audited, reports=data.reports)


def joined(parts: Sequence[Sequence[Frame]]) -> Sequence[Frame]:
    """Return the frames of all parts; lists become a list, others are not read."""
    if all(isinstance(part, list) for part in parts):
        return [frame for part in parts for frame in part]
    return parts[0] if len(parts) == 1 else Concatenation(parts)


def chosen(frames: Sequence[Frame], indices: Sequence[int] | NDArray[np.int64]) -> Sequence[Frame]:
    """Return some of the frames; of a list, a list."""
    if isinstance(frames, list):
        return [frames[index] for index in indices]
    return Subset(frames, indices)


def without_isolated_atoms(frames: Sequence[Frame]) -> Sequence[Frame]:
    """Return the frames that are no isolated atoms; only those of one atom are looked at."""
    alone = np.flatnonzero(n_atoms_of(frames) == 1).tolist()
    isolated = {index for index in alone if frames[index].is_isolated_atom}
    if not isolated:
        return frames
    return chosen(frames, [index for index in range(len(frames)) if index not in isolated])


def spread(frames: Sequence[Frame], n: int) -> Sequence[Frame]:
    """Return at most ``n`` of the frames, evenly spread."""
    if len(frames) <= n:
        return frames
    return chosen(frames, np.linspace(0, len(frames) - 1, n).round().astype(np.int64).tolist())


def graphs_of(frames: Sequence[Frame], cutoff: float) -> GraphDataset:
    """Return the graphs of frames; what stays on the disk is not kept in memory as graphs either.

    So the memory that a run takes does not depend on the size of its stores.
    """
    return GraphDataset(frames, cutoff, cache_bytes=CACHE_BYTES if isinstance(frames, list) else 0)


def _reweighted(frames: Sequence[Frame], factors: Mapping[str, float]) -> Sequence[Frame]:
    if isinstance(frames, list):
        return [weighted(frame, factors) for frame in frames]
    return Reweighted(frames, factors)


def elements_of(frames: Sequence[Frame]) -> list[int]:
    """Return the atomic numbers of frames, ascending."""
    return sorted({int(z) for frame in frames for z in frame.atomic_numbers})


def check_elements(elements: list[int], data: RunData) -> None:
    """Check that validation and test frames hold no element that the training frames lack.

    Raises
    ------
    ValueError
        If one does; names the frame.
    """
    known = set(elements)
    for frames in (data.validation, *data.tests.values()):
        for frame in frames:
            unknown = set(frame.atomic_numbers.tolist()) - known
            if unknown:
                symbols = ", ".join(SYMBOLS[z] for z in sorted(unknown))
                raise ValueError(
                    f"{frame.source}: holds {symbols}, which no training frame holds; add frames "
                    f"with {symbols} to `data.train`, or take this frame out"
                )
