"""From a list of edges to blocks of equal size: one block of neighbour slots an atom.

In blocks every sum over neighbours is a batched matrix product. Empty slots hold a vector beyond
the radius, where every radial function is zero with its derivatives.
"""

import torch
from torch import Tensor


def pad_edges(
    edge_index: Tensor, edge_vectors: Tensor, n_atoms: int, r_max: float, multiple: int = 2
) -> tuple[Tensor, Tensor]:
    """Return the neighbours of each atom in blocks of ``n_slots``, their largest number rounded up.

    Matrices with an odd number of columns take up to a fifth longer to multiply.

    Parameters
    ----------
    edge_index
        Shape (2, n_edges), centres ascending.
    edge_vectors
        Shape (n_edges, 3), Å.
    n_atoms
        Number of atoms.
    r_max
        Radius, Å: each component of a vector in an empty slot is twice this.
    multiple
        Of which ``n_slots`` is a multiple, and not zero.

    Returns
    -------
    neighbors : Tensor
        Neighbour in each slot, shape (n_atoms, n_slots), int64; 0 in empty slots.
    vectors : Tensor
        Shape (n_atoms, 3, n_slots), Å.
    """
    centers = edge_index[0]
    counts = torch.bincount(centers, minlength=n_atoms)
    most = int(counts.max().item()) if n_atoms > 0 else 0
    n_slots = multiple * max(1, -(-most // multiple))
    # edges of an atom follow each other: a slot is the number of its edge and an offset of the atom
    first_edges = torch.cumsum(counts, dim=0) - counts
    offsets = n_slots * torch.arange(n_atoms, device=centers.device) - first_edges
    slots = torch.arange(centers.numel(), device=centers.device) + offsets.index_select(0, centers)
    neighbors = torch.zeros(n_atoms * n_slots, dtype=torch.long, device=centers.device)
    neighbors = neighbors.index_copy(0, slots, edge_index[1])
    vectors = edge_vectors.new_full((n_atoms * n_slots, 3), 2.0 * r_max)
    vectors = vectors.index_copy(0, slots, edge_vectors)
    vectors = vectors.view(n_atoms, n_slots, 3).transpose(1, 2).contiguous()
    return neighbors.view(n_atoms, n_slots), vectors
