"""``eqpot evaluate``: errors of a potential on data."""

import json
from pathlib import Path
from typing import Annotated

import typer

from eqpot.cli.reading_options import with_reading_options
from eqpot.data import LabelReport
from eqpot.data.conversion import ReadOptions, iter_files
from eqpot.durable import check_place, write_durably
from eqpot.files import load_potential
from eqpot.report.figures import parity_figure
from eqpot.training.evaluation import evaluate as evaluate_frames


@with_reading_options
def evaluate(
    potential: Annotated[Path, typer.Argument(help="A potential (.eqpot).")],
    data: Annotated[list[Path], typer.Argument(help="Files of labelled frames.")],
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all errors to this file.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write a parity picture (.png, .svg or .pdf).")
    ] = None,
    *,
    reading: ReadOptions,
) -> None:
    """Compare a potential with reference data."""
    for result in (json_file, picture):
        if result is not None:
            check_place(result)
    loaded = load_potential(potential, dtype=dtype)
    reports: dict[Path, LabelReport] = {}
    try:
        found = iter_files(data, reading, reports=reports)
        frames = [frame for frame in found if not frame.is_isolated_atom]
    finally:  # what was found is told even if a later file is refused
        for path, report in reports.items():
            if report.counts.n_frames:
                typer.echo(f"{path}: {report}")
    evaluation = evaluate_frames(loaded, frames)
    typer.echo(f"{potential}: {evaluation}")
    if json_file is not None:
        write_durably(json_file, (json.dumps(evaluation.as_dict(), indent=1) + "\n").encode())
    if picture is not None:
        parity_figure(evaluation).savefig(picture, dpi=150)
        typer.echo(f"written: {picture}")
