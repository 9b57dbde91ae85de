"""Energies and their gradient a few thousand edges at a time, so that memory is bounded."""

from typing import Dict

import torch
from torch import Tensor, nn

from eqpot import keys
from eqpot.models.gaunt import GauntModel
from eqpot.models.known_gradient import KnownGradient
from eqpot.models.stepwise import layer_field, sent_fields
from eqpot.nn.neighbors import pad_edges, rows


class ChunkedModel(nn.Module):
    """A model that computes large structures in chunks of atoms.

    It takes the place of the model in a :class:`eqpot.potential.Potential`. Each layer is computed
    chunk by chunk and only the fields between layers are kept; the gradient goes back through the
    layers in the same way and computes each, but for the last, once more. So memory grows by what
    the fields and the list of edges take, and the time by about a third. Structures with no more
    edges than fit a chunk are computed as ever.

    The gradient is that of the sum of the energies, which is all that forces and stress need; there
    is no second one, so this is not for training.

    Parameters
    ----------
    model
        What computes.
    edge_budget
        Edges of a chunk; an atom with more is a chunk of its own.

    Raises
    ------
    ValueError
        If the budget is not above zero.
    """

    def __init__(self, model: GauntModel, edge_budget: int) -> None:
        super().__init__()
        if edge_budget < 1:
            raise ValueError(f"`edge_budget` must be at least 1, got {edge_budget}")
        self.model = model
        self.edge_budget = edge_budget

    def forward(self, graph: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """Return ``node_energy`` and ``node_features`` as :meth:`GauntModel.forward` does."""
        edge_index, edge_vectors = graph[keys.EDGE_INDEX], graph[keys.EDGE_VECTORS]
        if edge_index.shape[1] <= self.edge_budget:
            outputs: Dict[str, Tensor] = self.model(graph)
            return outputs
        sweep = _Sweep(self.model, edge_index, edge_vectors.detach(), graph[keys.SPECIES])
        chunks = sweep.chunks(self.edge_budget)
        energies, gradient, field = sweep.back(chunks, sweep.forth(chunks))
        return {
            keys.NODE_ENERGY: KnownGradient.apply(edge_vectors, energies, gradient),
            keys.NODE_FEATURES: field,
        }


class _Sweep:
    """The layers of a model over the chunks of one structure, forth and back.

    Letters as in :mod:`eqpot.models.interactions`. ``step`` counts layers from 0.
    """

    def __init__(
        self, model: GauntModel, edge_index: Tensor, edge_vectors: Tensor, species: Tensor
    ) -> None:
        self.model, self.species = model, species
        self.edge_index, self.edge_vectors = edge_index, edge_vectors
        counts = torch.bincount(edge_index[0], minlength=len(species))
        zero = counts.new_zeros(1)
        self.first_edges = torch.cat([zero, counts.cumsum(0)]).cpu()
        self.n_layers = 1 + len(model.later)

    def chunks(self, edge_budget: int) -> list[slice]:
        """Return ranges of atoms with no more edges than the budget, or of one atom."""
        found, start = [], 0
        while start < len(self.species):
            most = self.first_edges[start] + edge_budget
            stop = int(torch.searchsorted(self.first_edges, most, right=True)) - 1
            stop = max(start + 1, stop)
            found.append(slice(start, stop))
            start = stop
        return found

    def edges(self, atoms: slice) -> slice:
        """Return the range of edges whose centres are the atoms."""
        return slice(int(self.first_edges[atoms.start]), int(self.first_edges[atoms.stop]))

    def senders(self, step: int, field: Tensor) -> tuple[Tensor, ...]:
        """Return what atoms send into a layer, as :func:`sent_fields`.

        Into the first they send their element, which is no field: nothing.
        """
        return () if step == 0 else sent_fields(self.model, step, field)

    def layer(
        self, step: int, atoms: slice, vectors: Tensor, scalars: Tensor, *arriving: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return a layer's field of a chunk, and what of it is read out.

        Parameters
        ----------
        vectors
            Of the edges of the chunk, shape (n_edges, 3).
        scalars
            l=0 part of the field before the layer, shape (n, c).
        arriving
            Rows of :meth:`senders` for the edges of the chunk.
        """
        model, edges = self.model, self.edges(atoms)
        centers = self.edge_index[0, edges] - atoms.start
        n_atoms = atoms.stop - atoms.start
        places = torch.arange(len(centers), device=centers.device)
        slots, padded, _ = pad_edges(torch.stack([centers, places]), vectors, n_atoms, model.r_max)
        if step == 0:
            in_slots = [self.species[self.edge_index[1, edges][slots]]]
        else:
            in_slots = [rows(part, slots) for part in arriving]
        return layer_field(model, step, padded, in_slots, scalars, self.species[atoms])

    @torch.no_grad()
    def forth(self, chunks: list[slice]) -> list[Tensor]:
        """Return the field before each layer, shapes (k, n, c); the first has l=0 alone."""
        fields = [self.model.embedding[self.species][None]]
        for step in range(self.n_layers - 1):
            before = fields[-1]
            senders = self.senders(step, before)
            parts = []
            for atoms in chunks:
                edges = self.edges(atoms)
                arriving = [part[self.edge_index[1, edges]] for part in senders]
                inputs = (self.edge_vectors[edges], before[0, atoms], *arriving)
                parts.append(self.layer(step, atoms, *inputs)[0])
            fields.append(torch.cat(parts, dim=1))
        return fields

    @torch.enable_grad()
    def back(self, chunks: list[slice], fields: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return node energies, the gradient of their sum to the edge vectors, and the last field.

        Parameters
        ----------
        chunks
            Ranges of atoms.
        fields
            Of :meth:`forth`.
        """
        energies = -self.model.isolated_energies().detach()[self.species]
        gradient = torch.zeros_like(self.edge_vectors)
        pull: Tensor | None = None  # gradient to the field after the layer
        last: list[Tensor] = []
        for step in reversed(range(len(fields))):
            before = fields[step].detach().requires_grad_(True)
            senders = self.senders(step, before)
            pulls_sent = [torch.zeros_like(part) for part in senders]
            pull_scalars = torch.zeros_like(before[0])
            for atoms in chunks:
                edges = self.edges(atoms)
                neighbors = self.edge_index[1, edges]
                arriving = [part[neighbors] for part in senders]
                inputs = (self.edge_vectors[edges], before[0, atoms], *arriving)
                leaves = [tensor.detach().requires_grad_(True) for tensor in inputs]
                field, energy = self.layer(step, atoms, *leaves)
                target = energy.sum()
                if pull is None:
                    last.append(field.detach())
                else:
                    target = target + (field * pull[:, atoms]).sum()
                vectors, scalars, *arrived = torch.autograd.grad(
                    [target], leaves, materialize_grads=True
                )
                energies[atoms] += energy.detach()
                gradient[edges] += vectors
                pull_scalars[atoms] = scalars
                for pull_sent, part in zip(pulls_sent, arrived, strict=True):
                    pull_sent.index_add_(0, neighbors, part)
            if step > 0:
                (pull,) = torch.autograd.grad(senders, [before], pulls_sent)
                pull[0] += pull_scalars
        return energies, gradient, torch.cat(last, dim=1)
