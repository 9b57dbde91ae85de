"""Neighbour densities by contraction first, projection after.

Letters: n atoms, j neighbour slots, a radial functions, k packed (l, m), s sender channels. Slots
come last wherever they are, so that every sum over neighbours is a matrix product of rows that lie
together, and so is its derivative.
"""

import math

import torch
from torch import Tensor, nn

from eqpot.so3 import degrees


def species_density(harmonics: Tensor, radial: Tensor, senders: Tensor) -> Tensor:
    r"""Return the density of neighbours that send a few numbers, such as their species.

    .. math:: D_{k, s a}(i) = \sum_j Y_k(\hat r_{ij}) \, \varphi_a(r_{ij}) \, s_{j s}

    Senders are narrow, so they go with the radial functions, and no tensor of slots times (k, a)
    is formed. What follows projects the (s, a) to channels.

    Parameters
    ----------
    harmonics
        Shape (n, k, j).
    radial
        Shape (n, a, j).
    senders
        Shape (n, s, j).

    Returns
    -------
    Tensor
        Shape (k, n, s * a).

    References
    ----------
    Drautz, Phys. Rev. B 99, 014104 (2019), eq. 23.
    """
    n, n_slots = radial.shape[0], radial.shape[2]
    sent = (senders[:, :, None] * radial[:, None]).view(n, -1, n_slots)
    return torch.bmm(harmonics, sent.transpose(1, 2)).transpose(0, 1)  # nkj,nSj->nkS, S = (s, a)


def along_edges(harmonics: Tensor, directed: Tensor) -> Tensor:
    r"""Return the fields of neighbours in the direction of the edge: scalars of each edge.

    .. math:: t_{j s}(i) = \frac{1}{\sqrt{K}} \sum_{l \geq 1, m} Y_{lm}(\hat r_{ij}) \, h_{j\,lms}

    K is the number of (l, m). An average of fields forgets which neighbour sent what from where;
    these numbers keep it: they depend on the angles between the edge and the bonds of the
    neighbour. The sum over m is a scalar product of two things that turn alike: invariant.

    Parameters
    ----------
    harmonics
        Those of l ≥ 1, shape (n, k, j).
    directed
        Fields of neighbours of the same degrees, shape (n, j, k * s).

    Returns
    -------
    Tensor
        Shape (n, j, s).

    References
    ----------
    In a frame along the edge they are the components of m = 0: Passaro and Zitnick, Reducing SO(3)
    convolutions to SO(2) for efficient equivariant GNNs, ICML 2023.
    """
    n_components = harmonics.shape[1]
    fields = directed.unflatten(2, (n_components, -1))
    along: Tensor = torch.matmul(harmonics.transpose(1, 2)[:, :, None], fields)  # nj1k,njks->nj1s
    return along[:, :, 0] / math.sqrt(n_components)


class ChannelDensity(nn.Module):
    r"""Density of neighbours that send scalars of many channels, weighted channel by channel.

    .. math:: A_{k s}(i) = \bar n^{-1/2} \sum_{a} W^{l}_{a s}
              \sum_j \varphi_a(r_{ij}) \, Y_k(\hat r_{ij}) \, s_{j s}

    The sum over neighbours is a matrix product for each atom, over the few radial functions and the
    sender channels; the weights enter once an atom.

    Parameters
    ----------
    l_max
        Highest degree.
    n_radial
        Number of radial functions.
    n_senders
        Number of sender channels.
    avg_num_neighbors
        Mean number of neighbours over the training data.

    References
    ----------
    The density is the one of Batatia et al., MACE, NeurIPS 2022, eq. 8, without a tensor product
    with the features of the neighbour; contracted before it is projected.
    """

    degrees: Tensor

    def __init__(self, l_max: int, n_radial: int, n_senders: int, avg_num_neighbors: float) -> None:
        super().__init__()
        self.n_radial = n_radial
        self.n_harmonics = (l_max + 1) ** 2
        self.normalization: float = avg_num_neighbors**-0.5
        self.weight = nn.Parameter(torch.randn(l_max + 1, n_radial, n_senders) / n_radial**0.5)
        self.register_buffer("degrees", torch.tensor(degrees(l_max)), persistent=False)

    @torch.no_grad()
    @torch.jit.unused
    def match_scale(self, output: Tensor) -> Tensor:
        """Rescale the weights to a root mean square of one for each degree; return that output."""
        return match_scale(self.weight, self.degrees, output)

    def forward(self, harmonics: Tensor, radial: Tensor, senders: Tensor) -> Tensor:
        """Return the density of each atom.

        Parameters
        ----------
        harmonics
            Shape (n, k, j).
        radial
            Shape (n, a, j).
        senders
            What each neighbour sends, shape (n, j, s).

        Returns
        -------
        Tensor
            Shape (k, n, s).
        """
        n, n_slots = radial.shape[0], radial.shape[2]
        basis = (harmonics[:, :, None] * radial[:, None]).view(n, -1, n_slots)
        contracted = torch.bmm(basis, senders)  # nKj,njs->nKs, K = (k, a)
        contracted = contracted.view(n, self.n_harmonics, self.n_radial, -1)
        weight = self.weight.index_select(0, self.degrees) * self.normalization
        return (contracted * weight).sum(dim=2).transpose(0, 1)  # nkas,kas->nks


