"""Loggers of a run's metrics: CSV, TensorBoard, Weights & Biases, MLflow, with Fabric's interface.

Nothing leaves the machine unless the user says so in the environment: ``WANDB_MODE=online``, or an
``MLFLOW_TRACKING_URI`` of a server.
"""

import contextlib
import csv
import importlib
import io
import math
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from lightning_fabric.utilities.rank_zero import rank_zero_only

from eqpot.durable import write_durably
from eqpot.training.recipe import LoggerName

_STEP: Final = "step"
_REMEDIES: Final = {
    "tensorboard": 'pip install "eqpot[tensorboard]"',
    "wandb": 'pip install "eqpot[wandb]"',
    "mlflow": 'pip install "eqpot[mlflow]"',
}
# these libraries report their own use and errors over the network unless told not to
_QUIET: Final = {
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def build_loggers(
    names: Sequence[LoggerName], folder: str | Path, run_name: str, *, last_step: int = 0
) -> list[Logger]:
    """Return loggers that write into a folder; in several processes only the first one writes.

    Parameters
    ----------
    names
        Kinds of loggers.
    folder
        Made with the first metrics. Holds ``metrics.csv``, and a folder for each other kind.
    run_name
        Name of the run where a logger knows of several.
    last_step
        Step from which a run continues. What an interrupted run had logged after it is dropped
        (CSV) or hidden (TensorBoard): those steps come again.

    Raises
    ------
    ValueError
        If the library of a logger is not installed; the message says how to install it.
    """
    folder = Path(folder)
    loggers: list[Logger] = []
    for name in names:
        if name == "csv":
            loggers.append(CsvLogger(folder / "metrics.csv", last_step))
            continue
        _import(name)
        if name == "tensorboard":
            # purge_step is the first step that is hidden
            loggers.append(
                TensorBoardLogger(folder, name="tensorboard", version="", purge_step=last_step + 1)
            )
        elif name == "wandb":
            loggers.append(WandbLogger(folder / "wandb", run_name))
        else:
            loggers.append(MlflowLogger(folder / "mlflow", run_name))
    return loggers


class CsvLogger(Logger):
    """A row for each call, which is on the disk before the next; a missing value is empty.

    A continued run continues the file. The CSV logger of Fabric deletes it.

    Parameters
    ----------
    path
        The file; its folder is made.
    last_step
        Rows of later steps are dropped from a file that is there.
    """

    def __init__(self, path: Path, last_step: int = 0) -> None:
        self.path = path
        self.last_step = last_step
        self.columns: list[str] = []

    @property
    def name(self) -> str:
        """Return the name of the file."""
        return self.path.name

    @property
    def version(self) -> str:
        """Return nothing: a run has one file."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row; rows of the same step or later ones, to which the run comes anew, go.

        Parameters
        ----------
        metrics
            Numbers by name; NaN where there is none.
        step
            Steps taken so far; without it, one more than before.
        """
        step = self.last_step + 1 if step is None else step
        numbers = {key: float(value) for key, value in metrics.items() if key != _STEP}
        row = {_STEP: step} | {key: x for key, x in numbers.items() if not math.isnan(x)}
        columns = [_STEP, *numbers]
        if not self.columns:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._rewrite(min(self.last_step, step - 1), columns)
        elif step <= self.last_step:  # the run went back
            self._rewrite(step - 1, columns)
        elif not set(columns) <= set(self.columns):
            self._rewrite(self.last_step, columns)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)
        self.last_step = step

    def _rows(self) -> list[dict[str, str]]:
        """Return the whole rows of the file; a crash may have left a part of one."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if None not in row and None not in row.values()]
        return [row for row in rows if row.get(_STEP, "").isdigit()]

    def _rewrite(self, last_step: int, columns: list[str]) -> None:
        """Write the file anew with its rows up to a step, and with further columns."""
        rows = [row for row in self._rows() if int(row[_STEP]) <= last_step]
        present = [*rows[0]] if rows else self.columns
        self.columns = list(dict.fromkeys([*present, *columns]))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_durably(self.path, text.getvalue().encode())

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: a table of metrics has no place for them."""


