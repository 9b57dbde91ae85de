"""The flagship: band-limited fields on R³ × S², multiplied exactly on points of the sphere.

Letters: k packed (l, m), n atoms, j neighbour slots, a radial functions, c channels, z species.
"""

from dataclasses import asdict, dataclass
from typing import Dict, List

import torch
from torch import Tensor, nn

from eqpot import keys
from eqpot.nn.density import ChannelDensity, FieldAverage, ScalarDensity
from eqpot.nn.fields import DegreeLinear, Gate
from eqpot.nn.neighbors import pad_edges
from eqpot.nn.radial import RadialNetwork
from eqpot.so3 import SphereProduct, spherical_harmonics


@dataclass(frozen=True)
class GauntSettings:
    """Hyper-parameters of :class:`GauntModel`.

    Attributes
    ----------
    n_features
        Channels of each degree.
    l_max
        Highest degree of the densities and of the products.
    l_hidden
        Highest degree of the features that travel between layers.
    n_layers
        Message-passing layers; an atom sees ``n_layers * r_max``.
    n_radial
        Radial functions before the channel weights.
    correlation
        Body order of a layer less one: the number of densities in the highest product.
    """

    n_features: int = 64
    l_max: int = 3
    l_hidden: int = 1
    n_layers: int = 2
    n_radial: int = 8
    correlation: int = 3

    def __post_init__(self) -> None:
        for name, least in (
            ("n_features", 1),
            ("l_max", 0),
            ("l_hidden", 0),
            ("n_layers", 1),
            ("n_radial", 1),
            ("correlation", 1),
        ):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}")
        if self.l_hidden > self.l_max:
            raise ValueError(
                f"`l_hidden` must not be above `l_max` ({self.l_max}), got {self.l_hidden}"
            )

    def as_dict(self) -> dict[str, int]:
        """Return the settings by name, as written to files."""
        return asdict(self)


PRESETS = {
    "small": GauntSettings(n_features=32),
    "medium": GauntSettings(n_features=64),
    "large": GauntSettings(n_features=128),
}

N_READOUT = 16
"""Width of the hidden layer of the last readout."""


