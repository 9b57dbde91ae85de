"""Files that a command writes at its end: what stands against them is told at its beginning."""

from pathlib import Path

from eqpot.durable import check_place


def writable(path: Path | None) -> Path | None:
    """Return the value of an option that names such a file; for ``typer.Option(callback=…)``.

    Raises
    ------
    OSError
        If it cannot be written (see :func:`eqpot.durable.check_place`).
    """
    if path is not None:
        check_place(path)
    return path
