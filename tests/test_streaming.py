"""Stores stay on the disk: memory does not grow with the number of frames."""

import json
import os

import numpy as np
import pytest

from eqpot.data import Frame, GraphDataset, read_frames, write_store
from eqpot.training.progress import RunLog
from eqpot.training.run_data import graphs_of, read_data, spread, without_isolated_atoms
from training_runs import quiet_run, recipe_of, start, write_frames


def springs(n_frames):
    """Yield molecules of 21 atoms that are held to their places by springs."""
    rng = np.random.default_rng(0)
    places = 1.4 * np.stack(np.meshgrid(*[np.arange(3.0)] * 3), axis=-1).reshape(-1, 3)[:21]
    numbers = np.array([6, 1, 8] * 7)
    for _ in range(n_frames):
        shift = rng.normal(scale=0.1, size=places.shape)
        energy = float((shift**2).sum())
        yield Frame(numbers, places + shift, energy=energy, forces=-2 * shift)


def peak_of_an_epoch(folder, n_frames):
    """Return the peak memory of a training in bytes, and its metrics."""
    folder.mkdir()
    store = folder / "frames.h5"
    write_store(store, springs(n_frames))
    recipe = recipe_of(
        store, "run", {"validation": 0.01, "test": []}, epochs=1, batch_size=50, num_workers=1
    )
    sizes = {"n_features": 4, "l_max": 1, "n_layers": 1, "n_radial": 2, "correlation": 1}
    model = recipe.model.model_copy(update={**sizes, "l_hidden": 0, "r_max": 2.5})
    process = start(recipe.model_copy(update={"model": model}), folder)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    assert process.returncode == 0, output
    return 1024 * usage.ru_maxrss, json.loads((folder / "run" / "metrics.json").read_text())


@pytest.mark.slow
def test_ten_times_the_frames_take_the_same_memory(tmp_path):
    peaks = []
    for n_frames in (10_000, 100_000):
        peak, metrics = peak_of_an_epoch(tmp_path / str(n_frames), n_frames)
        peaks.append(peak)
        statistics = metrics["statistics"]
        print(
            f"{n_frames} frames: peak {peak / 1e6:.0f} MB, "
            f"{statistics['frames_per_second']:.0f} frames/s, waiting {statistics['waiting']:.1%}"
        )
    assert peaks[1] == pytest.approx(peaks[0], rel=0.1)


def test_frames_of_a_store_stay_on_the_disk(tmp_path):
    store = tmp_path / "frames.h5"
    write_store(store, springs(40))
    data = read_data(recipe_of(store, "run", {"test": []}), RunLog(silent=True))
    for frames in (data.train, spread(data.train, 10), without_isolated_atoms(data.train)):
        assert not isinstance(frames, list)
    dataset = graphs_of(data.train, 3.0)
    assert isinstance(dataset, GraphDataset)
    dataset[3]
    assert dataset.cached_bytes == 0


def test_a_store_and_its_source_train_the_same_potential(tmp_path):
    frames = write_frames(tmp_path / "frames.extxyz")

    write_store(tmp_path / "frames.h5", read_frames(frames).frames)
    histories = []
    for name in ("frames.extxyz", "frames.h5"):
        recipe = recipe_of(tmp_path / name, tmp_path / name.replace(".", "_"))
        histories.append(quiet_run(recipe).training.history_columns())
    for column in ("train_loss", "forces_rmse"):
        assert histories[0][column] == histories[1][column]


@pytest.mark.parametrize("split", ["group", "stratified"])
def test_splits_of_a_recipe(tmp_path, split):
    frames = write_frames(tmp_path / "frames.extxyz", 40)
    recipe = recipe_of(frames, "run", {"split": split, "validation": 0.25})
    data = read_data(recipe, RunLog(silent=True))
    numbers = [int(frame.source.rpartition(" ")[2]) for frame in data.validation]
    assert len(data.train) + len(numbers) == 40
    if split == "stratified":
        assert len(numbers) == 10
    else:
        # whole blocks of at least 4 frames, so the size is met to within half of one
        assert abs(len(numbers) - 10) <= 2
        runs = np.split(np.array(numbers), np.flatnonzero(np.diff(numbers) != 1) + 1)
        assert min(map(len, runs)) >= 4


def test_weights_of_config_types(tmp_path):
    frames = write_frames(tmp_path / "frames.extxyz")
    with pytest.raises(ValueError, match="no frame has the config_type `bulk`"):
        read_data(recipe_of(frames, "run", {"config_weights": {"bulk": 2.0}}), RunLog(silent=True))
    data = read_data(recipe_of(frames, "run", {"config_weights": {"": 2.0}}), RunLog(silent=True))
    assert {frame.weight for frame in data.train} == {2.0}
