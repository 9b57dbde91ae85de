"""Errors of a potential on labelled frames."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from eqpot import keys, units
from eqpot.data import Frame, collate, frame_to_graph
from eqpot.elements import SYMBOLS
from eqpot.graph import Graph, graph_to
from eqpot.potential import Potential
from eqpot.words import counted


@dataclass(frozen=True)
class Comparison:
    """Reference and prediction of one quantity, component by component.

    Attributes
    ----------
    reference, predicted
        Shape (n,): energies in eV/atom by frame, components of forces in eV/Å (x, y, z of an atom
        follow each other), or the six independent components of stresses in eV/Å³.
    frame_index
        Place of the frame of each component in :attr:`Evaluation.frames`, shape (n,).
    atomic_numbers
        Z of the atom of each component, shape (n,); of forces only.
    isolated
        Energy of the isolated atoms (E0s) of each frame, eV/atom, shape (n,); of energies only.
    """

    reference: NDArray[np.float64]
    predicted: NDArray[np.float64]
    frame_index: NDArray[np.integer[Any]]
    atomic_numbers: NDArray[np.integer[Any]] | None = None
    isolated: NDArray[np.float64] | None = None

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

    def errors_by(
        self, group: NDArray[np.int64], names: Sequence[str], factor: float, unit: str
    ) -> dict[str, dict[str, Any]]:
        """Return :meth:`errors` of each group that has a component.

        Parameters
        ----------
        group
            Place in ``names`` of the group of each component, shape (n,).
        """
        difference = factor * np.abs(self.predicted - self.reference)
        counts = np.bincount(group, minlength=len(names))
        sums = np.bincount(group, difference, minlength=len(names))
        squares = np.bincount(group, difference**2, minlength=len(names))
        largest = np.zeros(len(names))
        np.maximum.at(largest, group, difference)
        return {
            name: {
                "unit": unit,
                "mae": float(sums[index] / n),
                "rmse": float(np.sqrt(squares[index] / n)),
                "max": float(largest[index]),
                "n": n,
            }
            for index, (name, n) in enumerate(zip(names, counts.tolist(), strict=True))
            if n > 0
        }

    def select(self, chosen: NDArray[np.bool_]) -> "Comparison":
        """Return a part: the components where ``chosen``, shape (n,), is true."""
        return Comparison(
            self.reference[chosen],
            self.predicted[chosen],
            self.frame_index[chosen],
            self.atomic_numbers[chosen] if self.atomic_numbers is not None else None,
            self.isolated[chosen] if self.isolated is not None else None,
        )


SCALES: Final = {
    keys.ENERGY: (1e3, "meV/atom"),
    keys.FORCES: (1e3, "meV/Å"),
    keys.STRESS: (1 / units.GPA, "GPa"),
}
"""Of each label: the factor from its unit in a comparison to that of its errors, and the latter."""


@dataclass(frozen=True)
class Evaluation:
    """Errors on a set of frames; ``str()`` gives a line.

    Attributes
    ----------
    frames
        What was evaluated.
    config_types
        Kind of structure of each frame.
    comparisons
        By label (``energy``, ``forces``, ``stress``); labels that no frame carries are left out.
    """

    frames: Sequence[Frame]
    config_types: Sequence[str]
    comparisons: dict[str, Comparison]

    @property
    def n_frames(self) -> int:
        """Frames evaluated."""
        return len(self.frames)

    def as_dict(self) -> dict[str, Any]:
        """Return errors by label; where there are several, by kind of structure and by element."""
        result: dict[str, Any] = {"n_frames": self.n_frames}
        kinds = sorted(set(self.config_types))
        place = {kind: index for index, kind in enumerate(kinds)}
        kind_of_frame = np.array([place[kind] for kind in self.config_types], dtype=np.int64)
        names = [kind or "(none)" for kind in kinds]
        for name, comparison in self.comparisons.items():
            scale = SCALES[name]
            result[name] = comparison.errors(*scale)
            of_row = kind_of_frame[comparison.frame_index]
            groups = {"by_config_type": comparison.errors_by(of_row, names, *scale)}
            if comparison.atomic_numbers is not None:
                elements, of_row = np.unique(comparison.atomic_numbers, return_inverse=True)
                symbols = [SYMBOLS[z] for z in elements.tolist()]
                groups["by_element"] = comparison.errors_by(of_row, symbols, *scale)
            result[name] |= {key: errors for key, errors in groups.items() if len(errors) > 1}
        return result

    def __str__(self) -> str:
        parts = []
        for name, comparison in self.comparisons.items():
            errors = comparison.errors(*SCALES[name])
            parts.append(
                f"{name} RMSE {errors['rmse']:.4g}, MAE {errors['mae']:.4g} {errors['unit']}"
            )
        return counted(self.n_frames, "frame") + "; " + "; ".join(parts)


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
    columns: dict[str, list[Comparison]] = {name: [] for name in SCALES}
    config_types: list[str] = []
    device = next(potential.parameters()).device
    isolated = dict(zip(potential.atomic_numbers, potential.reference_energies, strict=True))
    for batch in _batches(frames, atoms_per_batch):
        graph = collate([frame_to_graph(frame, potential.r_max) for frame in batch])
        outputs = potential(graph_to(graph, device))
        for name, column in columns.items():
            column.append(_compare(name, graph, outputs[name].cpu(), len(config_types), isolated))
        config_types += [sys.intern(frame.config_type) for frame in batch]
    comparisons = {name: _join(column) for name, column in columns.items()}
    comparisons = {name: joined for name, joined in comparisons.items() if len(joined.reference)}
    if not comparisons:
        raise ValueError("no frame carries `energy`, `forces` or `stress`: nothing to compare with")
    return Evaluation(frames, config_types, comparisons)


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
    name: str,
    graph: Graph,
    predicted: torch.Tensor,
    first_frame: int,
    isolated: Mapping[int, float],
) -> Comparison:
    """Return what the frames of a batch carry of a label, and its predictions."""
    reference = graph[name].numpy()
    values = predicted.detach().to(torch.float64).numpy()
    batch = graph[keys.BATCH].numpy()
    numbers = graph[keys.ATOMIC_NUMBERS].numpy()
    n_frames = len(graph[keys.ENERGY])
    elements = baseline = None
    # a row for each component of every frame: narrow types keep large sets in memory
    frame_index = first_frame + np.arange(n_frames, dtype=np.int32)
    if name == keys.ENERGY:
        n_atoms = np.bincount(batch, minlength=n_frames)
        reference, values = reference / n_atoms, values / n_atoms
        e0 = np.array([isolated[z] for z in numbers.tolist()])
        baseline = np.bincount(batch, e0, minlength=n_frames) / n_atoms
    elif name == keys.FORCES:
        frame_index, elements = (
            np.repeat(frame_index[batch], 3),
            np.repeat(numbers.astype(np.int16), 3),
        )
    else:
        rows, columns = np.triu_indices(3)
        reference, values = reference[:, rows, columns], values[:, rows, columns]
        frame_index = np.repeat(frame_index, 6)
    reference, values = reference.reshape(-1), values.reshape(-1)
    comparison = Comparison(reference, values, frame_index, elements, baseline)
    return comparison.select(~np.isnan(reference))


def _join(parts: Sequence[Comparison]) -> Comparison:
    def column(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    return Comparison(*(column(field.name) for field in fields(Comparison)))
