"""``eqpot report``: the page of a run, drawn anew from its numbers."""

from pathlib import Path
from typing import Annotated

import typer

from eqpot.report.training import rebuild_page


def report(
    folder: Annotated[Path, typer.Argument(help="The output folder of a run.")],
) -> None:
    """Write report.html anew from report.json, without training or computing anything."""
    typer.echo(f"written: {rebuild_page(folder)}")
