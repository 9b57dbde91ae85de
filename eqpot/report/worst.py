"""The frames of the largest errors, with all that is needed to look at them."""

from typing import Any, Final

import numpy as np
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from ase.formula import Formula
from numpy.typing import NDArray

from eqpot import keys
from eqpot.elements import SYMBOLS
from eqpot.report.plain import plain, shorten
from eqpot.report.points import error_sizes
from eqpot.training.evaluation import Evaluation

MOST_ATOMS: Final = 300
"""Atoms of a frame that are shown: those nearest to that of the largest error."""


def worst_frames(name: str, evaluation: Evaluation, n_frames: int) -> list[dict[str, Any]]:
    """Return the frames of a set with the largest errors, by force and by energy.

    Parameters
    ----------
    name
        Of the set.
    evaluation
        Errors on it.
    n_frames
        Of each kind of error.
    """
    reasons: dict[int, list[str]] = {}
    for label in (keys.FORCES, keys.ENERGY):
        if label not in evaluation.comparisons:
            continue
        errors = np.nan_to_num(_errors_of_frames(evaluation, label), nan=np.inf)
        worst = np.argsort(-errors, kind="stable")[:n_frames]
        for index in worst[errors[worst] >= 0].tolist():
            reasons.setdefault(index, []).append(label)
    return [_describe(name, evaluation, index, why) for index, why in reasons.items()]


def _errors_of_frames(evaluation: Evaluation, label: str) -> NDArray[np.float64]:
    """Return the largest error of each frame; -1 where it does not carry the label."""
    comparison = evaluation.comparisons[label]
    errors = np.full(evaluation.n_frames, -1.0)
    if label == keys.FORCES:
        np.maximum.at(errors, comparison.frame_index[::3], error_sizes(comparison))
    else:
        errors[comparison.frame_index] = np.abs(comparison.predicted - comparison.reference)
    return errors


def _describe(name: str, evaluation: Evaluation, index: int, why: list[str]) -> dict[str, Any]:
    frame = evaluation.frames[index]
    n_atoms = len(frame)
    record: dict[str, Any] = {
        "set": plain(name),
        "frame": index,
        "source": shorten(frame.source or f"frame {index}", 160),
        "config_type": shorten(frame.config_type, 60),
        "formula": _formula(frame.atomic_numbers),
        "n_atoms": n_atoms,
        "worst_by": why,
        "energy": None,
        "forces": None,
    }
    energy = evaluation.comparisons.get(keys.ENERGY)
    if energy is not None and frame.energy is not None:
        row = int(np.flatnonzero(energy.frame_index == index)[0])
        difference = float(energy.predicted[row] - energy.reference[row])
        record["energy"] = {
            "reference": float(energy.reference[row]) * n_atoms,
            "predicted": float(energy.predicted[row]) * n_atoms,
            "error": 1e3 * difference,
        }
    reference = predicted = np.zeros((0, 3))
    center = frame.positions.mean(axis=0)
    forces = evaluation.comparisons.get(keys.FORCES)
    if forces is not None and frame.forces is not None:
        rows = np.flatnonzero(forces.frame_index == index)
        reference, predicted = (
            column[rows].reshape(-1, 3) for column in (forces.reference, forces.predicted)
        )
        sizes = np.linalg.norm(predicted - reference, axis=1)
        worst = int(sizes.argmax())
        center = frame.positions[worst]
        record["forces"] = {
            "rmse": 1e3 * float(np.sqrt(((predicted - reference) ** 2).mean())),
            "max": 1e3 * float(sizes[worst]),
            "atom": worst,
        }
    distances = np.linalg.norm(frame.positions - center, axis=1)
    shown = np.sort(np.argsort(distances, kind="stable")[:MOST_ATOMS])
    record["shown"] = shown.tolist() if len(shown) < n_atoms else None
    record["atomic_numbers"] = frame.atomic_numbers[shown].tolist()
    record["positions"] = frame.positions[shown].round(3).tolist()
    if len(reference):
        record["reference_forces"] = reference[shown].round(4).tolist()
        record["predicted_forces"] = predicted[shown].round(4).tolist()
    record["pbc"] = frame.pbc.tolist()
    record["cell"] = frame.cell.round(4).tolist() if frame.pbc.any() else None
    return record


def elements_of(frames: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return symbol, colour and covalent radius (Å) of the elements in frames, by their Z.

    The colours are those of Jmol, which chemists know.
    """
    numbers = sorted({z for frame in frames for z in frame["atomic_numbers"]})
    return {
        str(z): {
            "symbol": SYMBOLS[z],
            "color": (255 * jmol_colors[z]).round().astype(int).tolist(),
            "radius": float(covalent_radii[z]),
        }
        for z in numbers
    }


def _formula(numbers: NDArray[np.int64]) -> str:
    kinds, counts = np.unique(numbers, return_counts=True)
    parts = {SYMBOLS[z]: n for z, n in zip(kinds.tolist(), counts.tolist(), strict=True)}
    return str(Formula.from_dict(parts).format("hill"))
