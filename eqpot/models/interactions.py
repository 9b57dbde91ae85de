"""Layers of the flagship: from neighbours to densities, products on the sphere, and energies.

Letters: k packed (l, m), n atoms, j neighbour slots, a radial functions, c channels, s sender
channels, z species.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqpot.models.settings import GauntSettings
from eqpot.nn.density import ChannelDensity, FieldAverage, along_edges, species_density
from eqpot.nn.fields import DegreeLinear, Gate, Projection
from eqpot.nn.layout import written_out
from eqpot.nn.radial import RadialNetwork
from eqpot.so3 import SphereProduct

N_READOUT: Final = 16
"""Width of the hidden layer of the last readout."""
N_ELEMENT_CHANNELS: Final = 16
"""Most numbers in which an atom tells its element, unless the settings say more."""


class ProductStep(nn.Module):
    """Raise the body order by one: a product with the density, and its share of the message.

    Parameters
    ----------
    n_left
        Channels of the product so far.
    n_density
        Channels of the density.
    n_features
        Channels of the result.
    l_max
        Highest degree of the factors.
    l_product
        Highest degree of the product.
    l_out
        Highest degree of the message, at most ``l_product``.
    """

    def __init__(
        self, n_left: int, n_density: int, n_features: int, l_max: int, l_product: int, l_out: int
    ) -> None:
        super().__init__()
        self.n_out = (l_out + 1) ** 2
        self.mix_left = Projection(l_max, n_left, n_features)
        self.mix_right = Projection(l_max, n_density, n_features)
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
        B_1 = W A, \quad B_2 = (U_1 A) \circledast (V_1 A), \quad
        B_{\nu+1} = (U_\nu B_\nu) \circledast (V_\nu A), \quad
        m = \sum_\nu O_\nu \, (w_{z\nu} B_\nu), \quad h' = \mathrm{skip}(h) + \mathrm{gate}(m)

    U, V, W, O mix channels within a degree; the species z scales each body order. Products are
    pairwise with mixing between, because one high power loses invariants that a chain keeps. The
    last layer may be without the gate.

    Parameters
    ----------
    settings
        Hyper-parameters.
    n_species
        Number of elements.
    n_density
        Channels of the density.
    is_last
        Whether the new field is read out alone: of l = 0, and gated if the settings say so.

    References
    ----------
    The many-body expansion: Batatia et al., MACE, NeurIPS 2022, eqs. 10-11. The product:
    :class:`eqpot.so3.SphereProduct`.
    """

    def __init__(
        self, settings: GauntSettings, n_species: int, n_density: int, is_last: bool
    ) -> None:
        super().__init__()
        n_features, l_max, correlation = settings.n_features, settings.l_max, settings.correlation
        l_out = 0 if is_last else settings.l_hidden
        self.n_out = (l_out + 1) ** 2
        self.normalization = correlation**-0.5
        self.mix = Projection(l_out, n_density, n_features)
        self.mix_out = DegreeLinear(l_out, n_features, n_features)
        self.steps = nn.ModuleList(
            ProductStep(
                n_density if order == 2 else n_features,
                n_density,
                n_features,
                l_max,
                l_out if order == correlation else l_max,
                l_out,
            )
            for order in range(2, correlation + 1)
        )
        self.order_weights = nn.Parameter(1 + 0.1 * torch.randn(correlation, n_species, n_features))
        gated = settings.final_gate or not is_last
        self.gate = Gate(l_out, n_features) if gated else None

    def forward(self, density: Tensor, kept: Tensor, species: Tensor) -> Tensor:
        """Return the new field of each atom, shape ((l_out + 1)², n, c).

        Parameters
        ----------
        density
            Shape ((l_max + 1)², n, n_density).
        kept
            What :class:`Skip` keeps of the present field, shape (n, c).
        species
            Shape (n,).
        """
        weights = self.order_weights[:, species]  # vnc
        message = self.mix_out(self.mix(density[: self.n_out]) * weights[0])
        product = density
        order = 1
        for step in self.steps:
            product, part = step(product, density, weights[order])
            message = message + part
            order += 1
        field = message * self.normalization
        if self.gate is not None:
            field = self.gate(field)
        return torch.cat([(field[0] + kept)[None], field[1:]])


class Skip(nn.Module):
    """What an atom keeps of its scalars from layer to layer: all that it has when isolated.

    Parameters
    ----------
    n_features
        Channels.
    n_species
        Number of elements.
    """

    def __init__(self, n_features: int, n_species: int) -> None:
        super().__init__()
        self.skip_weights = nn.Parameter(1 + 0.1 * torch.randn(n_species, n_features))
        self.linear = nn.Linear(n_features, n_features, bias=False)

    def forward(self, scalars: Tensor, species: Tensor) -> Tensor:
        """Return the kept scalars, shape (n, c), of scalars of that shape."""
        kept: Tensor = self.linear(scalars * self.skip_weights[species])
        return kept


