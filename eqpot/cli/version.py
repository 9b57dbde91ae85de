"""The option ``--version``, which all programs have."""

from typing import Annotated

import torch
import typer

import eqpot


def _show(wanted: bool) -> None:
    if wanted:
        typer.echo(f"eqpot {eqpot.__version__}, torch {torch.__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_show, is_eager=True, help="Print the version, and end."),
]
