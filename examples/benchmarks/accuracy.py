"""Test errors after a fixed time of training on one thread by each program's own trainer."""

import shutil
import statistics
from pathlib import Path
from typing import Any, Final

from ase.io import read
from turns import Field

from training import BATCH_SIZE, trainer

_VALIDATION: Final = 1.05
"""Time of an epoch with its validation, over that of its steps; for trainers without a limit."""
_PILOT: Final = 10
"""Steps that compile, and steps that are timed after them."""


def measure_accuracy(
    comparison: Field, name: str, frames: Path, tests: list[Path], seconds: float
) -> dict[str, Any] | None:
    """Return the errors of one variant, or ``None`` if it fails.

    Parameters
    ----------
    comparison
        Who takes part.
    name
        The variant.
    frames, tests
        Training set and test sets.
    seconds
        Of training. A pilot of some steps, which does not count, tells how many epochs fit;
        programs with a limit of time of their own stop by that.
    """

    def run() -> dict[str, Any]:
        n_frames = round(0.9 * len(read(frames, ":")))
        pilot = trainer(comparison, name, frames)
        try:
            pilot.ask(calls=_PILOT)
            step = statistics.median(pilot.ask(calls=_PILOT)["seconds"])
        finally:
            pilot.close()
        n_epochs = max(1, int(seconds / (_VALIDATION * step * n_frames / BATCH_SIZE)))
        shutil.rmtree(comparison.folder / "models" / f"{name}-accuracy", ignore_errors=True)
        worker = comparison.worker(
            name,
            "accuracy",
            "accuracy",
            frames=str(frames.resolve()),
            tests=[str(test.resolve()) for test in tests],
            seconds=seconds,
            n_epochs=n_epochs,
        )
        worker.close()
        return {
            **worker.facts,
            "n_epochs": worker.facts["n_steps"] * BATCH_SIZE / n_frames,
            "budget_seconds": seconds,
            "threads": comparison.threads_of(name),
        }

    found: dict[str, Any] | None = comparison.attempt(name, "accuracy", run)
    return found
