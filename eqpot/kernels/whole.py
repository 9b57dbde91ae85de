"""All of a potential at once: for small structures, for a GPU, and for training."""

from collections.abc import Callable

import torch
from torch import Tensor

from eqpot.kernels.layers import PotentialPart, force_shares
from eqpot.models import GauntModel
from eqpot.nn.neighbors import incoming_sums
from eqpot.potential import Potential

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], "list[Tensor]"]
"""What computes as :class:`ExplicitKernel` does."""


class ExplicitKernel(PotentialPart):
    """The part of a potential that is compiled, to be traced.

    It takes neighbours in slots: edge vectors, Å, float64, shape (n, 3, j), and neighbours (n, j)
    of :func:`eqpot.nn.neighbors.pad_edges`; and (j, n) of
    :func:`eqpot.nn.neighbors.incoming_slots`; these two, and species (n,), are int64. It returns of
    each atom, in float64: energies, eV, shape (n,); forces, eV/Å, shape (n, 3); and its part of the
    virial, eV, shape (n, 9).

    Parameters
    ----------
    potential
        In memory.
    model
        That of the potential, or one that computes the same.
    learning
        Whether a loss of the results can be differentiated.
    """

    def __init__(self, potential: Potential, model: GauntModel, learning: bool = False) -> None:
        super().__init__(potential, model)
        self.learning = learning

    def forward(
        self, vectors: Tensor, neighbors: Tensor, incoming: Tensor, species: Tensor
    ) -> list[Tensor]:
        """Return energies, forces and virials."""
        vectors = vectors.detach().requires_grad_(True)
        energies, _ = self.model.of_blocks(vectors.to(self.dtype), neighbors, species, incoming)
        energies = self.scaled(energies, species)
        repulsion = self.repulsions(vectors, neighbors, species, species)
        if repulsion is not None:
            energies = energies + repulsion
        (gradient,) = torch.autograd.grad([energies.sum()], [vectors], create_graph=self.learning)
        own, shares = force_shares(vectors, gradient)
        sums = incoming_sums(shares, neighbors, incoming)
        results = [energies, own + sums[:, :3], sums[:, 3:]]
        return results if self.learning else [result.detach() for result in results]
