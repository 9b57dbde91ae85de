"""What a run leaves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eqpot.training.evaluation import Evaluation
from eqpot.training.history import TrainingResult


@dataclass(frozen=True)
class RunResult:
    """What a run leaves, for the report.

    Attributes
    ----------
    output
        Folder.
    metrics
        The content of ``metrics.json``.
    training
        Potential and history.
    evaluations
        Errors by name of the set: ``train``, ``validation`` and each test file.
    """

    output: Path
    metrics: dict[str, Any]
    training: TrainingResult
    evaluations: dict[str, Evaluation]
