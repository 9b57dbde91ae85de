"""A run that is stopped at any moment and started again ends as if it had never stopped."""

import contextlib
import dataclasses
import errno
import hashlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from eqpot.files import load_potential
from eqpot.interruption import InterruptedRunError
from eqpot.training import checkpoint
from eqpot.training.checkpoint import (
    NAME,
    PREVIOUS,
    Checkpoint,
    CheckpointFolder,
    Snapshot,
    read_checkpoint,
    write_checkpoint,
)
from training_runs import InterruptingLog, quiet_run, recipe_of, start, write_frames

LEFT = {
    "potential.eqpot", "potential.pt", "metrics.json", "train.log", "recipe.yaml",
}  # fmt: skip


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("data") / "frames.extxyz")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# four workers on two cores: it is the bits that matter, not the speed
MANY_WORKERS = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@MANY_WORKERS
@pytest.mark.parametrize("n_workers", [0, 4])
def test_a_stopped_run_goes_on_with_the_same_bits(frames, tmp_path, monkeypatch, n_workers):
    recipe = recipe_of(frames, "run", epochs=6, num_workers=n_workers)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    before = torch.get_rng_state()
    whole = quiet_run(recipe)
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.chdir(tmp_path / "stopped")
    for step, number in ((2, signal.SIGINT), (5, signal.SIGTERM), (18, signal.SIGINT)):
        with pytest.raises(InterruptedRunError, match="the same command goes on") as caught:
            quiet_run(recipe, InterruptingLog(step, number))
        assert caught.value.exit_code == 128 + number
    resumed = quiet_run(recipe)
    assert sha256(Path("run/potential.eqpot")) == sha256(tmp_path / "whole/run/potential.eqpot")
    assert {path.name for path in Path("run").iterdir()} == LEFT
    columns = [result.training.history_columns() for result in (whole, resumed)]
    for column in columns:
        del column["seconds"]
    assert columns[0] == columns[1]
    assert [event["kind"] for event in resumed.training.events] == ["resumed"] * 3


VARIANTS = {
    "muon": {"optimizer": {"kind": "muon"}},
    "schedule_free": {"optimizer": {"kind": "schedule_free"}, "schedule": {"kind": "constant"}},
    "plateau and best": {
        "optimizer": {"kind": "adamw"},
        "schedule": {"kind": "plateau", "patience": 1, "gamma": 0.3},
        "average": {"kind": "ema", "deploy": "best"},
    },
    "swa and stages": {
        "average": {"kind": "swa", "start": 0.3},
        "schedule": {"kind": "wsd"},
        "stages": [{"start": 0.5, "energy_weight": 5.0, "learning_rate": 1e-3}],
    },
    "early stopping": {"early_stopping": {"patience": 1, "min_improvement": 0.9}},
    "bf16": {"precision": "bf16"},
    "rollback": {"learning_rate": 3.0, "epochs": 30, "max_rollbacks": 20},
}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_kind_of_run_goes_on_with_the_same_bits(frames, tmp_path, monkeypatch, name):
    recipe = recipe_of(frames, "run", **{"epochs": 8} | VARIANTS[name])
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    whole = quiet_run(recipe)
    kinds = [event["kind"] for event in whole.training.events]
    assert ("rollback" in kinds) == (name == "rollback")
    assert ("stopped_early" in kinds) == (name == "early stopping")
    monkeypatch.chdir(tmp_path / "stopped")
    for step in (1, 4, 5, 9):
        with contextlib.suppress(InterruptedRunError):
            quiet_run(recipe, InterruptingLog(step, signal.SIGTERM))
        if (Path("run") / "metrics.json").exists():
            break
    else:
        quiet_run(recipe)
    assert sha256(Path("run/potential.eqpot")) == sha256(tmp_path / "whole/run/potential.eqpot")


