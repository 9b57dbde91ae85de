"""``eqpot data split``: divide frames into sets to train, validate and test."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from numpy.typing import NDArray

from eqpot.cli.frame_files import check_suffix, check_targets, write_frames
from eqpot.cli.reading_options import with_reading_options
from eqpot.data import Frame, LabelReport
from eqpot.data.checksums import sha256_of
from eqpot.data.conversion import ReadOptions, iter_files
from eqpot.data.groups import strata, trajectory_groups
from eqpot.data.splits import split_frames
from eqpot.data.suffixes import unpacked_path
from eqpot.durable import write_durably
from eqpot.words import counted

_PARTS = ("train", "validation", "test")
_INDICES = ".json"


@with_reading_options
def split(
    file: Annotated[Path, typer.Argument(help="A file of frames of any format.")],
    fractions: Annotated[
        str, typer.Option(help="Parts to train, validate and (optional) test.")
    ] = "0.8/0.1/0.1",
    seed: Annotated[int, typer.Option(help="Of what is drawn; the same gives the same.")] = 0,
    by: Annotated[
        Literal["random", "group", "stratified"],
        typer.Option(
            help="Draw frames; or whole trajectories and blocks of them, so that neighbours in "
            "time stay together; or evenly of each config_type and composition."
        ),
    ] = "group",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Name of the results: NAME_train.h5 and so on for NAME.h5 or NAME.extxyz, or one "
            "file of indices for NAME.json. Without it stores beside the input."
        ),
    ] = None,
    *,
    reading: ReadOptions,
) -> None:
    """Divide frames into sets to train, validate and test."""
    parts = parse_fractions(fractions)
    output = _beside(file) if output is None else output
    check_suffix(output, (_INDICES,))
    only_indices = output.suffix.lower() == _INDICES
    targets = {name: output.with_name(f"{output.stem}_{name}{output.suffix}") for name in _PARTS}
    check_targets([output] if only_indices else targets.values(), [file])
    reports: dict[Path, LabelReport] = {}

    def frames(reports: dict[Path, LabelReport] | None = None) -> Iterator[Frame]:
        return iter_files([file], reading, reports=reports)

    groups = trajectory_groups(frames(), min(parts)) if by == "group" else None
    kinds = strata(frames()) if by == "stratified" else None
    result = split_frames(
        frames(reports),
        parts[1],
        seed,
        test_fraction=parts[2] if len(parts) == 3 else 0.0,
        groups=groups,
        strata=kinds,
    )
    typer.echo(f"{file}: {reports[file]}")
    typer.echo(str(result))
    drawn = dict(zip(_PARTS, (result.train, result.validation, result.test), strict=True))
    if only_indices:
        document = {
            "file": file.name,
            "sha256": sha256_of(file),
            "by": by,
            "fractions": list(parts),
            "seed": seed,
            **{name: indices.tolist() for name, indices in drawn.items()},
        }
        write_durably(output, (json.dumps(document) + "\n").encode())
        typer.echo(f"written: {output}")
        return
    n_frames = sum(map(len, drawn.values()))
    for name, indices in drawn.items():
        if len(indices) == 0:
            continue
        chosen = _chosen(file, frames(), indices, n_frames)
        n_written = write_frames(targets[name], chosen, [file])
        typer.echo(f"written: {targets[name]}, {counted(n_written, 'frame')}")


def parse_fractions(text: str) -> tuple[float, ...]:
    """Return two or three fractions from ``0.8/0.1/0.1``.

    Raises
    ------
    ValueError
        If they are not so many, not above zero, or do not add up to 1.
    """
    try:
        parts = tuple(float(word) for word in text.split("/"))
    except ValueError:
        parts = ()
    if (
        len(parts) not in (2, 3)
        or not all(part > 0 for part in parts)
        or abs(sum(parts) - 1) > 1e-6
    ):
        raise ValueError(
            f"`--fractions` must be two or three numbers that add up to 1, such as 0.8/0.1/0.1, "
            f"got {text!r}"
        )
    return parts


def _beside(file: Path) -> Path:
    """Return the name of the stores of a file or folder, from which those of the parts are made."""
    if file.is_dir():
        return file.with_name(f"{file.resolve().name}.h5")
    return unpacked_path(file).with_suffix(".h5")


def _chosen(
    file: Path, frames: Iterator[Frame], indices: NDArray[np.int64], n_frames: int
) -> Iterator[Frame]:
    """Yield some of the frames, and refuse to end where the file has others than before."""
    wanted = iter(indices.tolist())
    following = next(wanted, None)
    n_read = 0
    for index, frame in enumerate(frames):
        n_read += 1
        if index == following:
            yield frame
            following = next(wanted, None)
    if n_read != n_frames:
        raise ValueError(
            f"{file}: has {n_read} frames now, had {n_frames} when they were divided; split again "
            "when nothing writes to it"
        )
