"""From files of frames to graphs: readers, store, neighbour lists, splits."""

from eqpot.data.frames import Frame, LabelCounts, count_labels
from eqpot.data.graphs import GraphDataset, collate, frame_to_graph
from eqpot.data.neighbors import (
    check_distances,
    cluster_neighbor_list,
    neighbor_list,
    torch_neighbor_list,
)
from eqpot.data.readers import LabelKeys, LabelReport, Reading, iter_frames, read_frames
from eqpot.data.sequences import Concatenation, Reweighted, Subset, n_atoms_of
from eqpot.data.splits import Split, split_frames
from eqpot.data.store import FrameStore, write_store

__all__ = [
    "Concatenation",
    "Frame",
    "FrameStore",
    "GraphDataset",
    "LabelCounts",
    "LabelKeys",
    "LabelReport",
    "Reading",
    "Reweighted",
    "Split",
    "Subset",
    "check_distances",
    "cluster_neighbor_list",
    "collate",
    "count_labels",
    "frame_to_graph",
    "iter_frames",
    "n_atoms_of",
    "neighbor_list",
    "read_frames",
    "split_frames",
    "torch_neighbor_list",
    "write_store",
]
