"""Processes that load frames end with the batches they were started for."""

import multiprocessing
import os
import signal

import pytest
from torch.utils.data import Dataset

from eqpot.data import GraphDataset, read_frames
from eqpot.interruption import InterruptedRunError
from eqpot.training.batches import FrameOrder, StepDataset
from eqpot.training.progress import RunLog
from training_runs import quiet_run, recipe_of, write_frames

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def loaders():
    return multiprocessing.active_children()


@pytest.fixture(autouse=True)
def _no_hang():
    """Let a test that fails end: Python waits at its end for what ignores signals."""
    yield
    for loader in loaders():
        loader.kill()


class CountingLog(RunLog):
    """Notes how many loaders there are at each step, and stops the run after the third."""

    def __init__(self):
        super().__init__()
        self.n_loaders = []

    def step(self, done, n_steps, loss):
        super().step(done, n_steps, loss)
        self.n_loaders.append(len(loaders()))
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_stopped_run_leaves_no_loader_behind(tmp_path):
    frames = write_frames(tmp_path / "frames.extxyz")
    log = CountingLog()
    with pytest.raises(InterruptedRunError) as caught:
        quiet_run(recipe_of(frames, tmp_path / "run", num_workers=2), log)
    # the traceback that `caught` holds keeps all that the run had in hand
    assert loaders() == []
    assert log.n_loaders == [2, 2, 2]
    assert caught.traceback


class BrokenSet(Dataset):
    """Frames of which one cannot be read."""

    def __init__(self, frames, broken):
        self.frames, self.broken = frames, broken

    def __getitem__(self, index):
        if index == self.broken:
            raise ValueError(f"frame {index} is broken")
        return self.frames[index]


def steps_of(dataset):
    return StepDataset(dataset, FrameOrder(16, 1, seed=0), (0, 1), None, frozenset())


@pytest.fixture
def graphs(tmp_path):
    return GraphDataset(read_frames(write_frames(tmp_path / "frames.extxyz")).frames, 3.5)


def test_loaders_of_batches_that_are_closed_end(graphs):
    batches = steps_of(graphs).load(0, 1000, 2)
    next(batches)
    assert len(loaders()) == 2
    batches.close()
    assert loaders() == []


def test_a_loader_stays_at_the_signals_of_a_group_until_an_error_ends_the_batches(graphs):
    dataset = steps_of(BrokenSet(graphs, broken=FrameOrder(16, 1, seed=0).frames(9)[0]))
    batches = dataset.load(0, 1000, 1)
    next(batches)
    (loader,) = loaders()
    os.kill(loader.pid, signal.SIGTERM)
    os.kill(loader.pid, signal.SIGINT)
    for _ in range(8):
        next(batches)
    with pytest.raises(ValueError, match="is broken") as caught:
        next(batches)
    # held by the traceback, as an error that a notebook keeps for its user
    assert caught.traceback
    assert loader.is_alive()
    loader.terminate()
    loader.join(30)
    assert loader.exitcode == 0
