"""Frames to graphs: the data set that a loader draws from."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from eqpot import keys
from eqpot.data.frames import Frame
from eqpot.data.neighbors import neighbor_list
from eqpot.graph import Graph, batch_graphs

CACHE_BYTES: Final = 2**30
"""Memory that neighbour lists may take in each process, unless told otherwise."""


def frame_to_graph(frame: Frame, cutoff: float, dtype: torch.dtype = torch.float64) -> Graph:
    """Return the graph of one frame, with its labels.

    Labels are always there, so that frames with and without them share a batch: a label that the
    frame lacks is NaN throughout, and the loss leaves it out.

    Parameters
    ----------
    frame
        The frame.
    cutoff
        Å.
    dtype
        Of all floating tensors but ``energy``, which stays float64: a total energy in float32 is
        known to a few meV only.

    Returns
    -------
    Graph
        ``positions``, ``atomic_numbers``, ``cell``, ``pbc``, ``batch``, ``edge_index``,
        ``edge_shifts``, ``energy``, ``forces``, ``stress``, ``weight``, ``atom_weight``, in the
        shapes of :mod:`eqpot.keys` with one graph.

    Raises
    ------
    ValueError
        As :func:`eqpot.data.neighbors.neighbor_list`, with the source of the frame.
    """
    return _assemble(frame, *_edges(frame, cutoff), dtype)


class GraphDataset(Dataset[Graph]):
    """Graphs of frames, whose neighbour lists are computed once while memory lasts.

    Parameters
    ----------
    frames
        A list of frames, or a :class:`eqpot.data.store.FrameStore`.
    cutoff
        Å.
    dtype
        As in :func:`frame_to_graph`.
    cache_bytes
        Memory for neighbour lists in each process; those that do not fit are computed at each
        use. 0 keeps none.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        cutoff: float,
        dtype: torch.dtype = torch.float64,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.frames = frames
        self.cutoff = cutoff
        self.dtype = dtype
        self.cache_bytes = cache_bytes
        self.cached_bytes = 0
        self._edges: dict[int, tuple[NDArray[np.int32], NDArray[np.int16]]] = {}

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Graph:
        if index < 0:
            index += len(self)
        frame = self.frames[index]
        if index in self._edges:
            compact_index, compact_shifts = self._edges[index]
            return _assemble(
                frame, compact_index.astype(np.int64), compact_shifts.astype(np.float64), self.dtype
            )
        edge_index, edge_shifts = _edges(frame, self.cutoff)
        self._keep(index, edge_index, edge_shifts)
        return _assemble(frame, edge_index, edge_shifts, self.dtype)

    def _keep(
        self, index: int, edge_index: NDArray[np.int64], edge_shifts: NDArray[np.float64]
    ) -> None:
        # small integers take 14 bytes an edge instead of 40
        size = 14 * len(edge_shifts)
        fits = not edge_shifts.size or np.abs(edge_shifts).max() <= np.iinfo(np.int16).max
        if fits and self.cached_bytes + size <= self.cache_bytes:
            self._edges[index] = edge_index.astype(np.int32), edge_shifts.astype(np.int16)
            self.cached_bytes += size


def collate(graphs: Sequence[Graph]) -> Graph:
    """Return the batch of some graphs: the ``collate_fn`` of a data loader.

    Parameters
    ----------
    graphs
        Graphs with the same keys.

    Raises
    ------
    ValueError
        If there is no graph, or their keys differ.
    """
    return batch_graphs(graphs)


def _edges(frame: Frame, cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    try:
        return neighbor_list(frame.positions, frame.cell, frame.pbc, cutoff)
    except ValueError as error:
        raise ValueError(f"{frame.source or 'frame'}: {error}") from error


def _assemble(
    frame: Frame,
    edge_index: NDArray[np.int64],
    edge_shifts: NDArray[np.float64],
    dtype: torch.dtype,
) -> Graph:
    n_atoms = len(frame)
    energy = float("nan") if frame.energy is None else frame.energy
    forces = np.full((n_atoms, 3), np.nan) if frame.forces is None else frame.forces
    stress = np.full((3, 3), np.nan) if frame.stress is None else frame.stress
    atom_weights = np.ones(n_atoms) if frame.atom_weights is None else frame.atom_weights

    def floating(array: NDArray[np.float64]) -> Tensor:
        # a copy: the arrays of a frame are read-only
        return torch.tensor(array, dtype=dtype)

    return {
        keys.POSITIONS: floating(frame.positions),
        keys.ATOMIC_NUMBERS: torch.tensor(frame.atomic_numbers, dtype=torch.int64),
        keys.CELL: floating(frame.cell)[None],
        keys.PBC: torch.tensor(frame.pbc)[None],
        keys.BATCH: torch.zeros(n_atoms, dtype=torch.int64),
        keys.EDGE_INDEX: torch.from_numpy(edge_index),
        keys.EDGE_SHIFTS: floating(edge_shifts),
        keys.ENERGY: torch.tensor([energy], dtype=torch.float64),
        keys.FORCES: floating(forces),
        keys.STRESS: floating(stress)[None],
        keys.WEIGHT: torch.tensor([frame.weight], dtype=dtype),
        keys.ATOM_WEIGHT: floating(atom_weights),
    }
