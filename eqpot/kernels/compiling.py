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
from eqpot.kernels.sweep import SUMS, WHOLE, back_name, forth_name, function_names
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


def names_of(potential: Potential) -> list[str]:
    """Return the names of a potential's functions: on a GPU there is one, of all atoms at once."""
    assert isinstance(potential.model, GauntModel)
    if potential.anchor.device.type != "cpu":
        return [WHOLE]
    return function_names(potential.model.settings.n_layers)


def function_of(potential: Potential, name: str) -> Function:
    """Return a function of a potential, as :class:`eqpot.kernels.sweep.StagedKernel` calls it.

    Parameters
    ----------
    potential
        Its model is copied.
    name
        One of :func:`names_of`.
    """
    assert isinstance(potential.model, GauntModel)
    model = deployed(potential.model, compiled=True)
    widths = Widths(model.settings, potential.anchor.dtype)
    if name == WHOLE:
        kernel = ExplicitKernel(potential, model)
        graph = trace(kernel, widths.whole_inputs, potential.anchor.device)
        return Function(graph, widths.whole_inputs)
    if name == SUMS:
        return _filling(trace(Sums(), widths.sums_inputs()), widths.sums_inputs(), widths.sums())
    last = widths.n_layers - 1
    if name == back_name(last):
        inputs = [*widths.layer_inputs(last), *([widths.energies] * last)]
        traced = trace(Layer(potential, model, last), inputs)
        return _filling(traced, inputs, [widths.total, *widths.gradients_out(last)])
    step = next(t for t in range(last) if name in (forth_name(t), back_name(t)))
    inputs, answers = widths.layer_inputs(step), widths.gradients_in()
    results = widths.layer_results()
    traced = trace(Layer(potential, model, step), [*inputs, *answers])
    halves = split(traced, len(inputs), len(results))
    if name == forth_name(step):
        return _filling(halves.forth, inputs, results)
    return _filling(halves.back, [*inputs, *answers, *halves.kept], widths.gradients_out(step))


def _filling(graph: fx.GraphModule, inputs: list[Array], results: list[Array]) -> Function:
    """Return a function that writes its first results into inputs."""
    return Function(into_buffers(graph, len(results)), [*inputs, *results])


def compile_function(
    function: Function, name: str, folder: Path, metadata: dict[str, str], device: torch.device
) -> list[str]:
    """Return the files of a compiled function, for a package.

    Parameters
    ----------
    function
        Of :func:`function_of`.
    name
        Of the function, for messages.
    folder
        Where the files go: one that no other function has.
    metadata
        Texts that are to stand in the package.
    device
        Where the function runs.

    Raises
    ------
    CompilationError
        If an operation would need PyTorch's own objects to be called.
    """
    from torch._inductor import aot_compile

    from eqpot.so3 import lowering

    lowering.register()
    dims = {
        "N": torch.export.Dim("all_atoms", min=LEAST),
        "n": torch.export.Dim("atoms", min=LEAST),
    }
    dims["j"] = SLOTS * torch.export.Dim("slots", min=1)
    inputs = _examples(function.inputs, device)
    shapes = [
        {axis: dims[n] for axis, n in enumerate(array.shape) if isinstance(n, str)}
        for array in function.inputs
    ]
    exported = torch.export.export(function.graph, inputs, dynamic_shapes=tuple(shapes))
    options = {
        "aot_inductor.package": True,
        "aot_inductor.output_path": str(folder),
        "aot_inductor.metadata": metadata,
        "cpp.threads": 1,  # each thread calls the code for atoms of its own
    }
    found: Any = aot_compile(exported.module(), inputs, options=options)
    files = [str(file) for file in found]
    foreign = [n for n in files if n.endswith(".json") and not n.endswith("_metadata.json")]
    if foreign and device.type == "cpu":
        raise CompilationError(
            f"PyTorch {torch.__version__} has no C interface for an operation of {name!r}; "
            "compile with another version"
        )
    return files


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
