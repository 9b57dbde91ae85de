"""Processes that load frames end with the batches they were started for."""

import contextlib
import multiprocessing
import os
import signal
import time

import pytest
from torch.utils.data import Dataset

from eqpot.data import GraphDataset, read_frames
from eqpot.interruption import InterruptedRunError
from eqpot.training import loop
from eqpot.training.batches import FrameOrder, StepDataset
from eqpot.training.progress import RunLog
from eqpot.training.recipe import TrainingSection
from training_runs import InterruptingLog, quiet_run, recipe_of, write_frames

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def loaders():
    return multiprocessing.active_children()


def check_they_end(caught):
    """Check that loaders end though the traceback of an error is kept, as in a notebook."""
    for loader in loaders():
        loader.join(30)
    assert loaders() == []
    assert caught.traceback


@pytest.fixture(autouse=True)
def _no_hang():
    """Let a test that fails end: Python waits at its end for what ignores signals."""
    yield
    for loader in loaders():
        loader.kill()


class CountingLog(InterruptingLog):
    """Notes how many loaders there are at each step, and stops the run after the third."""

    def __init__(self):
        super().__init__(3, signal.SIGTERM)
        self.n_loaders = []

    def step(self, done, n_steps, loss):
        super().step(done, n_steps, loss)
        self.n_loaders.append(len(loaders()))


def test_a_stopped_run_leaves_no_loader_behind(tmp_path):
    frames = write_frames(tmp_path / "frames.extxyz")
    log = CountingLog()
    with pytest.raises(InterruptedRunError) as caught:
        quiet_run(recipe_of(frames, tmp_path / "run", num_workers=2), log)
    # the traceback that `caught` holds keeps all that the run had in hand
    assert loaders() == []
    assert log.n_loaders == [2, 2, 2]
    assert caught.traceback


class FailingLog(RunLog):
    """Lets a loader end, or a thread not start, after the second step."""

    def step(self, done, n_steps, loss):
        super().step(done, n_steps, loss)
        if done == 2:
            for loader in loaders()[:1]:
                loader.kill()
            if not loaders():
                raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("n_workers", "kind", "message"),
    [(2, MemoryError, "a process that loads frames ended"), (0, RuntimeError, "^can't start new")],
)
def test_loaders_are_told_of_where_there_are_some(tmp_path, n_workers, kind, message):
    frames = write_frames(tmp_path / "frames.extxyz")
    recipe = recipe_of(frames, tmp_path / "run", epochs=20, num_workers=n_workers)
    with pytest.raises(kind, match=message) as caught:
        quiet_run(recipe, FailingLog())
    check_they_end(caught)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (EOFError(), MemoryError, "loads frames ended"),
        (ConnectionResetError(), MemoryError, "loads frames ended"),
        (RuntimeError("other"), RuntimeError, "other"),
    ],
)
def test_a_loader_may_end_while_it_hands_over_a_batch(error, kind, message):
    told = loop._ended_loaders_told(TrainingSection(num_workers=1))
    with pytest.raises(kind, match=message), told:
        raise error


class BrokenSet(Dataset):
    """Frames of which one cannot be read."""

    def __init__(self, frames, index, end):
        self.frames, self.index, self.end = frames, index, end

    def __getitem__(self, index):
        if index == self.index:
            self.end(index)
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


def broken(index):
    raise ValueError(f"frame {index} is broken")


def test_loaders_of_an_error_that_is_kept_end(graphs):
    dataset = steps_of(BrokenSet(graphs, FrameOrder(16, 1, seed=0).frames(9)[0], broken))
    batches = dataset.load(0, 1000, 2)
    next(batches)
    with pytest.raises(ValueError, match="is broken") as caught:
        list(batches)
    check_they_end(caught)


def test_loaders_leave_the_signals_of_a_group_to_the_process_that_saves(graphs):
    with contextlib.closing(steps_of(graphs).load(0, 1000, 1)) as batches:
        next(batches)
        (loader,) = loaders()
        for _ in range(20):
            os.kill(loader.pid, signal.SIGTERM)
            os.kill(loader.pid, signal.SIGINT)
            next(batches)
        assert loader.is_alive()


def slow(index):
    time.sleep(60)


def test_a_loader_that_is_busy_ends_at_once(graphs):
    dataset = steps_of(BrokenSet(graphs, FrameOrder(16, 1, seed=0).frames(1)[0], slow))
    batches = dataset.load(0, 1000, 1)
    next(batches)
    (loader,) = loaders()
    batches.close()
    assert loader.exitcode == 0


def test_training_without_loaders_needs_no_semaphores(graphs, monkeypatch):
    """Some sandboxes have none."""
    monkeypatch.setattr("_multiprocessing.SemLock", None)
    assert len(list(steps_of(graphs).load(0, 3, 0))) == 3
