"""A layer on some atoms, forth and back: what is compiled for the CPU.

Letters in shapes: N atoms of the structure, n of them in a call, j neighbour slots.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from eqpot.models import GauntModel
from eqpot.models.settings import GauntSettings
from eqpot.models.stepwise import layer_field, sent_fields
from eqpot.nn.neighbors import incoming_sums, rows
from eqpot.potential import Potential

N_SHARES: Final = 12
"""What an edge gives its neighbour: three components of force and nine of the virial."""
CPU: Final = torch.device("cpu")


@dataclass(frozen=True)
class Array:
    """Shape and type of an input or a result.

    Attributes
    ----------
    shape
        Lengths, or the letters of those that vary.
    dtype
        Of the numbers.
    """

    shape: tuple[int | str, ...]
    dtype: torch.dtype

    def empty(self, lengths: dict[str, int], device: torch.device = CPU) -> Tensor:
        """Return a tensor without values, given the lengths that vary."""
        shape = [lengths[n] if isinstance(n, str) else n for n in self.shape]
        return torch.empty(shape, dtype=self.dtype, device=device)

    def of_all(self) -> "Array":
        """Return the array of all atoms, of which this has a part."""
        return Array(tuple("N" if n == "n" else n for n in self.shape), self.dtype)


class Widths:
    """Shapes and types of all that goes into the layers of a model and comes out.

    Parameters
    ----------
    settings
        Of the model.
    dtype
        Of the model.
    """

    def __init__(self, settings: GauntSettings, dtype: torch.dtype) -> None:
        n_channels, n_senders = settings.n_features, settings.n_senders
        widths = n_senders, ((settings.l_hidden + 1) ** 2 - 1) * n_senders
        self.n_layers = settings.n_layers
        self.sent = [Array(("n", width), dtype) for width in widths if width > 0]
        self.pulls_sent = [Array(("n", "j", width), dtype) for width in widths if width > 0]
        self.scalars = Array(("n", n_channels), dtype)
        self.energies = Array(("n",), dtype)
        self.vectors = Array(("n", 3, "j"), torch.float64)
        self.incoming = Array(("j", "n"), torch.int64)
        self.neighbors = Array(("n", "j"), torch.int64)
        self.species = Array(("n",), torch.int64)
        self.edges = [self.vectors, self.neighbors, self.species.of_all(), self.species]
        self.whole_inputs = [self.vectors, self.neighbors, self.incoming, self.species]
        self.total = Array(("n",), torch.float64)
        self.forces = Array(("n", 3), torch.float64)
        self.virials = Array(("n", N_SHARES - 3), torch.float64)
        self.shares = Array(("n", "j", N_SHARES), torch.float64)

    def layer_inputs(self, step: int) -> list[Array]:
        """Return what a layer takes: edges, and after the first what atoms have and send."""
        if step == 0:
            return self.edges
        return [*self.edges, self.scalars, *(array.of_all() for array in self.sent)]

    def layer_results(self) -> list[Array]:
        """Return what a layer but the last gives: energies, what atoms keep, what they send."""
        return [self.energies, self.scalars, *self.sent]

    def gradients_out(self, step: int) -> list[Array]:
        """Return what goes back out of a layer: :meth:`gradients`, or the forces of the first."""
        return [self.forces, self.shares] if step == 0 else self.gradients()

    def sums_inputs(self) -> list[Array]:
        """Return what :class:`Sums` takes."""
        return [self.incoming, self.forces, self.shares.of_all()]

    def sums(self) -> list[Array]:
        """Return what :class:`Sums` gives: forces and virials."""
        return [self.forces, self.virials]

    def gradients(self) -> list[Array]:
        """Return gradients: to vectors, to what atoms had, and to what came from neighbours."""
        return [self.vectors, self.scalars, *self.pulls_sent]

    def gradients_in(self) -> list[Array]:
        """Return what goes back into a layer but the last: incoming slots and gradients."""
        vectors, scalars, *pulls_sent = self.gradients()
        return [self.incoming, vectors, scalars, *(array.of_all() for array in pulls_sent)]


class PotentialPart(nn.Module):
    """A part of a potential, to be traced, with what is around the model.

    Parameters
    ----------
    potential
        In memory.
    model
        That of the potential, or one that computes the same.
    """

    def __init__(self, potential: Potential, model: GauntModel) -> None:
        super().__init__()
        self.model, self.repulsion = model, potential.repulsion
        self.scale, self.dtype = potential.scale, potential.anchor.dtype
        reference_energies = torch.tensor(potential.reference_energies, dtype=torch.float64)
        self.reference_energies = reference_energies.to(potential.anchor.device)

    def scaled(self, energies: Tensor, species: Tensor) -> Tensor:
        """Return energies of the model, shape (n,), in eV and float64, with reference energies."""
        return self.reference_energies[species] + self.scale * energies.to(torch.float64)

    def repulsions(
        self, vectors: Tensor, neighbors: Tensor, species: Tensor, all_species: Tensor
    ) -> Tensor | None:
        """Return the repulsion of each atom, eV, float64, shape (n,), if there is any."""
        if self.repulsion is None:
            return None
        ends = species[:, None].expand_as(neighbors), all_species[neighbors]
        pairs = self.repulsion.pair_energies(*ends, vectors.transpose(1, 2))
        return pairs.sum(dim=1).to(torch.float64)


class Layer(PotentialPart):
    """A layer of a potential on some atoms, and the gradient of all energies back through it.

    Its inputs are tensors in a row, since it is to be traced: those of :meth:`Widths.layer_inputs`,
    which are edges in blocks, vectors in Å (:func:`eqpot.nn.neighbors.pad_edges`); the species of
    all atoms and of those in the call; scalars of the atoms in the call and what all atoms send.
    Then, for the last layer, the energies of each layer before, and for others what
    :meth:`Widths.gradients_in` names.

    Results are, of a layer but the last, those of :meth:`Widths.layer_results`; of the last the
    energies of the atoms in eV; then those of :meth:`Widths.gradients_out`. Out of the first layer
    come, of each atom, the sum of the gradients of its edges, and of each slot what it brings its
    neighbour: force and virial, eV/Å and eV.

    Parameters
    ----------
    potential
        In memory.
    model
        That of the potential, or one that computes the same.
    step
        Which layer, from 0.
    """

    def __init__(self, potential: Potential, model: GauntModel, step: int) -> None:
        super().__init__(potential, model)
        self.step, self.is_last = step, step == len(model.later)

    def forward(
        self,
        vectors: Tensor,
        neighbors: Tensor,
        all_species: Tensor,
        species: Tensor,
        *more: Tensor,
    ) -> list[Tensor]:
        """Return the results."""
        model, step, rest = self.model, self.step, list(more)
        vectors = vectors.detach().requires_grad_(True)
        leaves = [vectors]
        if step == 0:
            scalars, arriving = model.embedding[species], [all_species[neighbors]]
        else:
            n_sent = 1 if model.settings.l_hidden == 0 else 2
            scalars = rest.pop(0).detach().requires_grad_(True)
            tables, rest = rest[:n_sent], rest[n_sent:]
            arriving = [rows(table, neighbors).detach().requires_grad_(True) for table in tables]
            leaves += [scalars, *arriving]
            if n_sent == 1:  # no degree above l = 0
                arriving.append(arriving[0][:, :, :0])
        field, energies = layer_field(
            model, step, vectors.to(self.dtype), arriving, scalars, species
        )
        targets: list[Tensor] = [(self.scale * energies.to(torch.float64)).sum()]
        pulls: list[Tensor | None] = [None]
        if self.is_last:
            for part in (*rest, -model.isolated_energies()[species]):
                energies = energies + part
            energies = self.scaled(energies, species)
            repulsion = self.repulsions(vectors, neighbors, species, all_species)
            if repulsion is not None:
                energies = energies + repulsion
                targets[0] = targets[0] + repulsion.sum()
            results = [energies]
        else:
            incoming, pull_vectors, pull_scalars, *pulls_sent = rest
            sent = [part for part in sent_fields(model, step + 1, field) if part.shape[1] > 0]
            pulls += [pull_scalars]
            pulls += [incoming_sums(pull, neighbors, incoming) for pull in pulls_sent]
            results = [energies, field[0], *sent]
            targets += results[1:]
        gradient, *others = torch.autograd.grad(targets, leaves, pulls, materialize_grads=True)
        if not self.is_last:
            gradient = gradient + pull_vectors
        results += force_shares(vectors, gradient) if step == 0 else [gradient, *others]
        return [result.detach() for result in results]


class Sums(nn.Module):
    """Forces of some atoms and their parts of the virial, of what :func:`force_shares` returns.

    Inputs are those of :meth:`Widths.sums_inputs`: the atoms' incoming slots and own sums, and the
    shares of all slots.
    """

    def forward(self, incoming: Tensor, own: Tensor, shares: Tensor) -> list[Tensor]:
        """Return forces, eV/Å, shape (n, 3), and virials, eV, shape (n, 9)."""
        sums = rows(shares.flatten(0, 1), incoming).sum(dim=0)
        return [own + sums[:, :3], sums[:, 3:]]


def force_shares(vectors: Tensor, gradient: Tensor) -> list[Tensor]:
    """Return of each atom the sum of the gradients, and what each slot brings its neighbour.

    Parameters
    ----------
    vectors, gradient
        Of the edges, and the gradient of the energy to them, shape (n, 3, j).

    Returns
    -------
    list
        Shapes (n, 3) and (n, j, 12): force, and its part of the virial.
    """
    # in rows of what an edge brings, which are summed as a whole; each apart, since a view of one
    # product of them all would hang on strides that tracing guesses
    turned = gradient.transpose(1, 2)
    virials = [-vectors[:, a, :, None] * turned for a in range(3)]
    return [gradient.sum(dim=2), torch.cat([-turned, *virials], dim=2)]
