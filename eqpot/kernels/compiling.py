"""From a potential to the compiled functions of its layers."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from eqpot.compiler import CompilationError
from eqpot.kernels.layers import CPU, Array, Layer, Sums, Widths
from eqpot.kernels.splitting import into_buffers, split
from eqpot.kernels.sweep import SUMS, WHOLE, back_name, forth_name
from eqpot.kernels.whole import ExplicitKernel
from eqpot.models import GauntModel
from eqpot.models.deployment import deployed
from eqpot.potential import Potential

LEAST: Final = 2
"""Atoms in a call, at least: the compiler takes any number but 0 and 1 for a variable."""
SLOTS: Final = 16
"""Numbers of slots are multiples of it: rows fill vector registers and lines of the cache."""


@dataclass(frozen=True)
class Function:
    """What becomes one function of a package.

    Attributes
    ----------
    graph
        Of a layer it fills its last inputs and returns what is kept for the way back.
    inputs
        What it takes.
    """

    graph: fx.GraphModule
    inputs: list[Array]


def functions_of(potential: Potential) -> dict[str, Function]:
    """Return the functions of a potential by name, as :class:`eqpot.kernels.sweep.StagedKernel`.

    Parameters
    ----------
    potential
        Its model is copied. On a GPU there is one function, of all atoms at once.
    """
    assert isinstance(potential.model, GauntModel)
    device = potential.anchor.device
    model = deployed(potential.model, compiled=True)
    widths = Widths(model.settings, potential.anchor.dtype)
    kernel = ExplicitKernel(potential, model)
    functions = {WHOLE: Function(trace(kernel, widths.whole_inputs, device), widths.whole_inputs)}
    if device.type != "cpu":
        return functions
    last = widths.n_layers - 1
    for step in range(last):
        inputs, answers = widths.layer_inputs(step), widths.gradients_in()
        results, gradients = widths.layer_results(), widths.gradients_out(step)
        traced = trace(Layer(potential, model, step), [*inputs, *answers])
        halves = split(traced, len(inputs), len(results))
        functions[forth_name(step)] = Function(
            into_buffers(halves.forth, len(results)), [*inputs, *results]
        )
        functions[back_name(step)] = Function(
            into_buffers(halves.back, len(gradients)),
            [*inputs, *answers, *halves.kept, *gradients],
        )
    inputs = [*widths.layer_inputs(last), *([widths.energies] * last)]
    results = [widths.total, *widths.gradients_out(last)]
    traced = trace(Layer(potential, model, last), inputs)
    functions[back_name(last)] = Function(into_buffers(traced, len(results)), [*inputs, *results])
    inputs, results = widths.sums_inputs(), [widths.forces, widths.virials]
    traced = trace(Sums(), inputs)
    functions[SUMS] = Function(into_buffers(traced, len(results)), [*inputs, *results])
    return functions


def compile_functions(
    functions: dict[str, Function], path: Path, metadata: dict[str, str], device: torch.device
) -> None:
    """Write a package of compiled functions.

    Parameters
    ----------
    functions
        Of :func:`functions_of`.
    path
        The file.
    metadata
        Texts that are to stand in it.
    device
        Where the functions run.

    Raises
    ------
    CompilationError
        If an operation would need PyTorch's own objects to be called.
    """
    from torch._inductor import aot_compile
    from torch._inductor.package.package import package_aoti

    dims = {
        "N": torch.export.Dim("all_atoms", min=LEAST),
        "n": torch.export.Dim("atoms", min=LEAST),
    }
    dims["j"] = SLOTS * torch.export.Dim("slots", min=1)
    files: Any = {}
    for name, function in functions.items():
        inputs = _examples(function.inputs, device)
        shapes = [
            {axis: dims[n] for axis, n in enumerate(array.shape) if isinstance(n, str)}
            for array in function.inputs
        ]
        exported = torch.export.export(function.graph, inputs, dynamic_shapes=tuple(shapes))
        options = {
            "aot_inductor.package": True,
            "aot_inductor.metadata": metadata,
            "cpp.threads": 1,  # each thread calls the code for atoms of its own
        }
        files[name] = aot_compile(exported.module(), inputs, options=options)
        names = [str(file) for file in files[name]]
        foreign = [n for n in names if n.endswith(".json") and not n.endswith("_metadata.json")]
        if foreign and device.type == "cpu":
            raise CompilationError(
                f"PyTorch {torch.__version__} has no C interface for an operation of {name!r}; "
                "compile with another version"
            )
    package_aoti(str(path), files)


def trace(module: nn.Module, inputs: Sequence[Array], device: torch.device = CPU) -> fx.GraphModule:
    """Return the graph of a module, with letters for the lengths that vary.

    Gradients are traced so, since ``torch.export`` cannot: what that sees is one plain graph.

    Parameters
    ----------
    module
        Such as :class:`eqpot.kernels.layers.Layer`.
    inputs
        What it takes.
    device
        Where it runs.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.enable_grad():
        tracer = make_fx(module, tracing_mode="symbolic", _allow_non_fake_inputs=True)
        traced: fx.GraphModule = tracer(*_examples(inputs, device))
    return traced


def _examples(arrays: Sequence[Array], device: torch.device) -> tuple[Tensor, ...]:
    """Return inputs of lengths that differ from each other: equal ones would be one variable."""
    fixed = {n for array in arrays for n in array.shape if isinstance(n, int)}
    lengths = {
        name: next(n for n in itertools.count(start, step) if n not in fixed)
        for name, start, step in (("n", 33, 2), ("j", 3 * SLOTS, SLOTS), ("N", 101, 2))
    }
    return tuple(array.empty(lengths, device).fill_(1) for array in arrays)
