"""Muon: steps of a weight matrix that are of equal size in all directions."""

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

# x -> a x + b x³ + c x⁵, five times, brings numbers of 0.01..1 near 1; a sets the speed at 0
_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
_N_ITERATIONS: Final = 5
_LARGEST: Final = 0.2


class Muon(torch.optim.Optimizer):
    r"""Momentum, made orthogonal: of :math:`M = U S V^T` a step takes :math:`U V^T`.

    .. math::
        M \leftarrow \mu M + (1 - \mu) G, \quad
        W \leftarrow (1 - \eta \lambda) W
            - 0.2 \, \eta \sqrt{\max(m, n)} \; \mathrm{orth}(\mu M + (1 - \mu) G)

    for a matrix :math:`m \times n` with the gradient :math:`G`. The root gives an entry of the step
    the size that it has with Adam at the same learning rate.

    The Muon of torch takes single matrices. Here all matrices of one shape, those of each degree of
    a field among them, are made orthogonal in one go: at 32 channels a step takes 1.5 ms instead of
    the 3.3 ms of one stack after the other.

    Parameters
    ----------
    parameters
        Matrices, or stacks of matrices: shape (..., m, n).
    lr, weight_decay, momentum
        η, λ and μ.

    References
    ----------
    Jordan et al., 2024, kellerjordan.github.io/posts/muon; the size of a step: Liu et al.,
    arXiv:2502.16982, eq. 4.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step along the gradients that are there."""
        assert closure is None
        for group in self.param_groups:
            rate, share = group["lr"], 1 - group["momentum"]
            alike: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape[-2:], []).append(parameter)
            for shape, parameters in alike.items():
                directions = []
                for parameter in parameters:
                    state = self.state[parameter]
                    if not state:
                        state["momentum"] = torch.zeros_like(parameter)
                    momentum = state["momentum"].lerp_(parameter.grad, share)
                    directions.append(momentum.lerp(parameter.grad, share).view(-1, *shape))
                step = orthogonalized(torch.cat(directions))
                size = _LARGEST * max(shape) ** 0.5
                for parameter, part in zip(
                    parameters, step.split([len(d) for d in directions]), strict=True
                ):
                    parameter.mul_(1 - rate * group["weight_decay"])
                    parameter.sub_(part.view_as(parameter), alpha=rate * size)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return the matrices with singular values near 1, from 0.68 to 1.13, by Newton-Schulz steps.

    Parameters
    ----------
    matrices
        Shape (..., m, n). Singular values below a hundredth of the largest come out smaller.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if is_tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)  # no singular value above 1
    a, b, c = _COEFFICIENTS
    for _ in range(_N_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x
