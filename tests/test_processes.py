"""Two processes learn what one does: the loss is a mean over the frames of all."""

import json
import sys

import pytest

from training_runs import TRAIN, recipe_of, start, write_frames

TORCHRUN = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
]  # fmt: skip


def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    # of the 16 frames 13 train: the batches of 5 are shared as 3 and 2, and their labels differ
    frames = write_frames(tmp_path / "frames.extxyz")
    script = tmp_path / "train.py"
    script.write_text("from eqpot.cli.train import main\n\nmain()\n")
    histories = []
    for name, command, devices in (("one", TRAIN, 1), ("two", [*TORCHRUN, str(script)], 2)):
        recipe = recipe_of(
            frames, "run", {"test": []}, epochs=8, batch_size=5, dtype="float64", devices=devices,
            accelerator="cpu",
        )  # fmt: skip
        process = start(recipe, tmp_path / name, *command)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        histories.append(json.loads((tmp_path / name / "run" / "metrics.json").read_text()))
    one, two = (metrics["history"] for metrics in histories)
    for name in ("train_loss", "energy_rmse", "forces_rmse", "virial_rmse"):
        assert two[name] == pytest.approx(one[name], rel=1e-6)
    assert len(one["step"]) > 5
