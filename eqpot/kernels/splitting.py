"""A traced layer is cut in two: what goes forth, and what goes back once neighbours have answered.

Both know the same inputs. What matrix products gave on the way forth is kept for the way back; all
else is cheaper computed again than written down and read.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Final

import torch
from torch import fx

import eqpot.so3.gaunt  # noqa: F401 (defines the operation that is named below)
from eqpot.kernels.layers import Array

_KEPT: Final = (
    torch.ops.aten.bmm.default,
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.eqpot.gaunt_product.default,
)
"""Operations whose results are kept."""


@dataclass(frozen=True)
class Halves:
    """A graph in two.

    Attributes
    ----------
    forth
        Of the first inputs; returns the first results, and after them what is kept.
    back
        Of all inputs and what is kept; returns the other results.
    kept
        What is kept.
    """

    forth: fx.GraphModule
    back: fx.GraphModule
    kept: list[Array]


def split(traced: fx.GraphModule, n_inputs: int, n_results: int) -> Halves:
    """Cut a graph in two.

    Parameters
    ----------
    traced
        Graph with a list of results, traced with letters for lengths. Its first input has the
        shape (n, 3, j).
    n_inputs
        How many inputs the way forth has.
    n_results
        How many results it has.
    """
    inputs = list(traced.graph.find_nodes(op="placeholder"))
    results = _results(traced)
    forth, back = results[:n_results], results[n_results:]
    n_atoms, _, n_slots = map(str, inputs[0].meta["val"].shape)
    letters = {n_atoms: "n", n_slots: "j"}
    passed = _sources(forth)
    arrays = {
        node: array
        for node in passed
        if node.target in _KEPT and (array := _array(node, letters)) is not None
    }
    needed = _sources(back, stop=set(arrays))
    kept = [node for node in traced.graph.nodes if node in arrays and node in needed]
    return Halves(
        _part(traced, inputs[:n_inputs], [*forth, *kept]),
        _part(traced, [*inputs, *kept], back),
        [arrays[node] for node in kept],
    )


def into_buffers(traced: fx.GraphModule, n_results: int) -> fx.GraphModule:
    """Return a graph that writes its first results into tensors, which are its last inputs."""
    inputs = list(traced.graph.find_nodes(op="placeholder"))
    return _part(traced, inputs, _results(traced), n_results)


def _results(traced: fx.GraphModule) -> list[fx.Node]:
    (output,) = traced.graph.find_nodes(op="output")
    return list(output.args[0])


def _sources(nodes: Iterable[fx.Node], stop: Set[fx.Node] = frozenset()) -> set[fx.Node]:
    """Return all that leads to nodes, and themselves; not what leads to those at which to stop."""
    found: set[fx.Node] = set()
    ahead = list(nodes)
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead += [] if node in stop else node.all_input_nodes
    return found


def _array(node: fx.Node, letters: dict[str, str]) -> Array | None:
    """Return shape and type of a result, if each of its lengths is a number or has a letter."""
    value = node.meta["val"]
    shape: list[int | str] = []
    for length in map(str, value.shape):
        if not length.isdigit() and length not in letters:
            return None
        shape.append(letters[length] if length in letters else int(length))
    return Array(tuple(shape), value.dtype)


def _part(
    traced: fx.GraphModule, inputs: list[fx.Node], results: list[fx.Node], n_written: int = 0
) -> fx.GraphModule:
    """Return the graph from some nodes to others; the first results are written into buffers."""
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    buffers = [graph.placeholder(f"buffer_{i}") for i in range(n_written)]
    needed = _sources(results, stop=set(inputs))
    for node in traced.graph.nodes:
        if node in needed and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    copied = [copies[node] for node in results]
    for buffer, result in zip(buffers, copied, strict=False):
        graph.call_function(torch.ops.aten.copy_.default, (buffer, result))
    graph.output(copied[n_written:])
    return fx.GraphModule(traced, graph)
