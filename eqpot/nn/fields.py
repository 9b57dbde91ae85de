"""Maps of fields (k, n, c): packed index of (l, m), atom, channel."""

import torch
from torch import Tensor, nn

from eqpot.nn.density import match_scale
from eqpot.so3 import degrees


class DegreeLinear(nn.Module):
    """Linear map of the channels, its own for each degree l: equivariant, without bias.

    Parameters
    ----------
    l_max
        Highest degree of input and output.
    n_in, n_out
        Numbers of channels.
    """

    degrees: Tensor

    def __init__(self, l_max: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(l_max + 1, n_in, n_out) / n_in**0.5)
        self.register_buffer("degrees", torch.tensor(degrees(l_max)), persistent=False)

    def forward(self, field: Tensor) -> Tensor:
        """Return the mapped field, shape ((l_max + 1)², n, n_out)."""
        return torch.bmm(field, self.weight.index_select(0, self.degrees))  # knc,kcd->knd


class Projection(DegreeLinear):
    """Linear map of a density to channels that start with a root mean square of one."""

    @torch.no_grad()
    @torch.jit.unused
    def match_scale(self, output: Tensor) -> Tensor:
        """Rescale the weights to a root mean square of one for each degree; return that output."""
        return match_scale(self.weight, self.degrees, output)


class Gate(nn.Module):
    """Nonlinearity of a field: SiLU on l=0, a factor from l=0 on every higher degree.

    Parameters
    ----------
    l_max
        Highest degree.
    n_features
        Number of channels.
    """

    def __init__(self, l_max: int, n_features: int) -> None:
        super().__init__()
        self.l_max = l_max
        self.factors = nn.Linear(n_features, l_max * n_features) if l_max > 0 else None

    def forward(self, field: Tensor) -> Tensor:
        """Return the gated field, same shape; zero for a field of zero."""
        scalars = field[0]
        gated = torch.nn.functional.silu(scalars)[None] * (1 / 0.6)
        if self.factors is None:
            return gated
        factors = 2.0 * torch.sigmoid(self.factors(scalars))
        factors = factors.view(scalars.shape[0], self.l_max, scalars.shape[1]).transpose(0, 1)
        # not by an index, whose gradient would be added row by row in any order by several threads
        repeated = [factors[i : i + 1].expand(2 * i + 3, -1, -1) for i in range(self.l_max)]
        return torch.cat([gated, field[1:] * torch.cat(repeated)])  # knc,knc->knc
