"""``eqpot data``: convert, split and describe reference data."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from eqpot.cli.audit import audit
from eqpot.cli.frame_files import check_suffix, check_targets, write_frames
from eqpot.cli.reading_options import Units, parse_units, with_reading_options
from eqpot.cli.split import split
from eqpot.data import Frame, LabelReport
from eqpot.data.checksums import sha256_of
from eqpot.data.conversion import ReadOptions, iter_files, n_bytes_of
from eqpot.data.readers.reading import file_format
from eqpot.data.summary import Summary
from eqpot.progress import StepProgress
from eqpot.words import counted

_MEGABYTE = 1_000_000


@with_reading_options
def convert(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT... OUTPUT",
            help="Files and DeePMD folders of any formats; last the file to write: .h5 or .extxyz.",
        ),
    ],
    jobs: Annotated[int, typer.Option(help="Processes that parse.")] = 1,
    *,
    reading: ReadOptions,
) -> None:
    """Convert files of any formats into one store, or into one extended XYZ file."""
    if len(inputs) < 2:
        raise typer.BadParameter("give one input or more, and the file to write")
    *sources, output = inputs
    check_suffix(output)
    check_targets([output], sources)
    for source in sources:
        file_format(source)  # a missing file is told before the others are read
    reports: dict[Path, LabelReport] = {}
    with StepProgress("converting", unit="MB") as progress:
        frames = _shown(sources, reading, jobs, reports, progress)
        n_frames = write_frames(output, frames, sources)
    for path in sources:
        typer.echo(f"{path}: {reports[path]}")
    typer.echo(f"written: {output}, {counted(n_frames, 'frame')}")


def info(
    file: Annotated[Path, typer.Argument(help="A file of frames of any format.")],
    units: Units = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a file of frames holds."""
    found = file_format(file)
    summary = Summary()
    reports: dict[Path, LabelReport] = {}
    options = ReadOptions(units=parse_units(units), require_labels=False)
    for frame in iter_files([file], options, reports=reports):
        summary.add(frame)
    about = {
        "file": str(file),
        "format": found,
        "n_bytes": n_bytes_of(file),
        "sha256": sha256_of(file),
        **summary.as_dict(),
        "label_names": {
            label: list(names) for label, names in reports[file].names.items() if names
        },
        "other_names": sorted(reports[file].unlabelled_keys),
        "remarks": reports[file].remarks,
    }
    typer.echo(json.dumps(about, indent=1) if as_json else _described(about))


def _shown(
    sources: list[Path],
    reading: ReadOptions,
    jobs: int,
    reports: dict[Path, LabelReport],
    progress: StepProgress,
) -> Iterator[Frame]:
    """Yield frames and move the progress, which counts bytes: frames to come cannot be known."""
    total = sum(n_bytes_of(source) for source in sources)
    progress.start(total // _MEGABYTE)

    def tell(n_bytes: int) -> None:
        pace = progress.step(n_bytes // _MEGABYTE)
        if pace is not None:
            progress.line(
                f"{n_bytes / _MEGABYTE:.0f} of {total / _MEGABYTE:.0f} MB, {pace.rate:.1f} MB/s, "
                f"{pace.remaining:.0f} s to go"
            )

    yield from iter_files(sources, reading, n_jobs=jobs, reports=reports, progress=tell)


def _described(about: dict[str, Any]) -> str:
    lines = []
    for name, value in about.items():
        if isinstance(value, dict):
            value = ", ".join(
                f"{key or '(none)'} {_described_entry(n)}" for key, n in value.items()
            )
        elif isinstance(value, list):
            value = _described_entry(value)
        if value not in (None, ""):
            lines.append(f"{name.replace('_', ' '):<30} {value}")
    return "\n".join(lines)


def _described_entry(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    if len(value) == 2 and all(isinstance(x, int | float) for x in value):
        return " to ".join(f"{x:.6g}" for x in value)
    return "; ".join(str(x) for x in value)


app = typer.Typer(no_args_is_help=True, help="Convert, split and describe reference data.")
app.command("convert")(convert)
app.command("split")(split)
app.command("info")(info)
app.command("audit")(audit)
