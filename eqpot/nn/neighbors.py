"""From a list of edges to blocks of equal size: one block of neighbour slots an atom.

In blocks every sum over neighbours is a batched matrix product. Empty slots hold a vector beyond
the radius, where every radial function is zero with its derivatives. Fields go from atoms into the
slots where they are neighbours, and gradients and forces come back from there.
"""

from typing import Any

import torch
from torch import Tensor


def pad_edges(
    edge_index: Tensor, edge_vectors: Tensor, n_atoms: int, r_max: float, multiple: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
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
    slots : Tensor
        Slot of each edge, counted through all atoms, shape (n_edges,).
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
    return neighbors.view(n_atoms, n_slots), vectors, slots


def incoming_slots(edge_index: Tensor, slots: Tensor, neighbors: Tensor) -> Tensor:
    """Return the slots in which each atom is itself the neighbour.

    Edges come in both directions, so as many lead to an atom as from it. What they bring is summed
    by the atom, not added from slot after slot to whatever atom it points to: threads share that
    without waiting for each other, and it rounds always alike.

    Parameters
    ----------
    edge_index
        As for :func:`pad_edges`.
    slots, neighbors
        What that returned.

    Returns
    -------
    Tensor
        Slots counted through all atoms, shape (n_slots, n_atoms): compiled loops sum over the first
        axis with whole vectors. Where an atom has no more, an empty slot of its own.

    Raises
    ------
    ValueError
        If an atom has another number of edges from it than to it, or centres do not ascend.
    """
    receivers, order = torch.sort(edge_index[1], stable=True)
    if not torch.equal(receivers, edge_index[0]):
        n_atoms = len(neighbors)
        sent, received = (torch.bincount(ends, minlength=n_atoms) for ends in edge_index)
        atoms = (sent != received).nonzero().flatten().tolist()
        if not atoms:
            raise ValueError("`edge_index[0]`, the centres, must not decrease; sort the edges")
        raise ValueError(
            f"`edge_index` must hold each edge in both directions, got {int(sent[atoms[0]])} from "
            f"and {int(received[atoms[0]])} to atom {atoms[0]}"
        )
    incoming = torch.arange(neighbors.numel(), device=slots.device)
    incoming = incoming.index_copy(0, slots, slots.index_select(0, order))
    return incoming.view_as(neighbors).t().contiguous()


def rows(table: Tensor, indices: Tensor) -> Tensor:
    """Return rows of a table, shape (``*indices.shape``, columns).

    The gradient of ``table[indices]`` would take some five times as long.
    """
    found: Tensor = table.index_select(0, indices.flatten()).unflatten(0, indices.shape)
    return found


def neighbor_rows(table: Tensor, neighbors: Tensor, incoming: Tensor | None) -> Tensor:
    """Return the rows of the neighbours in all slots, shape (n_atoms, n_slots, columns).

    Parameters
    ----------
    table
        A row for each atom.
    neighbors
        As of :func:`pad_edges`.
    incoming
        As of :func:`incoming_slots`, if the gradient, zero in empty slots, is to be summed by
        :func:`incoming_sums`.
    """
    if incoming is None:
        return rows(table, neighbors)
    return _differentiable_rows(table, neighbors, incoming)


@torch.jit.unused
def _differentiable_rows(table: Tensor, neighbors: Tensor, incoming: Tensor) -> Tensor:
    found: Tensor = _NeighborRows.apply(table, neighbors, incoming)
    return found


def incoming_sums(sent: Tensor, neighbors: Tensor, incoming: Tensor) -> Tensor:
    """Return the sum of what edges bring to each atom, shape (n_atoms, columns).

    Parameters
    ----------
    sent
        What each slot brings to its neighbour, shape (n_atoms, n_slots, columns); an empty one, 0.
    neighbors, incoming
        As of :func:`pad_edges` and :func:`incoming_slots`.
    """
    found: Tensor = _IncomingSums.apply(sent, neighbors, incoming)
    return found


class _NeighborRows(torch.autograd.Function):
    """Rows of neighbours; the gradient is of :class:`_IncomingSums`, if zero in empty slots."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, neighbors: Tensor, incoming: Tensor) -> Tensor:
        ctx.save_for_backward(neighbors, incoming)
        return rows(table, neighbors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return incoming_sums(gradient, *ctx.saved_tensors), None, None


class _IncomingSums(torch.autograd.Function):
    """Sums of what edges bring; the gradient is of :class:`_NeighborRows`, but for empty slots."""

    @staticmethod
    def forward(ctx: Any, sent: Tensor, neighbors: Tensor, incoming: Tensor) -> Tensor:
        ctx.save_for_backward(neighbors, incoming)
        return rows(sent.flatten(0, 1), incoming).sum(dim=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _differentiable_rows(gradient, *ctx.saved_tensors), None, None