class WandbLogger(Logger):
    """Weights & Biases, offline unless ``WANDB_MODE`` says otherwise; ``wandb sync`` sends later.

    Parameters
    ----------
    folder
        For the files of the run and its id, by which a continued run is recognised.
    run_name
        Shown in the table of runs.
    """

    def __init__(self, folder: Path, run_name: str) -> None:
        self.folder = folder
        self.run_name = run_name
        self._run: Any = None

    @property
    def name(self) -> str:
        """Return the name of the project."""
        return "eqpot"

    @property
    def version(self) -> str:
        """Return the id of the run."""
        return _kept(self.folder / "eqpot-run-id", secrets.token_hex(4))

    def _started(self) -> Any:
        if self._run is None:
            mode = os.environ.get("WANDB_MODE", "offline")
            wandb = _import("wandb")
            with _quiet():
                self._run = wandb.init(
                    project=self.name,
                    name=self.run_name,
                    dir=str(self.folder),
                    id=self.version,
                    mode=mode,
                    resume="allow" if mode == "online" else None,
                    settings=wandb.Settings(console="off", disable_git=True, silent=True),
                )
                # its own count of steps never goes back, as a run does after a divergence
                self._run.define_metric("*", step_metric=_STEP)
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Send metrics; ``step`` is the number of steps taken so far."""
        numbers = {key: value for key, value in metrics.items() if not math.isnan(value)}
        self._started().log(numbers if step is None else numbers | {_STEP: step})

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Send the recipe of the run."""
        self._started().config.update(params, allow_val_change=True)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish(exit_code=0 if status == "success" else 1)


class MlflowLogger(Logger):
    """MLflow, in a database in a folder unless ``MLFLOW_TRACKING_URI`` names a server.

    Parameters
    ----------
    folder
        For the runs, and the id of this one, by which a continued run is recognised.
    run_name
        Shown in the table of runs.
    """

    def __init__(self, folder: Path, run_name: str) -> None:
        self.folder = folder
        self.run_name = run_name
        self._client: Any = None
        self._id = ""

    @property
    def name(self) -> str:
        """Return the name of the experiment."""
        return "eqpot"

    @property
    def version(self) -> str:
        """Return the id of the run."""
        self._started()
        return self._id

    def _started(self) -> Any:
        if self._client is None:
            folder = self.folder.resolve()
            folder.mkdir(parents=True, exist_ok=True)
            server = os.environ.get("MLFLOW_TRACKING_URI")
            artifacts = None if server else (folder / "artifacts").as_uri()
            with _quiet():
                mlflow = _import("mlflow")
                client = mlflow.MlflowClient(server or f"sqlite:///{folder / 'mlflow.db'}")
                experiment = client.get_experiment_by_name(self.name)
                number = (
                    client.create_experiment(self.name, artifact_location=artifacts)
                    if experiment is None
                    else experiment.experiment_id
                )
                path = self.folder / "eqpot-run-id"
                if not path.is_file():
                    run = client.create_run(number, run_name=self.run_name)
                    _kept(path, run.info.run_id)
                self._id = path.read_text(encoding="utf-8")
            self._client = client
        return self._client

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Send metrics; ``step`` is the number of steps taken so far."""
        client = self._started()
        for key, value in metrics.items():
            if not math.isnan(value):
                client.log_metric(self._id, key, float(value), step=step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Send the recipe of the run."""
        self._started().log_dict(self._id, params, "recipe.json")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run."""
        if self._client is not None:
            self._client.set_terminated(self._id, "FINISHED" if status == "success" else "FAILED")


def _import(name: str) -> Any:
    """Return a library that is no dependency; TensorBoard is imported by torch."""
    try:
        with _quiet():
            return importlib.import_module(
                "torch.utils.tensorboard" if name == "tensorboard" else name
            )
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the logger {name} needs a library that is not installed: {_REMEDIES[name]}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within, the libraries are told to report nothing; what the user has set stays."""
    added = {key: value for key, value in _QUIET.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def _kept(path: Path, fresh: str) -> str:
    """Return the text of a file, which is made with ``fresh`` if it is not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, fresh.encode())
    return path.read_text(encoding="utf-8")
