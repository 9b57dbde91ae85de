"""Errors of a potential on labelled frames."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eqpot import keys, units
from eqpot.data import Frame, collate, frame_to_graph
from eqpot.graph import Graph, graph_to
from eqpot.potential import Potential


@dataclass(frozen=True)
class Comparison:
    """Reference and prediction of one quantity, component by component.

    Attributes
    ----------
    reference, predicted
        Shape (n,): energies in eV/atom by frame, components of forces in eV/Å, or the six
        independent components of stresses in eV/Å³.
    config_types
        Kind of structure of each component, shape (n,).
    """

    reference: NDArray[np.float64]
    predicted: NDArray[np.float64]
    config_types: NDArray[np.str_]

    def errors(self, factor: float, unit: str) -> dict[str, Any]:
        """Return MAE, RMSE and largest error times ``factor``, their unit and the count."""
        difference = factor * np.abs(self.predicted - self.reference)
        return {
            "unit": unit,
            "mae": float(difference.mean()),
            "rmse": float(np.sqrt((difference**2).mean())),
            "max": float(difference.max()),
            "n": len(difference),
        }

    def of_type(self, config_type: str) -> "Comparison":
        """Return the part that belongs to one kind of structure."""
        chosen = self.config_types == config_type
        return Comparison(self.reference[chosen], self.predicted[chosen], self.config_types[chosen])


_SCALES = {
    keys.ENERGY: (1e3, "meV/atom"),
    keys.FORCES: (1e3, "meV/Å"),
    keys.STRESS: (1 / units.GPA, "GPa"),
}


@dataclass(frozen=True)
class Evaluation:
    """Errors on a set of frames; ``str()`` gives a line.

    Attributes
    ----------
    n_frames
        Frames evaluated.
    comparisons
        By label (``energy``, ``forces``, ``stress``); labels that no frame carries are left out.
    """

    n_frames: int
    comparisons: dict[str, Comparison]

    def as_dict(self) -> dict[str, Any]:
        """Return errors by label, and by kind of structure where there are several."""
        result: dict[str, Any] = {"n_frames": self.n_frames}
        for name, comparison in self.comparisons.items():
            scale = _SCALES[name]
            result[name] = comparison.errors(*scale)
            kinds = sorted(set(comparison.config_types.tolist()))
            if len(kinds) > 1:
                result[name]["by_config_type"] = {
                    kind or "(none)": comparison.of_type(kind).errors(*scale) for kind in kinds
                }
        return result

    def __str__(self) -> str:
        parts = []
        for name, comparison in self.comparisons.items():
            errors = comparison.errors(*_SCALES[name])
            parts.append(
                f"{name} RMSE {errors['rmse']:.4g}, MAE {errors['mae']:.4g} {errors['unit']}"
            )
        return f"{self.n_frames} frames; " + "; ".join(parts)


def evaluate(
    potential: Potential, frames: Sequence[Frame], *, atoms_per_batch: int = 1000
) -> Evaluation:
    """Return the errors of a potential on frames.

    Parameters
    ----------
    potential
        Evaluated on the device where it is.
    frames
        With at least one label among them.
    atoms_per_batch
        Frames are joined up to this number of atoms.

    Raises
    ------
    ValueError
        If there are no frames, none has a label, or one holds an element that the potential does
        not know (message with the source of the frame).
    """
    if not frames:
        raise ValueError("there are no frames to evaluate")
    for frame in frames:
        potential.check_elements(frame.atomic_numbers.tolist(), frame.source or "frame")
    columns: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.str_]]]] = {
        name: [] for name in _SCALES
    }
    device = next(potential.parameters()).device
    for batch in _batches(frames, atoms_per_batch):
        graph = collate([frame_to_graph(frame, potential.r_max) for frame in batch])
        outputs = potential(graph_to(graph, device))
        kinds = np.array([frame.config_type for frame in batch], dtype=np.str_)
        for name, column in columns.items():
            column.append(_compare(name, graph, outputs[name].cpu(), kinds))
    comparisons = {}
    for name, column in columns.items():
        reference, predicted, types = (np.concatenate(parts) for parts in zip(*column, strict=True))
        if len(reference) > 0:
            comparisons[name] = Comparison(reference, predicted, types)
    if not comparisons:
        raise ValueError("no frame carries `energy`, `forces` or `stress`: nothing to compare with")
    return Evaluation(len(frames), comparisons)


def _batches(frames: Sequence[Frame], atoms_per_batch: int) -> Iterable[list[Frame]]:
    batch: list[Frame] = []
    n_atoms = 0
    for frame in frames:
        if batch and n_atoms + len(frame) > atoms_per_batch:
            yield batch
            batch, n_atoms = [], 0
        batch.append(frame)
        n_atoms += len(frame)
    yield batch


def _compare(
    name: str, graph: Graph, predicted: torch.Tensor, kinds: NDArray[np.str_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.str_]]:
    """Return present references, their predictions and kinds, flat."""
    reference = graph[name].numpy()
    values = predicted.detach().to(torch.float64).numpy()
    batch = graph[keys.BATCH].numpy()
    if name == keys.ENERGY:
        n_atoms = np.bincount(batch, minlength=len(reference))
        reference, values = reference / n_atoms, values / n_atoms
        types = kinds
    elif name == keys.FORCES:
        types = np.repeat(kinds[batch], 3)
    else:
        rows, columns = np.triu_indices(3)
        reference, values = reference[:, rows, columns], values[:, rows, columns]
        types = np.repeat(kinds, 6)
    reference, values = reference.reshape(-1), values.reshape(-1)
    present = ~np.isnan(reference)
    return reference[present], values[present], types[present]