class Readout(nn.Module):
    """Energy of an atom from its scalars: linear, in the last layer by a hidden layer; no bias.

    Parameters
    ----------
    settings
        Hyper-parameters.
    is_last
        Whether it reads the last layer. If that has no gate, a linear readout is added.
    """

    def __init__(self, settings: GauntSettings, is_last: bool) -> None:
        super().__init__()
        n_features = settings.n_features
        self.linear: nn.Linear | None = None
        if not is_last:
            self.network = nn.Sequential(nn.Linear(n_features, 1, bias=False))
            return
        self.network = nn.Sequential(
            nn.Linear(n_features, N_READOUT), nn.SiLU(), nn.Linear(N_READOUT, 1, bias=False)
        )
        if not settings.final_gate:
            self.linear = nn.Linear(n_features, 1, bias=False)

    @torch.no_grad()
    @torch.jit.unused
    def scale_energies(self, factor: float) -> None:
        """Multiply the energies by a factor, in the weights."""
        for last in (self.network[-1], self.linear):
            if last is not None:
                assert isinstance(last, nn.Linear)
                last.weight.mul_(factor)

    def forward(self, scalars: Tensor) -> Tensor:
        """Return energies, shape (n,), from scalars of shape (n, c)."""
        energies: Tensor = self.network(scalars)
        if self.linear is not None:
            energies = energies + self.linear(scalars)
        return energies[:, 0]


class FirstInteraction(nn.Module):
    """The first layer: neighbours tell their element, one-hot or in a few learned numbers.

    Parameters
    ----------
    settings
        Hyper-parameters.
    n_species
        Number of elements.
    r_max, avg_num_neighbors
        As for :class:`eqpot.models.gaunt.GauntModel`.
    is_last
        As for :class:`GauntLayer`.

    References
    ----------
    Few numbers for many elements: Willatt et al., Phys. Chem. Chem. Phys. 20, 29661 (2018).
    """

    def __init__(
        self,
        settings: GauntSettings,
        n_species: int,
        r_max: float,
        avg_num_neighbors: float,
        is_last: bool,
    ) -> None:
        super().__init__()
        self.normalization: float = avg_num_neighbors**-0.5
        n_channels = settings.n_element_channels or min(n_species, N_ELEMENT_CHANNELS)
        one_hot = n_species <= n_channels
        elements = (
            torch.eye(n_species, n_channels) if one_hot else torch.randn(n_species, n_channels)
        )
        self.elements = nn.Parameter(elements, requires_grad=not one_hot)
        self.radial = RadialNetwork(r_max, settings.n_radial, settings.envelope_power)
        self.layer = GauntLayer(settings, n_species, n_channels * settings.n_radial, is_last)

    @torch.no_grad()
    @torch.jit.unused
    def is_one_hot(self) -> bool:
        """Return whether each element has a channel of its own, so that there is none to learn."""
        products = self.elements @ self.elements.T
        return torch.equal(products, torch.eye(len(products)).to(products))

    def forward(
        self,
        harmonics: Tensor,
        distances: Tensor,
        neighbor_species: Tensor,
        kept: Tensor,
        species: Tensor,
    ) -> Tensor:
        """Return the field of each atom, shape (k, n, c).

        Parameters
        ----------
        harmonics
            Shape (n, k, j).
        distances
            Shape (n, j), Å.
        neighbor_species
            Shape (n, j).
        kept
            What :class:`Skip` keeps of the embedding of each atom, shape (n, c).
        species
            Shape (n,).
        """
        if len(self.elements) == 1:  # all send the same
            senders = self.elements.t().expand(distances.shape[0], -1, distances.shape[1])
        else:
            senders = written_out(self.elements[neighbor_species].transpose(1, 2), dim=1)
        density = species_density(harmonics, self.radial(distances), senders)
        field: Tensor = self.layer(density * self.normalization, kept, species)
        return field


class Interaction(nn.Module):
    """A later layer: neighbours send their fields.

    Parameters
    ----------
    settings, n_species, r_max, avg_num_neighbors, is_last
        As for :class:`FirstInteraction`.
    """

    def __init__(
        self,
        settings: GauntSettings,
        n_species: int,
        r_max: float,
        avg_num_neighbors: float,
        is_last: bool,
    ) -> None:
        super().__init__()
        n_radial, n_senders = settings.n_radial, settings.n_senders
        self.n_radial = n_radial
        self.n_along: int = (settings.l_along + 1) ** 2 - 1
        self.density = ChannelDensity(settings.l_max, n_radial, n_senders, avg_num_neighbors)
        self.average: FieldAverage | None = None
        if settings.l_hidden > 0:
            self.average = FieldAverage(settings.l_hidden, n_radial, n_senders, avg_num_neighbors)
        n_functions = n_radial if self.average is None else 2 * n_radial
        self.radial = RadialNetwork(r_max, n_functions, settings.envelope_power)
        self.layer = GauntLayer(settings, n_species, n_senders, is_last)

    def forward(
        self,
        harmonics: Tensor,
        distances: Tensor,
        scalars: Tensor,
        directed: Tensor,
        kept: Tensor,
        species: Tensor,
    ) -> Tensor:
        """Return the new field of each atom, shape (k, n, c).

        Parameters
        ----------
        harmonics, distances, species
            As in :class:`FirstInteraction`.
        scalars, directed
            What each neighbour sends, of l = 0 and of the degrees above, shapes (n, j, s) and
            (n, j, (k - 1) * s). Apart, since the gradient of a part is as large as the whole.
        kept
            What :class:`Skip` keeps of each atom's present field, shape (n, c).
        """
        radial = self.radial(distances)
        if self.n_along > 0:
            fields = directed[:, :, : self.n_along * scalars.shape[2]]
            scalars = scalars + along_edges(harmonics[:, 1 : self.n_along + 1], fields)
        density = self.density(harmonics, radial[:, : self.n_radial], scalars)
        if self.average is not None:
            average = self.average(radial[:, self.n_radial :], directed)
            n_above = density.shape[0] - 1 - average.shape[0]
            density = density + F.pad(average, [0, 0, 0, 0, 1, n_above])
        # all that follows sums its gradients to the density before they go on to each function
        density = written_out(density, dim=0)
        field: Tensor = self.layer(density, kept, species)
        return field