@MANY_WORKERS
def test_a_signal_to_the_whole_group_saves_and_ends(frames, tmp_path):
    """Batch systems send SIGTERM to the loaders too."""
    recipe = recipe_of(frames, "run", epochs=2000, num_workers=2, checkpoint_interval="1 h")
    process = start(recipe, tmp_path / "group", start_new_session=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("epoch"):
            os.killpg(process.pid, signal.SIGTERM)
            break
    output = "".join(lines) + process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM, output
    assert "it is saved, and the same command goes on" in output
    assert read_checkpoint(tmp_path / "group" / "run" / NAME).now.values["step"] > 0


@MANY_WORKERS
def test_workers_change_nothing(frames, tmp_path):
    weights = []
    for n_workers in (0, 4):
        quiet_run(recipe_of(frames, tmp_path / str(n_workers), num_workers=n_workers))
        potential = load_potential(tmp_path / str(n_workers) / "potential.eqpot", "float64")
        weights.append([p.numpy().tobytes() for p in potential.parameters()])
    assert weights[0] == weights[1]


def kill_at_random(recipe, folder, rng, while_saving):
    """Kill a run at a random time of its steps, or while it writes a checkpoint; then finish it."""
    process = start(recipe, folder)
    output = folder / recipe.output
    while not (output / NAME).exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    time.sleep(rng.uniform(0.0, 1.0))
    if while_saving:
        while not list(output.glob(".checkpoint.*.part")) and process.poll() is None:
            pass
    process.kill()
    process.communicate()
    return process.returncode


def kills(frames, tmp_path, n_kills, n_epochs):
    recipe = recipe_of(frames, "run", epochs=n_epochs, checkpoint_interval=0.05)
    process = start(recipe, tmp_path / "whole")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    expected = sha256(tmp_path / "whole" / "run" / "potential.eqpot")
    rng = random.Random(0)
    n_killed = 0
    for index in range(n_kills):
        folder = tmp_path / f"killed{index}"
        n_killed += kill_at_random(recipe, folder, rng, index % 2 == 0) == -signal.SIGKILL
        process = start(recipe, folder)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        assert sha256(folder / "run" / "potential.eqpot") == expected
        assert {path.name for path in (folder / "run").iterdir()} == {
            *LEFT,
            "report.html",
            "report.json",
        }
    assert n_killed > 0.8 * n_kills  # the others were done before


def test_killed_runs_end_with_the_same_potential(frames, tmp_path):
    kills(frames, tmp_path, 1, 60)


@pytest.mark.slow
def test_twenty_killed_runs_end_with_the_same_potential(frames, tmp_path):
    kills(frames, tmp_path, 20, 100)


def test_a_finished_run_is_not_repeated_and_another_recipe_is_refused(frames, tmp_path):
    recipe = recipe_of(frames, tmp_path / "run")
    quiet_run(recipe)
    with pytest.raises(FileExistsError, match="finished run"):
        quiet_run(recipe)
    with pytest.raises(ValueError, match=r"`training\.epochs` was 3, is 4"):
        quiet_run(recipe_of(frames, tmp_path / "run", epochs=4))


def test_a_folder_with_a_recipe_of_the_users_own_is_no_run(frames, tmp_path):
    (tmp_path / "recipe.yaml").write_text("# mine\noutput: .\n")
    with pytest.raises(FileExistsError, match="no run of training"):
        quiet_run(recipe_of(frames, tmp_path))
    assert (tmp_path / "recipe.yaml").read_text().startswith("# mine")


def test_other_data_are_refused(frames, tmp_path):
    own = tmp_path / "frames.extxyz"
    own.write_bytes(frames.read_bytes())
    recipe = recipe_of(own, tmp_path / "run")
    with pytest.raises(InterruptedRunError):
        quiet_run(recipe, InterruptingLog(2, signal.SIGTERM))
    write_frames(own, seed=1)
    with pytest.raises(ValueError, match=r"`data_sha256.*was '.*', is '"):
        quiet_run(recipe)


def test_a_damaged_checkpoint_leaves_the_one_before(frames, tmp_path):
    recipe = recipe_of(frames, tmp_path / "run", checkpoint_interval=1e-3)
    quiet_run(recipe_of(frames, tmp_path / "whole"))
    with pytest.raises(InterruptedRunError):
        quiet_run(recipe, InterruptingLog(6, signal.SIGTERM))
    path = tmp_path / "run" / NAME
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    result = quiet_run(recipe)
    message = result.training.events[0]["message"]
    assert "record `now.raw." in message and PREVIOUS in message
    for one, other in zip(
        load_potential(tmp_path / "run" / "potential.eqpot", "float64").parameters(),
        load_potential(tmp_path / "whole" / "potential.eqpot", "float64").parameters(),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_a_damaged_checkpoint_never_takes_the_place_of_a_sound_one(tmp_path):
    folder = CheckpointFolder(tmp_path, some_checkpoint().identity, 1.0)
    write_checkpoint(tmp_path / NAME, some_checkpoint())
    write_checkpoint(tmp_path / NAME, some_checkpoint())
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:-3])
    found, word = folder.load()
    assert found is not None and "truncated" in word and PREVIOUS in word
    assert not (tmp_path / NAME).exists()
    # what a process that dies while it saves leaves: the sound one
    folder.save(found.run, found.now, found.good)
    read_checkpoint(tmp_path / NAME)


def test_what_is_not_damaged_is_never_removed(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path, some_checkpoint().identity, 1.0)
    write_checkpoint(tmp_path / NAME, some_checkpoint())
    with monkeypatch.context() as later:
        later.setattr(checkpoint, "_KIND", dataclasses.replace(checkpoint._KIND, version=1000))
        write_checkpoint(tmp_path / NAME, some_checkpoint())
    content = (tmp_path / NAME).read_bytes()
    with pytest.raises(ValueError, match=f"{NAME}: has format version 1000, this eqpot reads up"):
        folder.load()
    read_bytes = Path.read_bytes

    def read(path):
        if path.name == NAME:
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(OSError, match="Stale file handle"):
        folder.load()
    assert read_bytes(tmp_path / NAME) == content


def some_checkpoint():
    generator = torch.Generator().manual_seed(0)
    tensors = {"raw.a": torch.randn(40, 5, generator=generator), "optimizer.0.step": torch.ones(())}
    now = Snapshot(tensors, {"step": 7, "loss_sum": 0.1})
    good = Snapshot({"raw.a": torch.zeros(40, 5)}, {"step": 5})
    return Checkpoint({"recipe": {"a": 1}}, {"n_steps": 10}, now, good)


def test_checkpoint_round_trip(tmp_path):
    path = tmp_path / NAME
    written = some_checkpoint()
    write_checkpoint(path, written)
    write_checkpoint(path, written)
    assert path.read_bytes() == (tmp_path / PREVIOUS).read_bytes()
    found = read_checkpoint(path)
    assert (found.identity, found.run) == (written.identity, written.run)
    for one, other in ((found.now, written.now), (found.good, written.good)):
        assert one.values == other.values
        assert one.tensors.keys() == other.tensors.keys()
        assert all(torch.equal(one.tensors[k], other.tensors[k]) for k in one.tensors)
