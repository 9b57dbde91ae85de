"""``eqpot export``: a potential for MD engines."""

from pathlib import Path
from typing import Annotated

import typer

from eqpot.export import export_torchscript


def export(
    potential: Annotated[Path, typer.Argument(help="A potential (.eqpot).")],
    output: Annotated[Path, typer.Argument(help="The TorchScript file (.pt) to write.")],
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
) -> None:
    """Export a potential to TorchScript, compared with the original before it is written."""
    export_torchscript(potential, output, dtype)
    typer.echo(f"written: {output}")
