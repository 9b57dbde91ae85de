"""Structures that each program's own trainer takes in a second."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any, Final

from turns import Field, Length, Worker, take_turns

BATCH_SIZE: Final = 5
"""Structures in a step; the programs have it too."""


def measure_training(comparison: Field, frames: Path, length: Length) -> dict[str, Any]:
    """Return times of training steps and structures in a second by variant.

    Parameters
    ----------
    comparison
        Who takes part.
    frames
        Training set.
    length
        How much is measured; a call is a step.
    """
    workers: dict[str, Worker] = {}
    for name in comparison.variants:
        worker = comparison.attempt(name, "training", partial(trainer, comparison, name, frames))
        if worker is not None:
            workers[name] = worker
    versions = {name: worker.facts["versions"] for name, worker in workers.items()}
    found = take_turns(comparison, workers, "training", length)
    for name, values in found["variants"].items():
        values["structures_per_second"] = 1e3 * BATCH_SIZE / values["milliseconds"]["median"]
        values |= {"threads": comparison.threads_of(name), "versions": versions[name]}
    return {"frames": frames.name, "batch_size": BATCH_SIZE, **found}


def trainer(comparison: Field, name: str, frames: Path) -> Worker:
    """Return a process that waits before its second training step, in an empty folder."""
    shutil.rmtree(comparison.folder / "models" / f"{name}-training", ignore_errors=True)
    return comparison.worker(name, "training", "training", frames=str(frames.resolve()))
