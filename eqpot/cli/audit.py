"""``eqpot data audit``: what is in files of frames, and what is wrong with them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from eqpot.cli.reading_options import with_reading_options
from eqpot.data.audit import audit_files
from eqpot.data.conversion import ReadOptions
from eqpot.durable import check_place, write_durably


@with_reading_options
def audit(
    files: Annotated[list[Path], typer.Argument(help="Files of labelled frames to train on.")],
    validation: Annotated[
        list[Path] | None, typer.Option(help="A file to validate on; may be given again.")
    ] = None,
    test: Annotated[
        list[Path] | None, typer.Option(help="A file to test on; may be given again.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write tables and findings to this file.")
    ] = None,
    *,
    reading: ReadOptions,
) -> None:
    """Check labels, units, signs, duplicates and overlap; exit with 1 if there is an error."""
    if json_file is not None:
        check_place(json_file)
    names: dict[str, Any] = {**reading.keys.given()}
    result = audit_files(
        _sets(files, validation or [], test or []),
        units=reading.units,
        config_type=reading.config_type,
        **names,
    )
    typer.echo(str(result))
    if json_file is not None:
        text = json.dumps(result.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        write_durably(json_file, (text + "\n").encode())
    if result.has_errors:
        raise typer.Exit(1)


def _sets(train: list[Path], validation: list[Path], test: list[Path]) -> dict[str, list[Path]]:
    """Return files by the name of their set; several of one role are sets of their own.

    Each file may be spoiled in its own way, so no two are thrown together.
    """
    sets: dict[str, list[Path]] = {}
    for role, paths in (("train", train), ("validation", validation), ("test", test)):
        for path in paths:
            name = role if len(paths) == 1 else f"{role} {path.name}"
            while name in sets:
                name += "'"
            sets[name] = [path]
    return sets
