"""``eqpot export``: a potential for MD engines, or compiled for speed."""

from pathlib import Path
from typing import Annotated, Final

import typer

from eqpot.compilation import export_compiled
from eqpot.data.checksums import sha256_of
from eqpot.durable import check_place
from eqpot.export import export_torchscript
from eqpot.files import load_potential
from eqpot.program import ExportError

COMPILING: Final = "compiling: one to three minutes in which nothing is shown"
_WRITERS: Final = {".pt": export_torchscript, ".pt2": export_compiled}


def export(
    potential: Annotated[Path, typer.Argument(help="A potential (.eqpot).")],
    output: Annotated[
        Path,
        typer.Argument(
            help="The file to write: TorchScript (.pt), or machine code for processors like this "
            "one (.pt2), which takes minutes and a C++ compiler."
        ),
    ],
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
) -> None:
    """Export a potential as a program, compared with the original before it is written."""
    if output.suffix not in _WRITERS:
        raise ValueError(
            f"`output` must end in .pt (TorchScript) or .pt2 (machine code), got {output.name!r}"
        )
    if output.suffix == ".pt2":  # what is wrong is told at once
        check_place(output)
        load_potential(potential, dtype=dtype)
        typer.echo(COMPILING, err=True)
    try:
        _WRITERS[output.suffix](potential, output, dtype)
    except ExportError as error:
        raise ValueError(f"{potential}: {error}") from error
    typer.echo(f"written: {output}, SHA-256 {sha256_of(output)}")
