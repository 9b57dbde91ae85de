"""Reduced precision of the network's matrix products while it trains.

The mixed precision of Fabric is no choice here: it turns all inputs of a module, positions too,
into bfloat16, with a spacing of 0.03 Å at 5 Å.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eqpot.nn.fields import DegreeLinear

PrecisionName = Literal["full", "tf32", "bf16"]


@contextlib.contextmanager
def network_precision(module: nn.Module, precision: PrecisionName) -> Iterator[None]:
    """Within, matrix products of the network run in a lower precision.

    "bf16" holds for the products that mix channels (:class:`eqpot.nn.fields.DegreeLinear`) and for
    their derivatives. Harmonics, sphere transforms, radial functions and readouts stay float32;
    positions, energies and sums stay float64. "tf32" holds for all float32 matrix products on a
    CUDA device, sphere transforms included, and does nothing elsewhere. Forward and backward pass
    both belong inside. Nothing of it outlasts the context.

    Parameters
    ----------
    module
        The potential, in float32 unless "full".
    precision
        "full" changes nothing.

    Raises
    ------
    ValueError
        If the network is float64 and shall be reduced.

    Notes
    -----
    Measured for ethanol with the small preset, trained to a force error of 18 meV/Å and an energy
    error near 1 meV/atom, against float64: "bf16" adds a root mean square error of 2.4 meV/Å to
    forces (0.2 % of them) and of 0.4 meV/atom to energies; float32 adds 0.001 meV/Å and
    0.0002 meV/atom. With linear layers and readouts in bfloat16 too, energies are off by
    10 meV/atom, more than they are wrong. Potentials trained for 40 passes with "bf16", evaluated
    in float32, had a force error of 40 meV/Å on other frames (41 with "full") and an energy error
    of 1.9 meV/atom (1.3): the gradient of an energy error below the noise is noise. float16 is not
    offered: its narrow range made gradients NaN.
    """
    if precision == "full":
        yield
        return
    parameter = next(module.parameters())
    if parameter.dtype != torch.float32:
        raise ValueError(
            f"`training.precision: {precision}` needs `training.dtype: float32`, "
            f"got {str(parameter.dtype).removeprefix('torch.')}"
        )
    context = _tf32() if precision == "tf32" else _bf16(module, parameter.device.type)
    with context:
        yield


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    flags = torch.backends.cuda.matmul
    before = flags.fp32_precision
    flags.fp32_precision = "tf32"
    try:
        yield
    finally:
        flags.fp32_precision = before


@contextlib.contextmanager
def _bf16(module: nn.Module, device: str) -> Iterator[None]:
    # the derivatives of a product run in the precision of the product: no context is needed then
    entered = contextlib.ExitStack()

    def enter(part: nn.Module, inputs: Any) -> None:
        entered.enter_context(torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False))

    def leave(part: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        entered.close()
        return output.to(torch.float32)

    with entered:  # left here if a product fails, out of memory
        hooks = []
        for part in module.modules():
            if isinstance(part, DegreeLinear):
                hooks.append(part.register_forward_pre_hook(enter))
                hooks.append(part.register_forward_hook(leave))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
