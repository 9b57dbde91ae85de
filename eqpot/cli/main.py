"""``eqpot``: everything but training."""

import typer

from eqpot.cli import data
from eqpot.cli.bench import bench
from eqpot.cli.errors import run_app
from eqpot.cli.evaluate import evaluate
from eqpot.cli.export import export
from eqpot.cli.info import info
from eqpot.cli.md import md
from eqpot.cli.report import report
from eqpot.cli.version import Version

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Equivariant interatomic potentials: inspect, evaluate, export, run.",
)


@app.callback()
def _program(version: Version = False) -> None:
    pass  # options of the program itself are those of its callback


app.command("info")(info)
app.command("evaluate")(evaluate)
app.command("export")(export)
app.command("md")(md)
app.command("bench")(bench)
app.command("report")(report)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command."""
    run_app(app)
