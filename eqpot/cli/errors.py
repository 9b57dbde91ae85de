"""One way for all commands to fail: a message on stderr, an exit code, no traceback."""

import sys

import typer

from eqpot.compiler import CompilationError


def run_app(app: typer.Typer) -> None:
    """Run a command; expected errors become one message and exit code 1.

    Errors of use (unknown options, missing arguments) exit with 2, as is custom. An error that is
    none of the expected kinds is a fault of the program and keeps its traceback.
    """
    try:
        app()
    except (ValueError, OSError, FloatingPointError, MemoryError, CompilationError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
