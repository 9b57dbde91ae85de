"""Radial functions looked up in a table instead of computed by their network."""

import copy
from typing import Any, Final

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

from eqpot.nn.layout import written_out
from eqpot.nn.radial import RadialNetwork

N_INTERVALS: Final = 1024
"""Intervals of a table; the error is then below the rounding of float32."""


class RadialTable(nn.Module):
    r"""Cubic splines through the functions of a network, zero from ``r_max`` on.

    .. math:: \varphi_a(r) \approx c_0 + t \, (c_1 + t \, (c_2 + t \, c_3)),
              \quad r = (k + t) \, h, \quad 0 \leq t < 1

    The error falls with the fourth power of the interval h. The splines are twice continuously
    differentiable inside of ``r_max``; there value and slope vanish exactly, the second derivative
    but for an error that falls with the square of the interval. A second derivative by
    autograd raises :class:`RuntimeError`: the first comes from the table, like the values.

    Parameters
    ----------
    network
        Trained functions; type and device are taken over. The weights are not shared: a table is
        for deployment.
    n_intervals
        Number of intervals from 0 to ``r_max``.
    """

    coefficients: Tensor

    def __init__(self, network: RadialNetwork, n_intervals: int = N_INTERVALS) -> None:
        super().__init__()
        anchor = network.network[0].weight
        assert isinstance(anchor, Tensor)
        self.interval: float = network.r_max / n_intervals
        self.n_intervals = n_intervals
        knots = np.linspace(0.0, network.r_max, n_intervals + 1)
        with torch.no_grad():
            exact = copy.deepcopy(network).to("cpu", torch.float64)
            values = exact(torch.from_numpy(knots)[:, None])[:, :, 0].numpy()
        flat_end = (1, np.zeros(values.shape[1]))
        spline = CubicSpline(np.arange(n_intervals + 1), values, bc_type=("not-a-knot", flat_end))
        powers = np.moveaxis(spline.c[::-1], 0, 1)  # scipy has the highest power first
        beyond = np.zeros_like(powers[:1])
        rows = torch.from_numpy(np.concatenate([powers, beyond]).reshape(n_intervals + 1, -1))
        self.register_buffer("coefficients", rows.to(anchor))

    def forward(self, distances: Tensor) -> Tensor:
        """Return the functions, shape (n, n_functions, j), at distances of shape (n, j), Å."""
        places = distances.detach() / self.interval
        # both ends: a distance that is no number must not read beyond the table, and gives none
        intervals = places.long().clamp(min=0, max=self.n_intervals)
        t = (places - intervals)[:, :, None]
        # a row of the table lies together, so it is read as a row, and turned as a row
        c = written_out(self.coefficients[intervals], dim=2).chunk(4, dim=2)
        values = c[0] + t * (c[1] + t * (c[2] + t * c[3]))
        slopes = (c[1] + t * (2.0 * c[2] + t * (3.0 * c[3]))) / self.interval
        values, slopes = (written_out(part.transpose(1, 2), dim=1) for part in (values, slopes))
        found: Tensor = _KnownSlopes.apply(distances, values, slopes)
        return found


class _KnownSlopes(torch.autograd.Function):
    """``apply(distances, values, slopes)`` gives values that know their slopes.

    From one look into the table, where a gradient through the polynomials would take two.
    """

    @staticmethod
    def forward(ctx: Any, distances: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
        """Return the values, shape (n, a, j), for distances of shape (n, j)."""
        ctx.save_for_backward(distances, slopes)
        return values

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient to the distances."""
        slopes: Tensor = _FirstDerivative.apply(*ctx.saved_tensors)
        return (cotangent * slopes).sum(dim=1), None, None


class _FirstDerivative(torch.autograd.Function):
    """``apply(distances, slopes)`` gives slopes that depend on distances in an unknown way."""

    @staticmethod
    def forward(ctx: Any, distances: Tensor, slopes: Tensor) -> Tensor:
        """Return the slopes."""
        return slopes

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        """Refuse."""
        raise RuntimeError(
            "tabulated radial functions have one derivative; for a second one take the potential "
            "that was trained, which computes them by its networks"
        )
