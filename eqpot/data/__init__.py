"""From files of frames to graphs: readers, store, neighbour lists, splits."""

from eqpot.data.frames import Frame, LabelCounts, count_labels
from eqpot.data.graphs import GraphDataset, collate, frame_to_graph
from eqpot.data.neighbors import (
    check_distances,
    cluster_neighbor_list,
    neighbor_list,
    torch_neighbor_list,
)
from eqpot.data.readers import LabelReport, Reading, iter_frames, read_frames
from eqpot.data.splits import Split, split_frames
from eqpot.data.store import FrameStore, write_store

__all__ = [
    "Frame",
    "FrameStore",
    "GraphDataset",
    "LabelCounts",
    "LabelReport",
    "Reading",
    "Split",
    "check_distances",
    "cluster_neighbor_list",
    "collate",
    "count_labels",
    "frame_to_graph",
    "iter_frames",
    "neighbor_list",
    "read_frames",
    "split_frames",
    "torch_neighbor_list",
    "write_store",
]
