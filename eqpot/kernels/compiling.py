"""From a potential to the compiled functions of its layers."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from eqpot.kernels.layers import Array, Layer, Sums, Widths
from eqpot.kernels.sweep import SUMS, WHOLE, back_name, forth_name
from eqpot.kernels.whole import explicit_kernel
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
        On the CPU; its model is copied.
    """
    from eqpot.kernels.splitting import into_buffers, split

    assert isinstance(potential.model, GauntModel)
    model = deployed(potential.model, compiled=True)
    widths = Widths(model.settings, potential.anchor.dtype)
    last = widths.n_layers - 1
    arrays = [widths.vectors, widths.neighbors, widths.incoming, widths.species]
    functions = {WHOLE: Function(trace(explicit_kernel(potential), arrays), arrays)}
    for step in range(last):
        before, answers = widths.before(step), widths.pulls_before()
        after, pulled = widths.after(), widths.pulled(step)
        traced = trace(Layer(potential, model, step), [*before, *answers])
        halves = split(traced, len(before), len(after))
        functions[forth_name(step)] = Function(
            into_buffers(halves.forth, len(after)), [*before, *after]
        )
        functions[back_name(step)] = Function(
            into_buffers(halves.back, len(pulled)), [*before, *answers, *halves.kept, *pulled]
        )
    inputs = [*widths.before(last), *([widths.energies] * last)]
    results = [widths.total, *widths.pulled(last)]
    traced = trace(Layer(potential, model, last), inputs)
    functions[back_name(last)] = Function(into_buffers(traced, len(results)), [*inputs, *results])
    results = [widths.forces, widths.virials]
    traced = trace(Sums(), widths.shared())
    functions[SUMS] = Function(into_buffers(traced, len(results)), [*widths.shared(), *results])
    return functions


def compile_functions(functions: dict[str, Function], path: Path, metadata: dict[str, str]) -> None:
    """Write a package of compiled functions.

    Parameters
    ----------
    functions
        Of :func:`functions_of`.
    path
        The file.
    metadata
        Texts that are to stand in it.
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
        inputs = _examples(function.inputs)
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
    package_aoti(str(path), files)


def trace(module: nn.Module, inputs: Sequence[Array]) -> fx.GraphModule:
    """Return the graph of a module, with letters for the lengths that vary.

    Gradients are traced so, since ``torch.export`` cannot: what that sees is one plain graph.

    Parameters
    ----------
    module
        Such as :class:`eqpot.kernels.layers.Layer`.
    inputs
        What it takes.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.enable_grad():
        tracer = make_fx(module, tracing_mode="symbolic", _allow_non_fake_inputs=True)
        traced: fx.GraphModule = tracer(*_examples(inputs))
    return traced


def _examples(arrays: Sequence[Array]) -> tuple[Tensor, ...]:
    """Return inputs of lengths that differ from each other: equal ones would be one variable."""
    fixed = {n for array in arrays for n in array.shape if isinstance(n, int)}
    lengths = {
        name: next(n for n in itertools.count(start, step) if n not in fixed)
        for name, start, step in (("n", 33, 2), ("j", 3 * SLOTS, SLOTS), ("N", 101, 2))
    }
    return tuple(array.empty(lengths).fill_(1) for array in arrays)
