"""The flagship: band-limited fields on R³ × S², multiplied exactly on points of the sphere.

Letters as in :mod:`eqpot.models.interactions`.
"""

from dataclasses import replace
from typing import Dict, List

import torch
from torch import Tensor, nn

from eqpot import keys
from eqpot.models.interactions import (
    N_ELEMENT_CHANNELS,
    FirstInteraction,
    GauntLayer,
    Interaction,
    Readout,
    Skip,
)
from eqpot.models.settings import GauntSettings
from eqpot.nn.fields import DegreeLinear
from eqpot.nn.neighbors import neighbor_rows, pad_edges
from eqpot.so3 import spherical_harmonics


def sent(field: Tensor) -> tuple[Tensor, Tensor]:
    """Return what atoms send of a field (k, n, s): of l = 0 (n, s), of more (n, (k - 1) * s)."""
    return field[0], field[1:].transpose(0, 1).flatten(1)


class GauntModel(nn.Module):
    r"""Potential of band-limited fields with products on an exact sphere rule.

    Each layer contracts the neighbours with few radial functions, projects once an atom, multiplies
    fields on the sphere, and mixes channels. Every function of a field is a polynomial or acts on
    l=0, so the energy is O(3)-invariant to rounding, and it is twice continuously differentiable
    when a neighbour crosses ``r_max``. An atom without neighbours has energy zero.

    Parameters
    ----------
    settings
        Hyper-parameters.
    n_species
        Number of elements.
    r_max
        Radius, Å.
    avg_num_neighbors
        Mean number of neighbours within ``r_max`` over the training data.

    References
    ----------
    Bekkers et al., PONITA, ICLR 2024; Luo et al., Gaunt tensor products, ICLR 2024; Batatia et al.,
    MACE, NeurIPS 2022.
    """

    isolated: Tensor | None  # energies of isolated atoms, where the weights are fixed

    def __init__(
        self, settings: GauntSettings, n_species: int, r_max: float, avg_num_neighbors: float
    ) -> None:
        super().__init__()
        self.settings = settings
        self.r_max = r_max
        self.avg_num_neighbors = avg_num_neighbors
        self.l_max = settings.l_max
        n_features, n_later = settings.n_features, settings.n_layers - 1
        self.embedding = nn.Parameter(torch.randn(n_species, n_features))
        surroundings = (settings, n_species, r_max, avg_num_neighbors)
        is_last = [layer == n_later for layer in range(n_later + 1)]
        self.first = FirstInteraction(*surroundings, is_last[0])
        self.later = nn.ModuleList(Interaction(*surroundings, last) for last in is_last[1:])
        self.senders = nn.ModuleList(
            DegreeLinear(settings.l_hidden, n_features, settings.n_senders) for _ in self.later
        )
        self.first_skip = Skip(n_features, n_species)
        self.skips = nn.ModuleList(Skip(n_features, n_species) for _ in self.later)
        self.first_readout = Readout(settings, is_last[0])
        self.readouts = nn.ModuleList(Readout(settings, last) for last in is_last[1:])
        self.register_buffer("isolated", None, persistent=False)

    @torch.jit.unused
    def scale_energies(self, factor: float) -> None:
        """Multiply the energies by a factor, in the weights of the readouts."""
        assert self.isolated is None, "a deployed model is fixed"
        for readout in self.heads():
            assert isinstance(readout, Readout)
            readout.scale_energies(factor)

    @torch.jit.unused
    def heads(self) -> List[nn.Module]:
        """Return the modules that turn features into energies: the readouts."""
        return [self.first_readout, *self.readouts]

    @torch.jit.unused
    def species_parameters(self) -> List[nn.Parameter]:
        """Return the parameters that have a row for each species."""
        tables = [self.embedding, self.first.elements]
        for module in self.modules():
            if isinstance(module, GauntLayer):
                tables.append(module.order_weights)
            elif isinstance(module, Skip):
                tables.append(module.skip_weights)
        return tables

    @torch.no_grad()
    @torch.jit.unused
    def with_species(self, origins: List[int]) -> "GauntModel":
        """Return a model of other species, each of which begins as a copy of one of this model.

        Parameters
        ----------
        origins
            Present species from which each species of the new model is copied.
        """
        n_channels = self.first.elements.shape[1]
        settings = replace(self.settings, n_element_channels=n_channels)
        if n_channels == min(len(origins), N_ELEMENT_CHANNELS):
            settings = self.settings
        with torch.random.fork_rng(devices=[]):  # the fresh weights are all overwritten
            model = GauntModel(settings, len(origins), self.r_max, self.avg_num_neighbors)
        model = model.to(self.embedding)
        values = self.state_dict()
        for name, value in values.items():
            if name.endswith(".order_weights"):
                values[name] = value[:, origins]
            elif name in ("embedding", "first.elements") or name.endswith(".skip_weights"):
                values[name] = value[origins]
        model.load_state_dict(values)
        # two species that begin with one row must learn to be told apart
        model.first.elements.requires_grad_(not model.first.is_one_hot())
        return model

    def isolated_energies(self) -> Tensor:
        """Return what the readouts give an atom of each element without neighbours, shape (z,)."""
        known = self.isolated  # TorchScript narrows the type of local names alone
        if known is not None:
            return known
        species = torch.arange(self.embedding.shape[0], device=self.embedding.device)
        scalars = self.first_skip(self.embedding, species)
        energies: Tensor = self.first_readout(scalars)
        for skip, readout in zip(self.skips, self.readouts, strict=True):
            scalars = skip(scalars, species)
            energies = energies + readout(scalars)
        return energies

    def forward(self, graph: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """Return ``node_energy`` and ``node_features``.

        Parameters
        ----------
        graph
            ``species``, ``edge_index`` and ``edge_vectors`` as in :mod:`eqpot.keys`; the vectors
            carry the dtype of the model.

        Returns
        -------
        dict
            ``node_energy``, in units of the potential's scale, and ``node_features``.
        """
        species = graph[keys.SPECIES]
        neighbors, vectors, _ = pad_edges(
            graph[keys.EDGE_INDEX], graph[keys.EDGE_VECTORS], species.shape[0], self.r_max
        )
        energy, features = self.of_blocks(vectors, neighbors, species, None)
        return {keys.NODE_ENERGY: energy, keys.NODE_FEATURES: features}

    @torch.jit.export
    def geometry(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return distances (n, j) and harmonics (n, k, j) of vectors (n, 3, j)."""
        distances = torch.linalg.vector_norm(vectors, dim=1)
        directions = vectors / distances[:, None]
        return distances, spherical_harmonics(directions, self.l_max, dim=1)

    @torch.jit.export
    def of_blocks(
        self, vectors: Tensor, neighbors: Tensor, species: Tensor, incoming: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return ``node_energy`` and ``node_features`` for neighbours in blocks.

        Parameters
        ----------
        vectors, neighbors
            As :func:`eqpot.nn.neighbors.pad_edges` returns them.
        species
            Shape (n_atoms,).
        incoming
            As of :func:`eqpot.nn.neighbors.incoming_slots`, for gradients that are summed atom by
            atom; without, they are added edge by edge.
        """
        distances, harmonics = self.geometry(vectors)
        kept = self.first_skip(self.embedding[species], species)
        field = self.first(harmonics, distances, species[neighbors], kept, species)
        energy = self.first_readout(field[0])
        for mix, interaction, skip, readout in zip(
            self.senders, self.later, self.skips, self.readouts, strict=True
        ):
            scalars, directed = sent(mix(field))
            kept = skip(field[0], species)
            scalars = neighbor_rows(scalars, neighbors, incoming)
            directed = neighbor_rows(directed, neighbors, incoming)
            field = interaction(harmonics, distances, scalars, directed, kept, species)
            energy = energy + readout(field[0])
        return energy - self.isolated_energies()[species], field
