"""Energies, forces and the gradient of a loss of both by code that is compiled for the machine.

PyTorch's compiler cannot see through the derivative that gives the forces. So that is traced first:
what is compiled is one plain function of weights and structures, and its gradient.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, fx
from torch.func import functional_call

from eqpot.compilation import (
    CompiledPotential,
    ExplicitKernel,
    check_compiler,
    without_deprecations,
)
from eqpot.files import describe
from eqpot.models import GauntModel
from eqpot.potential import Potential

_N_ATOMS: Final = 101
_N_SLOTS: Final = 48
"""Sizes that the code is compiled with, always the same: it may depend on them in its rounding."""
_TOLERANCE: Final = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Of the comparison with the gradient that is not compiled, relative: rounding, with some room."""

Function = Callable[[list[Tensor], Tensor, Tensor, Tensor], list[Tensor]]
"""Of weights, edge vectors, neighbours and species: what :class:`ExplicitKernel` returns."""


class CompiledLearner:
    """Potentials of one kind that learn with compiled code.

    Compiling takes one to three minutes, once for all sizes of structures, and needs a C++
    compiler. PyTorch keeps the code in a folder of its own for the next run. With several threads
    sums over neighbours may round differently from call to call.

    Parameters
    ----------
    potential
        Of the kind: of its weights counts only which of them learn.

    Raises
    ------
    RuntimeError
        If there is no C++ compiler, or the compiled gradient differs from the plain one.
    """

    def __init__(self, potential: Potential) -> None:
        check_compiler()
        kernel = _kernel(potential)
        with without_deprecations():
            graph = traced(kernel)
            self._function: Function = torch.compile(graph, fullgraph=True, dynamic=True)
            _verify(self._function, kernel)
        self._bound: tuple[Potential, CompiledPotential] | None = None

    def bound_to(self, potential: Potential) -> CompiledPotential:
        """Return the compiled code with the weights of a potential, which get the gradient."""
        if self._bound is None or self._bound[0] is not potential:
            weights: list[Tensor] = list(_kernel(potential).parameters())

            def kernel(vectors: Tensor, neighbors: Tensor, species: Tensor) -> list[Tensor]:
                return self._function(weights, vectors, neighbors, species)

            device = potential.anchor.device
            compiled = CompiledPotential(kernel, describe(potential), device, multiple=2)
            self._bound = potential, compiled
        return self._bound[1]


def traced(kernel: ExplicitKernel) -> fx.GraphModule:
    """Return a kernel that learns as a graph of plain operations, a :data:`Function`."""
    # the tracer's own modules, some hundred, are imported only by those who compile
    from torch.fx.experimental.proxy_tensor import make_fx

    names = [name for name, _ in kernel.named_parameters()]

    def call(weights: list[Tensor], *inputs: Tensor) -> list[Tensor]:
        named = dict(zip(names, weights, strict=True))
        results: list[Tensor] = functional_call(kernel, named, inputs)
        return results

    inputs = _inputs(kernel)
    with torch.enable_grad():
        trace = make_fx(call, tracing_mode="symbolic", _allow_non_fake_inputs=True)
        graph = trace(list(kernel.parameters()), *inputs)
    # a result that its own derivative uses, such as that of a sigmoid, is traced as detached: the
    # second derivative would be lost
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


def _kernel(potential: Potential) -> ExplicitKernel:
    assert isinstance(potential.model, GauntModel)
    return ExplicitKernel(potential, potential.model, learning=True)


def _inputs(kernel: ExplicitKernel) -> tuple[Tensor, Tensor, Tensor]:
    """Return random edge vectors, most beyond the radius, neighbours and species."""
    generator = torch.Generator().manual_seed(0)
    shape = (_N_ATOMS, _N_SLOTS)
    vectors = torch.randn(_N_ATOMS, 3, _N_SLOTS, dtype=torch.float64, generator=generator)
    lengths = 0.4 + 1.6 * torch.rand(_N_ATOMS, 1, _N_SLOTS, generator=generator)
    vectors = vectors / vectors.norm(dim=1, keepdim=True) * (kernel.model.r_max * lengths)
    neighbors = torch.randint(_N_ATOMS, shape, generator=generator)
    species = torch.randint(len(kernel.reference_energies), shape[:1], generator=generator)
    device = kernel.reference_energies.device
    return vectors.to(device), neighbors.to(device), species.to(device)


def _verify(function: Function, kernel: ExplicitKernel) -> None:
    """Compare the gradient of a loss of random results; the first call compiles."""
    inputs = _inputs(kernel)
    weights: list[Tensor] = list(kernel.parameters())
    learning = [weight for weight in weights if weight.requires_grad]

    def gradient(results: list[Tensor]) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        cotangents = [torch.randn(result.shape, generator=generator) for result in results]
        cotangents = [cotangent.to(results[0]) for cotangent in cotangents]
        parts = torch.autograd.grad(results, learning, cotangents, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts])

    with torch.enable_grad():
        expected, found = gradient(kernel(*inputs)), gradient(function(weights, *inputs))
    difference = float((found - expected).norm() / expected.norm())
    if not difference <= _TOLERANCE[kernel.dtype]:
        raise RuntimeError(
            f"the compiled gradient differs from the plain one by {difference:.1e} (relative): "
            "leave out `training.compiled`"
        )
