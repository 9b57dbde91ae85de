"""Neighbour densities by contraction first, projection after.

Letters: n atoms, j neighbour slots, a radial functions, k packed (l, m), s sender channels,
c channels.
"""

import torch
from torch import Tensor, nn

from eqpot.so3 import degrees


class ScalarDensity(nn.Module):
    r"""Density of neighbours that send scalars.

    .. math:: A_{k c}(i) = \bar n^{-1/2} \sum_{a s} W^{l}_{a s c}
              \sum_j \varphi_a(r_{ij}) \, Y_k(\hat r_{ij}) \, s_{j s}

    The sum over neighbours is a matrix product for each atom, over the few radial functions and the
    sender channels; the weights enter once an atom. With one-hot species as senders the product is
    narrow, and W is a radial weight for each element, degree and channel.

    Parameters
    ----------
    l_max
        Highest degree.
    n_radial
        Number of radial functions.
    n_senders
        Number of sender channels.
    n_features
        Number of channels c.
    avg_num_neighbors
        Mean number of neighbours over the training data.

    References
    ----------
    The density is the one of Drautz, Phys. Rev. B 99, 014104 (2019), eq. 23, and of Batatia et al.,
    MACE, NeurIPS 2022, eq. 8; contracted before it is projected.
    """

    degrees: Tensor

    def __init__(
        self, l_max: int, n_radial: int, n_senders: int, n_features: int, avg_num_neighbors: float
    ) -> None:
        super().__init__()
        self.n_harmonics = (l_max + 1) ** 2
        self.normalization: float = avg_num_neighbors**-0.5
        self.weight = nn.Parameter(
            torch.randn(l_max + 1, n_radial * n_senders, n_features) / n_radial**0.5
        )
        self.register_buffer("degrees", torch.tensor(degrees(l_max)), persistent=False)

    @torch.no_grad()
    @torch.jit.unused
    def match_scale(self, output: Tensor) -> Tensor:
        """Rescale the weights to a root mean square of one for each degree; return that output."""
        return _match_scale(self.weight, self.degrees, output)

    def forward(self, basis: Tensor, senders: Tensor) -> Tensor:
        """Return the density of each atom.

        Parameters
        ----------
        basis
            Products of radial functions and harmonics, shape (n, j, k * a).
        senders
            What each neighbour sends, shape (n, j, s).

        Returns
        -------
        Tensor
            Shape (k, n, c).
        """
        n = basis.shape[0]
        contracted = torch.bmm(basis.transpose(1, 2), senders)  # njK,njs->nKs, K = (k, a)
        contracted = contracted.view(n, self.n_harmonics, -1).transpose(0, 1)
        return torch.bmm(contracted, self.weight[self.degrees]) * self.normalization


class ChannelDensity(nn.Module):
    r"""Density of neighbours that send scalars of many channels, weighted channel by channel.

    .. math:: A_{k c}(i) = \bar n^{-1/2} \sum_{a} W^{l}_{a c}
              \sum_j \varphi_a(r_{ij}) \, Y_k(\hat r_{ij}) \, s_{j c}

    Parameters
    ----------
    l_max, n_radial, n_features, avg_num_neighbors
        As in :class:`ScalarDensity`.
    """

    degrees: Tensor

    def __init__(
        self, l_max: int, n_radial: int, n_features: int, avg_num_neighbors: float
    ) -> None:
        super().__init__()
        self.n_radial = n_radial
        self.n_harmonics = (l_max + 1) ** 2
        self.normalization: float = avg_num_neighbors**-0.5
        self.weight = nn.Parameter(torch.randn(l_max + 1, n_radial, n_features) / n_radial**0.5)
        self.register_buffer("degrees", torch.tensor(degrees(l_max)), persistent=False)

    @torch.no_grad()
    @torch.jit.unused
    def match_scale(self, output: Tensor) -> Tensor:
        """Rescale the weights to a root mean square of one for each degree; return that output."""
        return _match_scale(self.weight, self.degrees, output)

    def forward(self, basis: Tensor, senders: Tensor) -> Tensor:
        """Return the density of each atom, shape (k, n, c); arguments as :class:`ScalarDensity`."""
        n = basis.shape[0]
        contracted = torch.bmm(basis.transpose(1, 2), senders)  # njK,njc->nKc, K = (k, a)
        contracted = contracted.view(n, self.n_harmonics, self.n_radial, -1)
        weighted = (contracted * self.weight[self.degrees]).sum(dim=2)  # nkac,kac->nkc
        return weighted.transpose(0, 1) * self.normalization


class FieldAverage(nn.Module):
    r"""Weighted sum of the fields of neighbours, through filters without direction.

    .. math:: T_{k c}(i) = \bar n^{-1/2} \sum_{a} W^{l}_{a c} \sum_j \varphi_a(r_{ij}) \, h_{j k c}

    Equivariant because the filter is a scalar; directions meet the field in the products that
    follow, at the atom, so no tensor product is taken on an edge.

    Parameters
    ----------
    l_max
        Highest degree of the field.
    n_radial, n_features, avg_num_neighbors
        As in :class:`ScalarDensity`.
    """

    degrees: Tensor

    def __init__(
        self, l_max: int, n_radial: int, n_features: int, avg_num_neighbors: float
    ) -> None:
        super().__init__()
        self.n_harmonics = (l_max + 1) ** 2
        self.n_radial = n_radial
        self.normalization: float = avg_num_neighbors**-0.5
        self.weight = nn.Parameter(torch.randn(l_max + 1, n_radial, n_features) / n_radial**0.5)
        self.register_buffer("degrees", torch.tensor(degrees(l_max)), persistent=False)

    @torch.no_grad()
    @torch.jit.unused
    def match_scale(self, output: Tensor) -> Tensor:
        """Rescale the weights to a root mean square of one for each degree; return that output."""
        return _match_scale(self.weight, self.degrees, output)

    def forward(self, radial: Tensor, senders: Tensor) -> Tensor:
        """Return the average of each atom.

        Parameters
        ----------
        radial
            Radial functions, shape (n, j, a).
        senders
            Field of each neighbour, shape (n, j, k * c).

        Returns
        -------
        Tensor
            Shape (k, n, c).
        """
        n = radial.shape[0]
        contracted = torch.bmm(radial.transpose(1, 2), senders)  # nja,njK->naK, K = (k, c)
        contracted = contracted.view(n, self.n_radial, self.n_harmonics, -1)
        weights = self.weight[self.degrees].transpose(0, 1)  # akc
        return (contracted * weights).sum(dim=1).transpose(0, 1) * self.normalization


def _match_scale(weight: Tensor, degree_of: Tensor, output: Tensor) -> Tensor:
    squares = output.square().mean(dim=(1, 2))
    totals = squares.new_zeros(len(weight)).index_add(0, degree_of, squares)
    means = totals / torch.bincount(degree_of)
    # a degree that symmetry forbids in these structures tells nothing of its size in others
    seen = means > 1e-6 * means.max().clamp(min=1e-12)
    factors = torch.where(seen, means.clamp(min=1e-2).rsqrt(), 1.0)
    weight.mul_(factors[:, None, None])
    return output * factors[degree_of][:, None, None]
