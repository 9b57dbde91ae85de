"""Radial functions: the envelope, the encoding of a distance and the learned functions on it."""

import math

import torch
from torch import Tensor, nn


def polynomial_envelope(distances: Tensor, r_max: float, power: int) -> Tensor:
    r"""Return a function that falls from 1 to 0 with two vanishing derivatives at ``r_max``.

    .. math:: u(x) = 1 - \tfrac{(p+1)(p+2)}{2} x^p + p(p+2) x^{p+1} - \tfrac{p(p+1)}{2} x^{p+2},
              \quad x = r / r_\mathrm{max}

    and 0 beyond, so that u is twice continuously differentiable everywhere.

    Parameters
    ----------
    distances
        Any shape, Å.
    r_max
        Radius of the model, Å.
    power
        Exponent p, at least 2. The larger, the later the function falls: to a half at 0.5
        ``r_max`` with 3, at 0.68 with 6.

    Returns
    -------
    Tensor
        Same shape, between 0 and 1.

    References
    ----------
    Gasteiger, Groß and Günnemann, Directional message passing for molecular graphs, ICLR 2020,
    eq. 8.
    """
    x = (distances / r_max).clamp(max=1.0)
    p = float(power)
    inner = (p + 1) * (p + 2) / 2 - x * (p * (p + 2) - x * (p * (p + 1) / 2))
    return 1.0 - x.pow(power) * inner


class RadialNetwork(nn.Module):
    r"""Learned radial functions, each smooth and zero from ``r_max`` on.

    .. math:: \varphi_a(r) = u(r) \, [\theta_a + h_a(e(r))], \quad
              e(r) = \{\cos(\pi k \gamma / 2), \sin(\pi k \gamma / 2)\}_{k=1..n}, \
              \gamma = r / r_\mathrm{max}

    with a small shared network h. The encoding has constant norm, so the network sees inputs of the
    same size at every distance; the envelope stays outside.

    Parameters
    ----------
    r_max
        Radius, Å.
    n_functions
        Number of functions.
    envelope_power
        Exponent of :func:`polynomial_envelope`.
    n_encoding
        Number of frequencies n.
    n_hidden
        Width of the two hidden layers.

    References
    ----------
    Ortiz et al., Magnitude invariant parametrizations improve hypernetwork learning, ICLR 2024,
    eqs. 5-6.
    """

    frequencies: Tensor

    def __init__(
        self,
        r_max: float,
        n_functions: int,
        envelope_power: int,
        n_encoding: int = 8,
        n_hidden: int = 32,
    ) -> None:
        super().__init__()
        self.r_max = r_max
        self.envelope_power = envelope_power
        frequencies = torch.arange(1, n_encoding + 1, dtype=torch.float64) * (math.pi / 2 / r_max)
        self.register_buffer("frequencies", frequencies)
        self.network = nn.Sequential(
            nn.Linear(2 * n_encoding, n_hidden),
            nn.SiLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.SiLU(),
            nn.Linear(n_hidden, n_functions),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start every function with values of order 1 inside the radius."""
        gain = 1 / 0.6  # SiLU of a standard normal has an rms of 0.6
        for index, scale in ((0, 2.0**0.5), (2, gain), (4, gain)):
            layer = self.network[index]
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=scale / layer.in_features**0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, distances: Tensor) -> Tensor:
        """Return the functions at the distances.

        Parameters
        ----------
        distances
            Shape (n, j), Å.

        Returns
        -------
        Tensor
            Shape (n, n_functions, j).
        """
        phases = distances[:, :, None] * self.frequencies
        encoded = torch.cat([torch.cos(phases), torch.sin(phases)], dim=2)
        values: Tensor = self.network(encoded)
        envelope = polynomial_envelope(distances, self.r_max, self.envelope_power)
        return values.transpose(1, 2).contiguous() * envelope[:, None]