class ProductStep(nn.Module):
    """Raise the body order by one: a product with the density, and its share of the message.

    Parameters
    ----------
    n_features
        Channels.
    l_max
        Highest degree of the factors.
    l_product
        Highest degree of the product.
    l_out
        Highest degree of the message, at most ``l_product``.
    """

    def __init__(self, n_features: int, l_max: int, l_product: int, l_out: int) -> None:
        super().__init__()
        self.n_out = (l_out + 1) ** 2
        self.mix_left = DegreeLinear(l_max, n_features, n_features)
        self.mix_right = DegreeLinear(l_max, n_features, n_features)
        self.multiply = SphereProduct(l_max, l_max, l_product)
        self.mix_out = DegreeLinear(l_out, n_features, n_features)

    def forward(
        self, product: Tensor, density: Tensor, order_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the next product and its message, shapes (k, n, c); weights have shape (n, c)."""
        product = self.multiply(self.mix_left(product), self.mix_right(density))
        return product, self.mix_out(product[: self.n_out] * order_weights)

    @torch.no_grad()
    @torch.jit.unused
    def match_scale(self, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Rescale the weights to a product with a root mean square of one; return that output."""
        factor = output[0].square().mean().clamp(min=1e-2).rsqrt()  # at most 10
        self.mix_right.weight.mul_(factor)
        return output[0] * factor, output[1] * factor


class GauntLayer(nn.Module):
    r"""From the density of an atom to its new field: products, mixing, gate.

    .. math::
        B_1 = W A, \quad B_{\nu+1} = (U_\nu B_\nu) \circledast (V_\nu B_1), \quad
        m = \sum_\nu O_\nu \, (w_{z\nu} B_\nu), \quad h' = S(w_z h) + \mathrm{gate}(m)

    U, V, W, O, S mix channels within a degree; the species z scales each body order. Products are
    pairwise with mixing between, because one high power loses invariants that a chain keeps.

    Parameters
    ----------
    settings
        Hyper-parameters.
    n_species
        Number of elements.
    l_out
        Highest degree of the new field.

    References
    ----------
    The many-body expansion: Batatia et al., MACE, NeurIPS 2022, eqs. 10-11. The product:
    :class:`eqpot.so3.SphereProduct`.
    """

    def __init__(self, settings: GauntSettings, n_species: int, l_out: int) -> None:
        super().__init__()
        n_features, l_max, correlation = settings.n_features, settings.l_max, settings.correlation
        self.n_out = (l_out + 1) ** 2
        self.normalization = correlation**-0.5
        self.mix = DegreeLinear(l_max, n_features, n_features)
        self.mix_out = DegreeLinear(l_out, n_features, n_features)
        self.steps = nn.ModuleList(
            ProductStep(n_features, l_max, l_out if order == correlation else l_max, l_out)
            for order in range(2, correlation + 1)
        )
        self.order_weights = nn.Parameter(1 + 0.1 * torch.randn(correlation, n_species, n_features))
        self.gate = Gate(l_out, n_features)
        self.skip_weights = nn.Parameter(1 + 0.1 * torch.randn(n_species, n_features))
        self.skip_linear = nn.Linear(n_features, n_features, bias=False)

    def forward(
        self, density: Tensor, scalars: Tensor, species: Tensor, isolated: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the new field of each atom, and the scalars of isolated atoms.

        Parameters
        ----------
        density
            Shape ((l_max + 1)², n, c).
        scalars
            l=0 part of the atom's present field, shape (n, c).
        species
            Shape (n,).
        isolated
            What ``scalars`` are for an atom of each element without neighbours, shape (z, c).

        Returns
        -------
        field : Tensor
            Shape ((l_out + 1)², n, c).
        isolated : Tensor
            Its l=0 part for an atom of each element without neighbours, shape (z, c).
        """
        first = self.mix(density)
        weights = self.order_weights[:, species]  # vnc
        message = self.mix_out(first[: self.n_out] * weights[0])
        product = first
        order = 1
        for step in self.steps:
            product, part = step(product, first, weights[order])
            message = message + part
            order += 1
        field = self.gate(message * self.normalization)
        kept = field[0] + self.skip_linear(scalars * self.skip_weights[species])
        isolated = self.skip_linear(isolated * self.skip_weights)
        return torch.cat([kept[None], field[1:]]), isolated


class Readout(nn.Module):
    """Energy of an atom from its scalars: linear, or one hidden layer; no bias.

    Parameters
    ----------
    n_features
        Channels.
    n_hidden
        Width of the hidden layer, 0 for a linear readout.
    """

    def __init__(self, n_features: int, n_hidden: int) -> None:
        super().__init__()
        if n_hidden == 0:
            self.network = nn.Sequential(nn.Linear(n_features, 1, bias=False))
        else:
            self.network = nn.Sequential(
                nn.Linear(n_features, n_hidden), nn.SiLU(), nn.Linear(n_hidden, 1, bias=False)
            )

    @torch.no_grad()
    @torch.jit.unused
    def scale_energies(self, factor: float) -> None:
        """Multiply the energies by a factor, in the weights."""
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        last.weight.mul_(factor)

    def forward(self, scalars: Tensor) -> Tensor:
        """Return energies, shape (n,), from scalars of shape (n, c)."""
        energies: Tensor = self.network(scalars)
        return energies[:, 0]


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

    identity: Tensor

    def __init__(
        self, settings: GauntSettings, n_species: int, r_max: float, avg_num_neighbors: float
    ) -> None:
        super().__init__()
        n_features, n_radial = settings.n_features, settings.n_radial
        n_later = settings.n_layers - 1
        self.settings = settings
        self.n_features = n_features
        self.r_max = r_max
        self.avg_num_neighbors = avg_num_neighbors
        self.l_max = settings.l_max
        self.n_radial = n_radial
        self.radial = RadialNetwork(r_max, n_radial * (1 + 2 * n_later))
        self.embedding = nn.Parameter(torch.randn(n_species, n_features))
        self.register_buffer("identity", torch.eye(n_species), persistent=False)

        l_outs = [settings.l_hidden] * n_later + [0]
        self.first_density = ScalarDensity(
            settings.l_max, n_radial, n_species, n_features, avg_num_neighbors
        )
        self.first_layer = GauntLayer(settings, n_species, l_outs[0])
        self.first_readout = Readout(n_features, 0 if n_later else N_READOUT)

        self.densities = nn.ModuleList()
        self.averages = nn.ModuleList()
        self.layers = nn.ModuleList()
        self.readouts = nn.ModuleList()
        for index, l_out in enumerate(l_outs[1:], start=1):
            self.densities.append(
                ChannelDensity(settings.l_max, n_radial, n_features, avg_num_neighbors)
            )
            self.averages.append(
                FieldAverage(settings.l_hidden, n_radial, n_features, avg_num_neighbors)
            )
            self.layers.append(GauntLayer(settings, n_species, l_out))
            self.readouts.append(Readout(n_features, N_READOUT if index == n_later else 0))

    @torch.jit.unused
    def scale_energies(self, factor: float) -> None:
        """Multiply the energies by a factor, in the weights of the readouts."""
        self.first_readout.scale_energies(factor)
        for readout in self.readouts:
            assert isinstance(readout, Readout)
            readout.scale_energies(factor)

    @torch.jit.unused
    def heads(self) -> List[nn.Module]:
        """Return the modules that turn features into energies: the readouts."""
        return [self.first_readout, *self.readouts]

    @torch.jit.unused
    def species_parameters(self) -> List[nn.Parameter]:
        """Return the parameters that have a row for each species."""
        tables = [self.embedding, self.first_density.weight]
        for layer in (self.first_layer, *self.layers):
            assert isinstance(layer, GauntLayer)
            tables += [layer.order_weights, layer.skip_weights]
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
        with torch.random.fork_rng(devices=[]):  # the fresh weights are all overwritten
            model = GauntModel(self.settings, len(origins), self.r_max, self.avg_num_neighbors)
        model = model.to(self.embedding)
        values = self.state_dict()
        n_species = len(self.embedding)
        for name, value in values.items():
            if name == "embedding" or name.endswith(".skip_weights"):
                values[name] = value[origins]
            elif name.endswith(".order_weights"):
                values[name] = value[:, origins]
            elif name == "first_density.weight":  # rows are radial functions times species
                rows = value.unflatten(1, (self.n_radial, n_species))
                values[name] = rows[:, :, origins].flatten(1, 2)
        model.load_state_dict(values)
        return model

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
        n = species.shape[0]
        neighbors, vectors = pad_edges(
            graph[keys.EDGE_INDEX], graph[keys.EDGE_VECTORS], n, self.r_max
        )
        n_slots = neighbors.shape[1]
        distances = torch.linalg.vector_norm(vectors, dim=1)
        harmonics = spherical_harmonics(vectors / distances[:, None], self.l_max)
        harmonics = harmonics.view(n, n_slots, -1, 1)
        radial = self.radial(distances).view(n, n_slots, -1).split(self.n_radial, dim=2)

        isolated: Tensor = self.embedding  # what each element would have without neighbours
        basis = (harmonics * radial[0][:, :, None]).view(n, n_slots, -1)  # njka
        density = self.first_density(basis, self.identity[species][neighbors])
        field, isolated = self.first_layer(density, isolated[species], species, isolated)
        energy = self.first_readout(field[0]) - self.first_readout(isolated)[species]

        step = 1
        for density_of, average_of, layer, readout in zip(
            self.densities, self.averages, self.layers, self.readouts, strict=True
        ):
            basis = (harmonics * radial[step][:, :, None]).view(n, n_slots, -1)
            senders = field.transpose(0, 1).reshape(n, -1)[neighbors]  # njK, K = (k, c)
            density = density_of(basis, senders[:, :, : self.n_features])
            average = average_of(radial[step + 1], senders)
            n_shared = average.shape[0]
            density = torch.cat([density[:n_shared] + average, density[n_shared:]])
            field, isolated = layer(density, field[0], species, isolated)
            energy = energy + readout(field[0]) - readout(isolated)[species]
            step += 2
        return {keys.NODE_ENERGY: energy, keys.NODE_FEATURES: field}
