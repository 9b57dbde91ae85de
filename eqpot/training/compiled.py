"""Energies, forces and the gradient of a loss of both by code that is compiled for the machine.

PyTorch's compiler cannot see through the derivative that gives the forces. So that is traced first:
what is compiled is one plain function of weights and structures, and its gradient.
"""

import copy
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from eqpot.compilation import CompiledPotential
from eqpot.compiler import CompilationError, check_compiler, without_deprecations
from eqpot.files import describe
from eqpot.kernels.whole import ExplicitKernel
from eqpot.models import GauntModel
from eqpot.potential import Potential

_TRACED_SIZES: Final = (101, 47)
"""Atoms and slots that the code is made with, or the next that no weight has: to the tracer equal
sizes are one. Always the same for a model, as its rounding may depend on them."""
_OTHER_SIZES: Final = (23, 70)
"""Atoms and slots of another structure, for which the code is compared too."""
_TOLERANCE: Final = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Of the comparison with what is not compiled, relative, beside ten times its own rounding."""

_Inputs = tuple[Tensor, Tensor, Tensor, Tensor]

LearningKernel = Callable[[list[Tensor], *_Inputs], list[Tensor]]
"""Of weights and the inputs of an :class:`ExplicitKernel`: what that returns."""


class CompiledGradient:
    """Compiled code for a potential that learns, and for its copies.

    Compiling takes two to four minutes, once for all sizes of structures, and needs a C++
    compiler. PyTorch keeps the code in a folder of its own for the next run of the same recipe.
    Its loops run on one thread; matrix products use as many as PyTorch does.

    Parameters
    ----------
    potential
        On a CPU. Its weights may change, all else is in the code.

    Raises
    ------
    CompilationError
        If there is no C++ compiler, PyTorch's compiler fails, or its results differ from the plain
        ones.
    """

    def __init__(self, potential: Potential) -> None:
        check_compiled(potential.anchor.device)
        kernel = _learning_kernel(potential)
        self._description = _description(potential)
        with without_deprecations():
            try:
                graph = traced(kernel)
                # with loops of two threads the derivative crashed the process (torch 2.13)
                self._kernel: LearningKernel = torch.compile(
                    graph, fullgraph=True, dynamic=True, options={"cpp.threads": 1}
                )
                for sizes in (_sizes(kernel), _OTHER_SIZES):
                    _verify(self._kernel, kernel, sizes)
            except CompilationError:
                raise
            except RuntimeError as error:  # whatever the tracer and the compiler raise
                reason = "".join(str(error).strip().splitlines()[:1])  # there may be no word
                raise CompilationError(
                    f"PyTorch's compiler failed: {type(error).__name__}: {reason}; leave out "
                    "`training.compiled`"
                ) from error
        self._bound: tuple[Potential, CompiledPotential] | None = None

    def bound_to(self, potential: Potential) -> CompiledPotential:
        """Return the compiled code with the weights of a copy, which get the gradient.

        Raises
        ------
        ValueError
            If the potential differs in more than its weights.
        """
        if self._bound is None or self._bound[0] is not potential:
            if _description(potential) != self._description:
                raise ValueError("`potential` must be a copy of the one that the code was made of")
            weights: list[Tensor] = list(_learning_kernel(potential).parameters())

            def kernel(*inputs: *_Inputs) -> list[Tensor]:
                return self._kernel(weights, *inputs)

            device = potential.anchor.device
            compiled = CompiledPotential(kernel, describe(potential), device, multiple=2)
            self._bound = potential, compiled
        return self._bound[1]


def check_compiled(device: torch.device) -> None:
    """Check that steps can be compiled here.

    Raises
    ------
    CompilationError
        If there is no C++ compiler.
    ValueError
        If the device is no CPU.
    """
    if device.type != "cpu":
        raise ValueError(
            f"`training.compiled` is for CPUs, and the device is {device}: leave it out, or choose "
            "`training.accelerator: cpu`"
        )
    check_compiler()


def traced(kernel: ExplicitKernel) -> fx.GraphModule:
    """Return a kernel that learns as a graph of plain operations, a :data:`LearningKernel`."""
    # the tracer's own modules, some hundred, are imported only by those who compile
    from torch.fx.experimental.proxy_tensor import make_fx

    names = [name for name, _ in kernel.named_parameters()]

    def call(weights: list[Tensor], *inputs: Tensor) -> list[Tensor]:
        named = dict(zip(names, weights, strict=True))
        results: list[Tensor] = functional_call(kernel, named, inputs)
        return results

    inputs = _structure(kernel, _sizes(kernel))
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


def _learning_kernel(potential: Potential) -> ExplicitKernel:
    assert isinstance(potential.model, GauntModel)
    return ExplicitKernel(potential, potential.model, learning=True)


def _description(potential: Potential) -> dict[str, Any]:
    """Return all that is fixed in the code."""
    weights = {name: (tuple(w.shape), w.requires_grad) for name, w in potential.named_parameters()}
    return describe(potential) | {"weights": weights}


def _sizes(kernel: nn.Module) -> tuple[int, int]:
    taken = {length for weight in kernel.parameters() for length in weight.shape}
    n_atoms, n_slots = _TRACED_SIZES
    while n_slots in taken:
        n_slots += 1
    while n_atoms in taken | {n_slots}:
        n_atoms += 1
    return n_atoms, n_slots


def _structure(kernel: ExplicitKernel, sizes: tuple[int, int]) -> _Inputs:
    """Return random inputs of a kernel.

    Atoms have as many neighbours as those of the training data; other slots are empty: their
    vectors are beyond the radius. In each slot atoms are neighbours in pairs.
    """
    n_atoms, n_slots = sizes
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(n_atoms, 3, n_slots, dtype=torch.float64, generator=generator)
    lengths = 0.25 + 0.8 * torch.rand(n_atoms, 1, n_slots, generator=generator)
    empty = (
        torch.rand(lengths.shape, generator=generator) > kernel.model.avg_num_neighbors / n_slots
    )
    vectors = vectors / vectors.norm(dim=1, keepdim=True) * (kernel.model.r_max * lengths)
    vectors = vectors.masked_fill(empty, 2.0 * kernel.model.r_max)
    sums = torch.randint(n_atoms, (n_slots,), generator=generator)  # of the two atoms of a pair
    neighbors = (sums - torch.arange(n_atoms)[:, None]) % n_atoms
    incoming = (n_slots * neighbors + torch.arange(n_slots)).t().contiguous()
    species = torch.randint(len(kernel.reference_energies), (n_atoms,), generator=generator)
    device = kernel.reference_energies.device
    return vectors.to(device), neighbors.to(device), incoming.to(device), species.to(device)


def _verify(compiled: LearningKernel, kernel: ExplicitKernel, sizes: tuple[int, int]) -> None:
    """Compare results, and the gradient of a random loss of them; the first call compiles.

    How far float32 is off depends on structure and weights, so it is not assumed but measured.
    """
    exact = copy.deepcopy(kernel).double()
    exact.dtype = torch.float64
    inputs = _structure(kernel, sizes)
    weights: list[Tensor] = list(kernel.parameters())
    with torch.enable_grad():
        own = _all_results(exact, exact(*inputs), inputs)
        plain = _all_results(kernel, kernel(*inputs), inputs)
        found = _all_results(kernel, compiled(weights, *inputs), inputs)
    for name, reference in own.items():
        size = reference.norm().clamp(min=1e-12)
        difference = float((found[name] - reference).norm() / size)
        rounding = float((plain[name] - reference).norm() / size)
        if not difference <= _TOLERANCE[kernel.dtype] + 10 * rounding:
            raise CompilationError(
                f"the compiled {name} differs from the plain one by {difference:.1e} (relative; "
                f"rounding: {rounding:.1e}): leave out `training.compiled`"
            )


def _all_results(
    kernel: ExplicitKernel, results: list[Tensor], inputs: _Inputs
) -> dict[str, Tensor]:
    """Return results by name, and the gradient of their sum to the kernel's weights, in float64.

    Random numbers weigh the sum.
    """
    learning = [weight for weight in kernel.parameters() if weight.requires_grad]
    generator = torch.Generator().manual_seed(1)
    energies, forces, virials = results
    cotangents = [torch.randn(r.shape, generator=generator).to(r) for r in results]
    parts = torch.autograd.grad(results, learning, cotangents, materialize_grads=True)
    found = {
        # E0s are thousands of eV and exact: an error must not look small beside them
        "energy": energies - kernel.reference_energies[inputs[3]],
        "forces": forces,
        "virial": virials,
        "gradient": torch.cat([part.flatten() for part in parts]),
    }
    return {name: value.detach().to(torch.float64) for name, value in found.items()}