class FieldAverage(nn.Module):
    r"""Weighted sum of the fields of neighbours of degree 1 and more, without direction.

    .. math:: T_{k s}(i) = \bar n^{-1/2} \sum_{a} W^{l}_{a s} \sum_j \varphi_a(r_{ij}) \, h_{j k s},
              \quad l \geq 1

    Equivariant because the filter is a scalar; directions meet the field in the products that
    follow, at the atom (and in :func:`along_edges`), so no tensor product is taken on an edge. For
    l = 0 it would repeat what the density has.

    Parameters
    ----------
    l_max
        Highest degree of the field, at least 1.
    n_radial, n_senders, avg_num_neighbors
        As in :class:`ChannelDensity`.
    """

    degrees: Tensor

    def __init__(self, l_max: int, n_radial: int, n_senders: int, avg_num_neighbors: float) -> None:
        super().__init__()
        self.n_components = (l_max + 1) ** 2 - 1
        self.n_radial = n_radial
        self.normalization: float = avg_num_neighbors**-0.5
        self.weight = nn.Parameter(torch.randn(l_max, n_radial, n_senders) / n_radial**0.5)
        indices = torch.tensor(degrees(l_max)[1:], dtype=torch.long) - 1
        self.register_buffer("degrees", indices, persistent=False)

    @torch.no_grad()
    @torch.jit.unused
    def match_scale(self, output: Tensor) -> Tensor:
        """Rescale the weights to a root mean square of one for each degree; return that output."""
        return match_scale(self.weight, self.degrees, output)

    def forward(self, radial: Tensor, senders: Tensor) -> Tensor:
        """Return the average of each atom.

        Parameters
        ----------
        radial
            Shape (n, a, j).
        senders
            Field of each neighbour without its l = 0, shape (n, j, k * s).

        Returns
        -------
        Tensor
            Shape (k, n, s).
        """
        n = radial.shape[0]
        contracted = torch.bmm(radial, senders)  # naj,njK->naK, K = (k, s)
        contracted = contracted.view(n, self.n_radial, self.n_components, -1)
        weight = self.weight.index_select(0, self.degrees) * self.normalization  # kas
        return (contracted * weight.transpose(0, 1)).sum(dim=1).transpose(0, 1)


def match_scale(weight: Tensor, degree_of: Tensor, output: Tensor) -> Tensor:
    """Rescale weights to an output with a root mean square of one in each degree; return that.

    Parameters
    ----------
    weight
        One row for each degree; changed in place.
    degree_of
        Row of each component, shape (k,).
    output
        What the weights gave, linear in them, shape (k, n, s).
    """
    squares = output.square().mean(dim=(1, 2))
    totals = squares.new_zeros(len(weight)).index_add(0, degree_of, squares)
    means = totals / torch.bincount(degree_of)
    # a degree that symmetry forbids in these structures tells nothing of its size in others
    seen = means > 1e-6 * means.max().clamp(min=1e-12)
    factors = torch.where(seen, means.clamp(min=1e-2).rsqrt(), 1.0)
    weight.mul_(factors[:, None, None])
    return output * factors[degree_of][:, None, None]
