"""Numbers that the data give to the potential: mean neighbours and the size of forces."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from eqpot import keys
from eqpot.data import GraphDataset

_N_GRAPHS: Final = 10_000


@dataclass(frozen=True)
class Statistics:
    """Statistics of the training graphs.

    Attributes
    ----------
    avg_num_neighbors
        Mean number of neighbours of an atom, at least 1.
    force_rms
        Root mean square of a force component, eV/Å.
    n_atoms
        Mean number of atoms of a frame.
    """

    avg_num_neighbors: float
    force_rms: float
    n_atoms: float


def training_statistics(graphs: GraphDataset) -> Statistics:
    """Return the statistics of graphs that carry forces or energies.

    Of very many graphs, ten thousand that are spread evenly are looked at. Frames without an edge
    are left out: isolated atoms tell nothing of the others.

    Raises
    ------
    ValueError
        If no graph has an edge, none carries forces, or all forces are zero.
    """
    n_graphs = n_atoms = n_edges = n_components = 0
    squares = 0.0
    places = np.linspace(0, len(graphs) - 1, min(len(graphs), _N_GRAPHS)).round()
    for place in places.astype(np.int64).tolist():
        graph = graphs[place]
        edges = graph[keys.EDGE_INDEX].shape[1]
        if edges == 0:
            continue
        n_graphs += 1
        n_atoms += len(graph[keys.POSITIONS])
        n_edges += edges
        forces = graph[keys.FORCES]
        forces = forces[~forces.isnan()]
        n_components += forces.numel()
        squares += float(forces.square().sum())
    if n_graphs == 0:
        raise ValueError("no frame has two atoms within `model.r_max` of each other")
    if n_components == 0:
        raise ValueError(
            "no training frame whose atoms have neighbours has forces, and energies alone are not "
            "enough: compute them or, if they have another name, give it as `data.forces_key`"
        )
    force_rms = (squares / n_components) ** 0.5
    if force_rms == 0.0:
        raise ValueError("all `forces` are zero: their size sets the scale of the model")
    return Statistics(max(1.0, n_edges / n_atoms), force_rms, n_atoms / n_graphs)
