"""Loggers keep every number once, across interruptions, and send nothing by themselves."""

import csv
import math
import os
import sys
from importlib.util import find_spec

import pytest
from lightning_fabric import Fabric

from eqpot.training.loggers import CsvLogger, build_loggers


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_holds_every_row(tmp_path):
    (logger,) = build_loggers(["csv"], tmp_path / "logs", "first")
    fabric = Fabric(accelerator="cpu", devices=1, loggers=[logger])
    fabric.log_dict({"loss": 0.1, "energy_rmse": math.nan}, step=1)
    fabric.log_dict({"loss": 1 / 3, "energy_rmse": 2.0}, step=2)
    path = tmp_path / "logs" / "metrics.csv"
    assert rows_of(path) == [  # while the run goes on
        {"step": "1", "loss": "0.1", "energy_rmse": ""},
        {"step": "2", "loss": repr(1 / 3), "energy_rmse": "2.0"},
    ]
    fabric.log_dict({"loss": 0.2, "late": 5.0}, step=3)
    assert rows_of(path)[0] == {"step": "1", "loss": "0.1", "energy_rmse": "", "late": ""}
    assert rows_of(path)[2] == {"step": "3", "loss": "0.2", "energy_rmse": "", "late": "5.0"}


@pytest.mark.parametrize("rest", ["", "7,0.", "7,0.4,3\r\n", "7", "\x00\n"])
def test_continued_csv_has_each_step_once(tmp_path, rest):
    """A run that was killed while it wrote continues from a step before its last row."""
    path = tmp_path / "metrics.csv"
    whole = CsvLogger(path)
    for step in (2, 4, 6):
        whole.log_metrics({"loss": float(step)}, step)
    path.write_text(path.read_text() + rest)
    continued = CsvLogger(path, last_step=4)
    for step in (6, 8):
        continued.log_metrics({"loss": step / 10}, step)
    assert [(row["step"], row["loss"]) for row in rows_of(path)] == [
        ("2", "2.0"),
        ("4", "4.0"),
        ("6", "0.6"),
        ("8", "0.8"),
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_csv_of_a_run_that_went_back_has_each_step_once(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = CsvLogger(path)
    for step, loss in ((2, 0.2), (4, 0.4), (6, 9.0), (4, 0.3), (6, 0.1)):
        logger.log_metrics({"step": float(step), "loss": loss}, step)  # the step need not be named
    assert [(row["step"], row["loss"]) for row in rows_of(path)] == [
        ("2", "0.2"),
        ("4", "0.3"),
        ("6", "0.1"),
    ]
    CsvLogger(path, last_step=4).log_metrics({"step": 4.0, "loss": 0.0}, 4)
    assert [row["step"] for row in rows_of(path)] == ["2", "4"]


def test_a_new_run_does_not_continue_the_csv(tmp_path):
    for value in (1.0, 2.0):
        CsvLogger(tmp_path / "metrics.csv").log_metrics({"loss": value}, 1)
    assert rows_of(tmp_path / "metrics.csv") == [{"step": "1", "loss": "2.0"}]


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_continued_tensorboard_shows_each_step_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for last_step, steps in ((0, (2, 4, 6)), (4, (6, 8))):
        (logger,) = build_loggers(["tensorboard"], tmp_path, "first", last_step=last_step)
        for step in steps:
            logger.log_metrics({"loss": step + last_step}, step)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(2, 2.0), (4, 4.0), (6, 10.0), (8, 12.0)]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_missing_library_names_the_remedy(tmp_path, monkeypatch, name):
    monkeypatch.setitem(
        sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, None
    )
    with pytest.raises(ValueError, match=rf'{name} needs .*pip install "eqpot\[{name}\]"'):
        build_loggers([name], tmp_path, "first")


@pytest.fixture
def no_network(monkeypatch):
    """Refuse every connection but to this machine, and forget what the user has set."""
    import socket

    connect = socket.socket.connect

    def refuse(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "localhost",
            "::1",
        ):
            raise AssertionError(f"connection to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("no_network")
def test_wandb_is_offline(tmp_path):
    before = dict(os.environ)
    for last_step in (0, 1):
        (logger,) = build_loggers(["wandb"], tmp_path, "first", last_step=last_step)
        logger.log_hyperparams({"model": {"r_max": 5.0}})
        logger.log_metrics({"loss": 0.5, "stress": math.nan}, last_step + 1)
        logger.finalize("success")
    runs = list((tmp_path / "wandb").glob("wandb/offline-run-*"))
    assert runs
    assert {run.name.rpartition("-")[2] for run in runs} == {logger.version}
    assert {name: os.environ.get(name) for name in before} == before


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("no_network")
def test_continued_mlflow_run_is_one(tmp_path):
    from mlflow import MlflowClient

    for last_step in (0, 1):
        (logger,) = build_loggers(["mlflow"], tmp_path, "first", last_step=last_step)
        logger.log_hyperparams({"model": {"r_max": 5.0}})
        logger.log_metrics({"loss": 0.5 + last_step, "stress": math.nan}, last_step + 1)
        logger.finalize("success")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("eqpot")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 1.5)]
    assert run.info.status == "FINISHED"
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow"}
