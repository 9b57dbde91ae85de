"""``train-potential``: from a recipe, or from frames alone, to a verified potential."""

from pathlib import Path
from typing import Annotated

import typer

from eqpot.cli.errors import run_app
from eqpot.cli.version import Version
from eqpot.interruption import InterruptedRunError
from eqpot.report.training import write_report
from eqpot.training.output import is_finished
from eqpot.training.progress import RunLog
from eqpot.training.recipe import default_recipe
from eqpot.training.recipe_file import read_recipe, recipe_text
from eqpot.training.result import RunResult
from eqpot.training.run import run
from eqpot.verification import verify

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train_potential(
    recipe: Annotated[
        Path | None,
        typer.Argument(help="A recipe (.yaml), or a file of frames to train on with all defaults."),
    ] = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Print a complete recipe with comments, and end.")
    ] = False,
    version: Version = False,
) -> None:
    """Train a potential; leave it with its TorchScript export, errors and a report in a folder."""
    if defaults:
        typer.echo(recipe_text(), nl=False)
        return
    if recipe is None:
        raise typer.BadParameter("give a recipe (.yaml) or a file of frames")
    is_recipe = recipe.suffix.lower() in (".yaml", ".yml")
    chosen = read_recipe(recipe) if is_recipe else default_recipe(recipe)
    if is_finished(chosen):
        typer.echo(f"{chosen.output}: this run is finished; there is nothing left to do")
        return
    try:
        with RunLog() as log:
            run(chosen, log, finish=lambda result: _report(result, log))
    except InterruptedRunError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        typer.echo("stopped; what is written stays, and the same command goes on", err=True)
        raise typer.Exit(130) from error


def _report(result: RunResult, log: RunLog) -> None:
    verification, failure = None, ""
    train = result.evaluations["train"]
    anchor = result.training.potential.anchor
    export = result.output / "potential.pt"
    try:
        verification = verify(
            result.output / "potential.eqpot",
            train.frames,
            result.evaluations.get("validation", train).frames,
            export=export if export.exists() else None,
            dtype=anchor.dtype,
            device=anchor.device,
            tell=log.line,
        )
    # the potential is written and evaluated: its report must come, with what went wrong in it
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
        log.line(f"the potential could not be checked: {failure}")
    page = write_report(result, verification, failure, tell=log.line)
    log.line(f"report: {page}")


def main() -> None:
    """Run the command."""
    run_app(app)
