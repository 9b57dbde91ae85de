"""``eqpot info``: what a potential file holds."""

import json
from pathlib import Path
from typing import Annotated

import typer

from eqpot.files import read_header


def info(
    potential: Annotated[Path, typer.Argument(help="A potential (.eqpot).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the header as JSON.")] = False,
) -> None:
    """Show elements, hyper-parameters, training and errors of a potential."""
    header = read_header(potential)
    if as_json:
        typer.echo(json.dumps(header, indent=1))
        return
    typer.echo(f"{potential}")
    for name, value in header.items():
        if isinstance(value, dict):
            typer.echo(f"{name}:")
            for key, entry in value.items():
                typer.echo(f"  {key}: {json.dumps(entry, ensure_ascii=False)}")
        else:
            typer.echo(f"{name}: {json.dumps(value, ensure_ascii=False)}")
