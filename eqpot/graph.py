"""The graph: the dict of tensors that travels from the data to the potential, and its check."""

from collections.abc import Sequence
from typing import Dict

import torch
from torch import Tensor

from eqpot import keys

Graph = Dict[str, Tensor]

_SHAPES: dict[str, tuple[str | int, ...]] = {
    keys.POSITIONS: ("n_atoms", 3),
    keys.ATOMIC_NUMBERS: ("n_atoms",),
    keys.SPECIES: ("n_atoms",),
    keys.CELL: ("n_graphs", 3, 3),
    keys.PBC: ("n_graphs", 3),
    keys.BATCH: ("n_atoms",),
    keys.EDGE_INDEX: (2, "n_edges"),
    keys.EDGE_SHIFTS: ("n_edges", 3),
    keys.EDGE_VECTORS: ("n_edges", 3),
    keys.ENERGY: ("n_graphs",),
    keys.FORCES: ("n_atoms", 3),
    keys.STRESS: ("n_graphs", 3, 3),
    keys.WEIGHT: ("n_graphs",),
    keys.ATOM_WEIGHT: ("n_atoms",),
}
_INPUTS = (
    keys.POSITIONS,
    keys.ATOMIC_NUMBERS,
    keys.CELL,
    keys.BATCH,
    keys.EDGE_INDEX,
    keys.EDGE_SHIFTS,
)


def check_graph(graph: Graph) -> None:
    """Check that a graph has what a potential reads, in the shapes of :mod:`eqpot.keys`.

    Parameters
    ----------
    graph
        Tensors by name.

    Raises
    ------
    ValueError
        If an entry is missing, or a shape or an index range is wrong.
    """
    sizes: dict[str, int] = {}
    missing = [name for name in _INPUTS if name not in graph]
    if missing:
        raise ValueError(f"a graph needs {list(_INPUTS)}; missing: {missing}")
    for name, tensor in graph.items():
        expected = _SHAPES.get(name)
        if expected is None:
            continue
        shape = tuple(tensor.shape)
        fits = len(shape) == len(expected) and all(
            size == (sizes.setdefault(axis, size) if isinstance(axis, str) else axis)
            for size, axis in zip(shape, expected, strict=True)
        )
        if not fits:
            known = {axis: size for axis, size in sizes.items() if axis in expected}
            raise ValueError(f"`{name}` must have shape {expected}, got {shape} (with {known})")
    edge_index = graph[keys.EDGE_INDEX]
    if edge_index.numel() > 0:
        if int(edge_index.min()) < 0 or int(edge_index.max()) >= sizes["n_atoms"]:
            raise ValueError(
                f"`edge_index` must lie in 0..{sizes['n_atoms'] - 1}, "
                f"got {int(edge_index.min())}..{int(edge_index.max())}"
            )
        if bool((edge_index[0].diff() < 0).any()):
            raise ValueError("`edge_index` row 0 must not decrease: sort the edges by centre")


def batch_graphs(graphs: Sequence[Graph]) -> Graph:
    """Join graphs into one whose parts do not see each other.

    Parameters
    ----------
    graphs
        Graphs with the same keys. ``edge_index`` and ``batch`` are counted on; all else is joined
        along its first axis.

    Returns
    -------
    Graph
        One graph of ``sum(n_graphs)`` structures.

    Raises
    ------
    ValueError
        If there is no graph, or their keys differ.
    """
    if not graphs:
        raise ValueError("cannot batch an empty list of graphs")
    names = graphs[0].keys()
    for graph in graphs[1:]:
        if graph.keys() != names:
            raise ValueError(
                f"graphs of one batch must have the same keys, got {sorted(names)} and "
                f"{sorted(graph.keys())}"
            )
    atom_offset = 0
    graph_offset = 0
    edge_index = []
    batch = []
    for graph in graphs:
        edge_index.append(graph[keys.EDGE_INDEX] + atom_offset)
        batch.append(graph[keys.BATCH] + graph_offset)
        atom_offset += len(graph[keys.POSITIONS])
        graph_offset += len(graph[keys.CELL])
    joined = {
        name: torch.cat([graph[name] for graph in graphs])
        for name in names
        if name not in (keys.EDGE_INDEX, keys.BATCH)
    }
    joined[keys.EDGE_INDEX] = torch.cat(edge_index, dim=1)
    joined[keys.BATCH] = torch.cat(batch)
    return joined


def graph_to(graph: Graph, device: torch.device) -> Graph:
    """Return the graph on ``device``; entries already there are not copied."""
    return {name: tensor.to(device) for name, tensor in graph.items()}
