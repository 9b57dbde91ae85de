"""What a computation costs: multiply-adds and bytes, by the place in the code that asks for them.

Counted is what runs, operation by operation, so the numbers follow the code. The derivatives belong
to the place whose derivative they are: every node of the derivative graph is marked with its place
when it is made, the nodes of second derivatives with the place of the node that makes them.
"""

import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

FORWARD: Final = "forward"
"""The phase of all that is no derivative."""
ELSEWHERE: Final = "elsewhere"
"""The stage of operations that no place of the table asks for."""

_PLACE: Final = "eqpot.place"  # in the metadata of a node, which are shared by all who read it
_UNTOUCHED: Final = ("aten::empty", "aten::new_empty")  # memory that is neither read nor written


@dataclass
class Cost:
    """Work of some operations.

    Attributes
    ----------
    multiply_adds
        Multiply-adds of matrix products, and of others for which PyTorch knows a number. Operations
        on single elements have none: what they cost is their traffic.
    n_bytes
        Bytes read and written, if each operation reads its arguments and writes its results once.
        Views and repeated elements of an expanded tensor are free.
    n_operations
        Number of operations, views left out: each has to be started, however little it does.
    """

    multiply_adds: int = 0
    n_bytes: int = 0
    n_operations: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.multiply_adds + other.multiply_adds,
            self.n_bytes + other.n_bytes,
            self.n_operations + other.n_operations,
        )


class CostCounter:
    """Context in which operations are counted, by stage and phase.

    Parameters
    ----------
    stages
        Name of the stage by place. A place is a module, a definition in it or a method, such as
        ``"eqpot.nn.fields"``, ``"eqpot.nn.fields:Gate"`` or ``"eqpot.nn.fields:Gate.forward"``; the
        closest goes first. An operation belongs to the innermost call that the table names.

    Attributes
    ----------
    costs
        Cost by stage and phase. The phase is :data:`FORWARD` or ``derivative``.
    derivative
        Name of the phase of the derivatives that are being computed; set it to ``"double
        backward"`` before the derivative of a loss of forces.

    Examples
    --------
    >>> import torch
    >>> counter = CostCounter({})
    >>> with counter:
    ...     _ = torch.ones(2, 3) @ torch.ones(3, 5)
    >>> counter.total().multiply_adds
    30
    """

    def __init__(self, stages: Mapping[str, str]) -> None:
        self.stages = stages
        self.derivative = "backward"
        self.costs: dict[tuple[str, str], Cost] = {}
        self._now = ELSEWHERE, FORWARD
        self._marking = False
        self._modes = ExitStack()

    def total(self, phase: str | None = None) -> Cost:
        """Return the cost of all stages, in one phase or in all."""
        parts = (cost for (_, p), cost in self.costs.items() if phase in (None, p))
        return sum(parts, Cost())

    def __enter__(self) -> "CostCounter":
        self._modes.enter_context(_Calls(self))
        self._modes.enter_context(_Operations(self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._modes.close()

    def _call(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if self._marking:  # reading `grad_fn` of a tensor is a call too
            return function(*args, **kwargs)
        self._now = self._stage(), FORWARD
        result = function(*args, **kwargs)
        self._mark(tree_leaves(result), self._now[0])
        return result

    def _stage(self) -> str:
        frame = sys._getframe(2)
        while frame is not None:
            stage = self._named(frame.f_globals.get("__name__", ""), frame.f_code.co_qualname)
            if stage is not None:
                return stage
            frame = frame.f_back  # type: ignore[assignment]
        return ELSEWHERE

    def _named(self, module: str, name: str) -> str | None:
        """Return the stage of a function or class, if the table names it."""
        for place in (f"{module}:{name}", f"{module}:{name.partition('.')[0]}", module):
            if place in self.stages:
                return self.stages[place]
        return None

    def _mark(self, tensors: Iterable[Any], stage: str) -> None:
        """Mark the nodes that made the tensors, back to those that are marked."""
        self._marking = True
        nodes: list[Any] = [t.grad_fn for t in tensors if isinstance(t, Tensor)]
        self._marking = False
        while nodes:
            node = nodes.pop()
            # leaves are left alone: they outlive the computation, and so would our hooks
            if node is None or hasattr(node, "variable") or _PLACE in node.metadata:
                continue
            own = stage
            written = getattr(node, "_forward_cls", None)  # a `torch.autograd.Function`, no call
            if written is not None:
                own = self._named(written.__module__, written.__qualname__) or stage
            node.metadata[_PLACE] = own
            node.register_prehook(lambda gradients, stage=own: self._begin(gradients, stage))
            node.register_hook(lambda gradients, _, stage=own: self._mark(gradients, stage))
            nodes += [before for before, _ in node.next_functions]

    def _begin(self, gradients: Iterable[Any], stage: str) -> None:
        self._mark(gradients, self._now[0])  # sums of gradients have nodes, but no hooks
        self._now = stage, self.derivative

    def _count(self, operation: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        formula = flop_registry.get(operation.overloadpacket)
        flops = 0 if formula is None else formula(*args, **kwargs, out_val=result)
        n_bytes = _traffic(operation, tree_leaves((args, kwargs)), result)
        cost = Cost(int(flops) // 2, n_bytes, int(n_bytes > 0))
        self.costs[self._now] = self.costs.get(self._now, Cost()) + cost


class _Calls(TorchFunctionMode):
    """Calls by Python code, before derivatives are recorded."""

    def __init__(self, counter: CostCounter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._counter._call(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    """Operations that run, those of the derivatives too."""

    def __init__(self, counter: CostCounter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._counter._count(func, args, kwargs or {}, result)
        return result


def _traffic(operation: Any, arguments: Iterable[Any], result: Any) -> int:
    if operation.name().startswith(_UNTOUCHED):
        return 0
    read = [leaf for leaf in arguments if isinstance(leaf, Tensor)]
    written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    if not operation._schema.is_mutable:
        held = {tensor.untyped_storage().data_ptr() for tensor in read}
        written = [t for t in written if t.untyped_storage().data_ptr() not in held]
        if not written and operation._schema.returns:
            return 0  # a view
    return sum(_size(tensor) for tensor in read + written)


def _size(tensor: Tensor) -> int:
    size = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        size *= length if stride != 0 or length == 0 else 1
    return size
