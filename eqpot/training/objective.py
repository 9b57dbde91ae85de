"""The loss of a step, its gradient, and errors: sums over parts that fit memory, and processes."""

import gc
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor

from eqpot import keys
from eqpot.compilation import CompiledPotential
from eqpot.data import GraphDataset
from eqpot.graph import Graph, graph_to
from eqpot.potential import Potential
from eqpot.training.batches import Batch, make_batch
from eqpot.training.compiled import CompiledGradient
from eqpot.training.loss import (
    LABELS,
    LossSettings,
    LossWeights,
    combine,
    label_totals,
    loss_sums,
)
from eqpot.training.memory import is_out_of_memory
from eqpot.training.precision import PrecisionName, network_precision
from eqpot.training.progress import format_duration

Sums = dict[str, Tensor]
"""Numerators or denominators of the loss by label: float64 scalars on the CPU."""

T = TypeVar("T")


class Objective:
    """Computes the loss and its gradient.

    Parameters
    ----------
    settings
        How errors count.
    force_unit
        Unit of the loss: root mean square of the forces, eV/Å.
    precision
        Of the network while it learns; errors are computed in full precision.
    compiled
        Whether compiled code computes the gradient; it is compiled when the first is asked for.
    edge_budget
        Neighbours that are computed at once; ``None`` for any number. It is lowered when memory
        does not suffice.
    fabric
        Launched.
    note
        Told when the budget is lowered, and before code is compiled.
    """

    def __init__(
        self,
        settings: LossSettings,
        force_unit: float,
        precision: PrecisionName,
        compiled: bool,
        edge_budget: int | None,
        fabric: Fabric,
        note: Callable[[str, str], None],
    ) -> None:
        self.settings, self.force_unit, self.precision = settings, force_unit, precision
        self.compiled = compiled
        self._code: CompiledGradient | None = None
        self.edge_budget, self.fabric, self._note = edge_budget, fabric, note

    @property
    def share(self) -> tuple[int, int]:
        """Rank of this process and number of processes."""
        return self.fabric.global_rank, self.fabric.world_size

    def gradient(
        self,
        potential: Potential,
        dataset: GraphDataset,
        batch: Batch,
        totals: Sums,
        weights: LossWeights,
    ) -> Sums:
        """Set the gradient of this process' share of the loss, and return its numerators.

        Where memory does not suffice, the frames are packed into smaller parts, and that size is
        kept. The gradient is the same: it is a sum over frames.

        Parameters
        ----------
        potential
            Its parameters get the gradient.
        dataset
            That the batch is of.
        batch
            This process' share.
        totals
            Denominators of the whole step.
        weights
            Of the terms.

        Raises
        ------
        CompilationError
            If the code cannot be compiled.
        MemoryError
            If one frame alone does not fit; names it.
        """
        computing = self._compiled(potential) if self.compiled else potential

        def compute(parts: Sequence[Graph]) -> Sums:
            potential.zero_grad(set_to_none=True)
            learning = [weight for weight in potential.parameters() if weight.requires_grad]
            sums = []
            for part in parts:
                graph = graph_to(part, self.fabric.device)
                with network_precision(potential, self.precision):
                    outputs = computing(graph, training=True)
                    part_sums = loss_sums(outputs, graph, self.force_unit, self.settings)
                    loss = combine(part_sums, totals, weights)
                    # not to the edge vectors, which require a gradient too, for the forces
                    loss.backward(inputs=learning)
                sums.append({name: value.detach() for name, value in part_sums.items()})
            return added(sums)

        return self._in_parts(compute, dataset, batch)

    def _compiled(self, potential: Potential) -> CompiledPotential:
        if self._code is None:
            self._note("compiling", "code for the steps: two to four minutes, less the next time")
            started = time.monotonic()
            self._code = CompiledGradient(potential)
            duration = format_duration(time.monotonic() - started)
            self._note("compiled", f"in {duration}; the gradient agrees with the plain one")
        return self._code.bound_to(potential)

    def _in_parts(
        self, compute: Callable[[Sequence[Graph]], T], dataset: GraphDataset, batch: Batch
    ) -> T:
        """Return what is computed of the parts of a batch, in smaller ones if memory ends."""
        while True:
            try:
                return compute(batch.parts)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # here the error, which holds all tensors of the parts, is gone
            gc.collect()
            if self.fabric.device.type == "cuda":
                torch.cuda.empty_cache()
            self._lower_budget(dataset, batch)
            batch = make_batch(dataset, batch.frames, self.edge_budget)

    def _lower_budget(self, dataset: GraphDataset, batch: Batch) -> None:
        sizes = [part[keys.EDGE_INDEX].shape[1] for part in batch.parts]
        divisible = [s for s, group in zip(sizes, batch.groups, strict=True) if len(group) > 1]
        if not divisible:
            (index,) = batch.groups[sizes.index(max(sizes))]
            raise MemoryError(
                f"{dataset.frames[index].source}: the frame alone, with {max(sizes)} neighbours, "
                "does not fit into memory; take it out, or choose a smaller `model.r_max` or preset"
            )
        self.edge_budget = max(1, max(divisible) // 2)
        self._note(
            "memory",
            f"memory did not suffice for {max(divisible)} neighbours at once; from here on at most "
            f"{self.edge_budget} are computed together, with the same gradient",
        )

    def share_budget(self) -> None:
        """Take the smallest budget of all processes."""
        own = math.inf if self.edge_budget is None else float(self.edge_budget)
        smallest = float(self.reduced(torch.tensor(own, dtype=torch.float64), "min"))
        self.edge_budget = None if math.isinf(smallest) else int(smallest)

    def sum_gradients(self, potential: Potential) -> None:
        """Sum the gradients over the processes; each has that of its share of the loss."""
        if self.fabric.world_size == 1:
            return
        parameters = [p for p in potential.parameters() if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self.reduced(torch.cat([gradient.reshape(-1) for gradient in gradients]), "sum")
        pieces = flat.split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)

    def reduced(self, values: Tensor, operation: str) -> Tensor:
        """Return values reduced over the processes."""
        if self.fabric.world_size == 1:
            return values
        reduced = self.fabric.all_reduce(values.to(self.fabric.device), reduce_op=operation)
        assert isinstance(reduced, Tensor)
        return reduced

    def summed(self, *values: Sums) -> tuple[Sums, ...]:
        """Return numerators or denominators summed over the processes."""
        if self.fabric.world_size == 1:
            return values
        rows = torch.stack([torch.stack([entry[name] for name in LABELS]) for entry in values])
        rows = self.reduced(rows, "sum").cpu()
        return tuple(dict(zip(LABELS, row.unbind(), strict=True)) for row in rows)

    def sums_of_nothing(self, batch: Batch) -> Sums:
        """Return the numerators of the loss of energies, forces and stresses of zero."""
        parts = []
        for part in batch.parts:
            zeros = {name: torch.zeros_like(part[name]) for name in LABELS}
            parts.append(loss_sums(zeros, part, self.force_unit, self.settings))
        return added(parts)

    def rmse(
        self,
        potential: Potential,
        dataset: GraphDataset,
        frames_at_once: int,
        between: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """Return root mean square errors in eV/atom, eV/Å, eV/atom.

        Every frame and every atom weighs the same. Without labels an error is NaN; if predictions
        are no numbers, it is infinite.

        Parameters
        ----------
        potential
            Predicts.
        dataset
            Has the labels.
        frames_at_once
            Frames of a batch.
        between
            Called between batches; may raise.
        """

        def squares(parts: Sequence[Graph]) -> tuple[Sums, Sums]:
            sums, totals = [], []
            for part in parts:
                graph = graph_to(part, self.fabric.device)
                for name in (keys.WEIGHT, keys.ATOM_WEIGHT):
                    graph[name] = torch.ones_like(graph[name])
                sums.append(loss_sums(potential(graph), graph, 1.0, LossSettings()))
                totals.append(label_totals(graph))
            return added(sums), added(totals)

        rank, n_ranks = self.share
        own = range(len(dataset))[rank::n_ranks]
        found = []
        for start in range(0, len(own), frames_at_once):
            frames = own[start : start + frames_at_once]
            batch = make_batch(dataset, frames, self.edge_budget)
            found.append(self._in_parts(squares, dataset, batch))
            between()
        sums, totals = self.summed(added(s for s, _ in found), added(t for _, t in found))
        errors = {name: math.sqrt(float(sums[name] / totals[name])) for name in LABELS}
        lost = [name for name in LABELS if math.isnan(errors[name]) and totals[name] > 0]
        return errors | dict.fromkeys(lost, math.inf)


def added(parts: Iterable[dict[str, Tensor]]) -> Sums:
    """Return sums by label."""
    total = {name: torch.zeros((), dtype=torch.float64) for name in LABELS}
    for part in parts:
        total = {name: total[name] + part[name].to(total[name]) for name in LABELS}
    return total
