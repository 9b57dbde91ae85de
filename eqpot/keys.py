"""Names of everything that travels in a graph: one tensor a key, its shape and unit stated here.

A graph is a ``dict[str, torch.Tensor]``. Code that TorchScript compiles reads the names from here
as ``keys.NAME``; nothing else in the package spells them out.

=====================  ===================  ====================================================
key                    shape                meaning
=====================  ===================  ====================================================
``positions``          (n_atoms, 3)         Å
``atomic_numbers``     (n_atoms,)           Z, int64
``species``            (n_atoms,)           index in the model's list of elements, int64
``cell``               (n_graphs, 3, 3)     rows are lattice vectors, Å
``pbc``                (n_graphs, 3)        bool
``batch``              (n_atoms,)           graph of each atom, int64, not decreasing
``edge_index``         (2, n_edges)         row 0 centre i (ascending), row 1 neighbour j, int64
``edge_shifts``        (n_edges, 3)         integer cell shifts S, dtype of ``positions``
``edge_vectors``       (n_edges, 3)         r_j - r_i + S · cell, Å
``node_energy``        (n_atoms,)           energy of each atom, eV
``node_features``      (n_lm, n_atoms, C)   last features of the model, packed l² + l + m
``energy``             (n_graphs,)          total energy, E0s included, eV
``forces``             (n_atoms, 3)         -∂E/∂r, eV/Å
``stress``             (n_graphs, 3, 3)     (1/V) ∂E/∂ε, eV/Å³, positive in tension
``virial``             (n_graphs, 3, 3)     -V · stress = -∂E/∂ε, eV
``node_virial``        (n_atoms, 3, 3)      part of an atom in ``virial``, eV; see Potential
``weight``             (n_graphs,)          weight of a frame in the loss
``atom_weight``        (n_atoms,)           weight of an atom's force in the loss
=====================  ===================  ====================================================
"""

from typing import Final

POSITIONS: Final = "positions"
ATOMIC_NUMBERS: Final = "atomic_numbers"
SPECIES: Final = "species"
CELL: Final = "cell"
PBC: Final = "pbc"
BATCH: Final = "batch"

EDGE_INDEX: Final = "edge_index"
EDGE_SHIFTS: Final = "edge_shifts"
EDGE_VECTORS: Final = "edge_vectors"

NODE_ENERGY: Final = "node_energy"
NODE_FEATURES: Final = "node_features"

ENERGY: Final = "energy"
FORCES: Final = "forces"
STRESS: Final = "stress"
VIRIAL: Final = "virial"
NODE_VIRIAL: Final = "node_virial"

WEIGHT: Final = "weight"
ATOM_WEIGHT: Final = "atom_weight"
