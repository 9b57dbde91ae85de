"""Batches: which frames a step takes, and how they are packed into parts that fit the memory.

The frames of a step are a matter of the recipe; the parts they are computed in are a matter of the
machine. The loss and its gradient are sums over frames, so the parts change nothing but rounding.
"""

import functools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eqpot import keys
from eqpot.data import GraphDataset, collate, n_atoms_of
from eqpot.graph import Graph

_PAUSE: Final = 0.2
"""Seconds between looks of a loader at whether its batches are still wanted."""


class FrameOrder:
    """The frames of each step: permutation after permutation, a function of seed and step alone.

    No state of a random generator is kept or moved, so that a run resumed at any step goes on with
    the frames of an uninterrupted one, whatever loads them.

    Parameters
    ----------
    n_frames
        Frames of an epoch.
    batch_size
        Frames of a step, at most ``n_frames``.
    seed
        Of the permutations.
    """

    def __init__(self, n_frames: int, batch_size: int, seed: int) -> None:
        self.n_frames, self.batch_size, self.seed = n_frames, min(batch_size, n_frames), seed
        self._permutations: dict[int, Tensor] = {}

    def n_steps(self, n_epochs: int) -> int:
        """Return the steps in which each frame is taken ``n_epochs`` times, or a few once more."""
        return -(-n_epochs * self.n_frames // self.batch_size)

    def frames(self, step: int) -> list[int]:
        """Return the indices of the frames of a step."""
        first = step * self.batch_size
        places = range(first, first + self.batch_size)
        return [
            int(self._permutation(place // self.n_frames)[place % self.n_frames])
            for place in places
        ]

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._permutations:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            permutation = torch.randperm(self.n_frames, generator=generator)
            # a batch lies in two epochs at most
            kept = {e: p for e, p in self._permutations.items() if e == epoch - 1}
            self._permutations = {**kept, epoch: permutation}
        return self._permutations[epoch]


@dataclass(frozen=True)
class Batch:
    """One process' share of the frames of a step.

    Attributes
    ----------
    frames
        Indices in the data set.
    parts
        The graphs that are computed one after the other; none where the share is empty.
    groups
        For each part, the indices of its frames.
    """

    frames: list[int]
    parts: list[Graph]
    groups: list[list[int]]


def make_batch(dataset: GraphDataset, frames: Sequence[int], edge_budget: int | None) -> Batch:
    """Return frames joined into as few parts as hold at most ``edge_budget`` edges each.

    A frame that exceeds the budget alone is a part of its own.
    """
    graphs = [dataset[index] for index in frames]
    places = pack([graph[keys.EDGE_INDEX].shape[1] for graph in graphs], edge_budget)
    return Batch(
        list(frames),
        [collate([graphs[place] for place in part]) for part in places],
        [[frames[place] for place in part] for part in places],
    )


def pack(sizes: Sequence[int], budget: int | None) -> list[list[int]]:
    """Return groups of places whose sizes sum to at most a budget, in few groups.

    First fit in descending order, which needs at most 11/9 of the fewest groups possible, and one.

    References
    ----------
    Johnson, Near-optimal bin packing algorithms, PhD thesis, MIT 1973.
    """
    if budget is None:
        return [list(range(len(sizes)))] if sizes else []
    groups: list[list[int]] = []
    filled: list[int] = []
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        for group, total in enumerate(filled):
            if total + sizes[place] <= budget:
                groups[group].append(place)
                filled[group] += sizes[place]
                break
        else:
            groups.append([place])
            filled.append(sizes[place])
    return [sorted(group) for group in groups]


def largest_frames(dataset: GraphDataset, n: int) -> list[int]:
    """Return the frames with the most edges, looked for among those with the most atoms."""
    candidates = np.argsort(-n_atoms_of(dataset.frames), kind="stable")[: 4 * n].tolist()
    n_edges = {index: dataset[index][keys.EDGE_INDEX].shape[1] for index in candidates}
    return sorted(candidates, key=lambda index: -n_edges[index])[:n]


class StepDataset(Dataset[Batch]):
    """Batches by step, for a loader.

    Parameters
    ----------
    dataset
        Graphs.
    order
        Frames of each step.
    share
        Rank of this process and number of processes.
    edge_budget
        As in :func:`make_batch`.
    excluded
        Frames that are left out.
    """

    def __init__(
        self,
        dataset: GraphDataset,
        order: FrameOrder,
        share: tuple[int, int],
        edge_budget: int | None,
        excluded: frozenset[int],
    ) -> None:
        self.dataset, self.order, self.share = dataset, order, share
        self.edge_budget, self.excluded = edge_budget, excluded

    def __getitem__(self, step: int) -> Batch:
        rank, n_ranks = self.share
        frames = [index for index in self.order.frames(step) if index not in self.excluded]
        return make_batch(self.dataset, frames[rank::n_ranks], self.edge_budget)

    def load(self, first: int, n_steps: int, n_workers: int) -> Generator[Batch]:
        """Return the batches from step ``first`` to the last, loaded by ``n_workers`` processes.

        With no worker they are made when asked for. The batches are the same in any case. Workers
        start with the first batch and end when the generator does: close it, for the garbage
        collector may come late or never where the traceback of an error is kept.
        """
        # no lock, which a signal or the end of a process could leave closed
        is_over = multiprocessing.RawValue("b", 0)
        loader: DataLoader[Batch] = DataLoader(
            self,
            batch_size=None,
            sampler=range(first, n_steps),
            num_workers=n_workers,
            collate_fn=_same,
            worker_init_fn=functools.partial(_begin_loader, is_over),
            prefetch_factor=4 if n_workers else None,
            # its own generator: that of the user must not be moved
            generator=torch.Generator().manual_seed(0),
        )
        batches = iter(loader)
        try:
            yield from batches
        finally:
            is_over.value = 1  # before PyTorch waits for the workers


def _same(batch: Any) -> Any:
    return batch


def _begin_loader(is_over: Any, worker: int) -> None:
    """Leave signals to a whole group to the process that saves, and end with the batches.

    PyTorch's own word to end comes when nothing holds its iterator any more; then it sends SIGTERM.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_batches, args=(is_over,), daemon=True).start()


def _end_with_batches(is_over: Any) -> None:
    while not is_over.value:
        time.sleep(_PAUSE)
    os._exit(0)
