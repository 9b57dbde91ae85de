"""Memory: a step is computed in parts that fit, and its loss and gradient do not notice."""

import json
import re
import signal
import sys

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

from eqpot import keys
from eqpot.data import GraphDataset, read_frames
from eqpot.interruption import InterruptedRunError
from eqpot.training import batches, loop
from eqpot.training.batches import FrameOrder, make_batch, pack
from eqpot.training.memory import is_out_of_memory, limited_memory, parse_size
from training_runs import TRAIN, InterruptingLog, quiet_run, recipe_of, start, write_frames


@pytest.mark.parametrize(
    ("text", "size"), [("8 GB", 8_000_000_000), ("512MiB", 2**29), ("1.5 gib", 3 * 2**29)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["8", "GB", "-1 GB", "0 GB", "1 parsec"])
def test_impossible_sizes(text):
    with pytest.raises(ValueError, match="must be a size"):
        parse_size(text)


def test_groups_hold_everything_once_and_stay_within_the_budget():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(1, 100, rng.integers(1, 30)).tolist()
        budget = int(rng.integers(20, 200))
        groups = pack(sizes, budget)
        assert sorted(place for group in groups for place in group) == list(range(len(sizes)))
        for group in groups:
            assert len(group) == 1 or sum(sizes[place] for place in group) <= budget
    assert pack([60, 50, 40, 50], 100) == [[0, 2], [1, 3]]
    assert pack([3, 4], None) == [[0, 1]]
    assert pack([], 10) == []


def test_each_epoch_holds_every_frame_once():
    order = FrameOrder(13, 4, seed=3)
    assert order.n_steps(4) == 13
    taken = [frame for step in range(13) for frame in order.frames(step)]
    epochs = [taken[13 * epoch : 13 * (epoch + 1)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert FrameOrder(13, 4, seed=3).frames(9) == order.frames(9)  # without those before


def test_parts_hold_the_frames_they_name(tmp_path):
    frames = read_frames(write_frames(tmp_path / "frames.extxyz")).frames
    dataset = GraphDataset(frames, 3.5)
    batch = make_batch(dataset, [3, 1, 4, 9], 80)
    assert len(batch.parts) > 1
    assert sorted(index for group in batch.groups for index in group) == [1, 3, 4, 9]
    for part, group in zip(batch.parts, batch.groups, strict=True):
        assert part[keys.ENERGY].tolist() == [frames[index].energy for index in group]


def test_a_budget_changes_nothing_but_rounding(tmp_path):
    frames = write_frames(tmp_path / "frames.extxyz")
    histories = []
    for name, budget in (("whole", None), ("parts", 40)):
        recipe = recipe_of(frames, tmp_path / name, dtype="float64", edge_budget=budget)
        histories.append(quiet_run(recipe).training.history_columns())
    for name in ("train_loss", "forces_rmse", "energy_rmse"):
        assert histories[1][name] == pytest.approx(histories[0][name], rel=1e-9)


def test_only_a_lack_of_memory_is_one():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_a_limit_below_what_is_held_is_refused():
    with (
        pytest.raises(ValueError, match=r"must be above what the process holds.*got 0\.00 GB"),
        limited_memory(10**6),
    ):
        pass


def supercells(path):
    """Write copper of 4 and of 108 atoms, with random displacements."""
    rng = np.random.default_rng(0)
    images = []
    for repeat in (1, 3, 3, 1, 3, 3, 3, 1, 3, 3, 1, 3):
        atoms = bulk("Cu", cubic=True).repeat(repeat)
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        atoms.calc = EMT()
        atoms.get_forces()
        images.append(atoms)
    write(path, images)
    return path


# the limit is what the process holds before training, and so much more
LIMITED = """
from eqpot.training import loop, memory
from eqpot.cli.train import main

limit = memory.limited_memory
loop.limited_memory = lambda n_bytes: limit(memory._held_bytes() + {allowed} * 10**6)
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_a_step_that_exceeds_the_memory_is_split_and_the_losses_stay(tmp_path):
    frames = supercells(tmp_path / "copper.extxyz")

    def metrics_of(name, *command, **training):
        recipe = recipe_of(
            frames, "run", {"test": []}, epochs=2, batch_size=6, dtype="float64", **training
        )
        recipe = recipe.model_copy(
            update={"model": recipe.model.model_copy(update={"n_features": 16, "r_max": 5.0})}
        )
        process = start(recipe, tmp_path / name, *command)
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
        return json.loads((tmp_path / name / "run" / "metrics.json").read_text())

    # a step of six large cells takes some 450 MB
    limited = metrics_of("limited", *TRAIN[:2], LIMITED.format(allowed=250))
    events = [event for event in limited["events"] if event["kind"] == "memory"]
    assert events and "memory did not suffice for" in events[0]["message"]
    budget = int(re.search(r"at most (\d+) are computed", events[-1]["message"])[1])
    within = metrics_of("within", edge_budget=budget)
    whole = metrics_of("whole")
    assert not within["events"] and not whole["events"]
    # where the budget fell once more later on, the steps before were split otherwise
    one_budget = len({event["step"] for event in events}) == 1
    for name in ("train_loss", "forces_rmse", "energy_rmse", "virial_rmse"):
        if one_budget:
            assert limited["history"][name] == within["history"][name]
        for other in (within, whole):
            assert limited["history"][name] == pytest.approx(other["history"][name], rel=1e-9)


def test_a_run_keeps_its_budget_until_the_recipe_gives_another(tmp_path, monkeypatch):
    frames = write_frames(tmp_path / "frames.extxyz")
    budgets = []

    def make(dataset, chosen, budget):
        budgets.append(budget)
        return make_batch(dataset, chosen, budget)

    def found_out(trainer):
        trainer.objective.edge_budget = 40

    monkeypatch.setattr(loop._Trainer, "_probe_memory", found_out)
    monkeypatch.setattr(batches, "make_batch", make)
    stops = ((2, None, 40), (4, None, 40), (6, 60, 60), (8, 60, 60), (9, None, None))
    for step, given, expected in stops:
        budgets.clear()
        with pytest.raises(InterruptedRunError):
            quiet_run(
                recipe_of(frames, tmp_path / "run", epochs=9, edge_budget=given),
                InterruptingLog(step, signal.SIGINT),
            )
        assert set(budgets) == {expected}
