"""The head of a report: a few sentences and lights that say whether the potential can be used."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from eqpot import keys
from eqpot.training.evaluation import SCALES, Evaluation
from eqpot.verification import Check, Status
from eqpot.words import counted, figures

GOOD_ERROR: Final = 0.1
"""RMSE of the forces over their rms up to which they are fit for dynamics, by common experience."""
FAIR_ERROR: Final = 0.25
GOOD_GAP: Final = 2.0
"""Errors on new frames over those on training frames that are no sign of learning by heart."""
FAIR_GAP: Final = 4.0

_LABELS: Final = (keys.FORCES, keys.ENERGY, keys.STRESS)
"""Labels by how much they tell of the accuracy."""
_SMALL: Final = 0.1
_SHORT: Final = {"train": "training", "validation": "validation"}


def held_out(evaluations: Mapping[str, Evaluation]) -> str:
    """Return the name of the held-out set that is predicted worst; the training set without any.

    Sets with less than a tenth of the labels of the largest are too small to judge by.
    """
    others = [name for name in evaluations if name != "train"]
    if not others:
        if "train" in evaluations:
            return "train"
        raise ValueError("there are no evaluations to report")
    # tests before the validation set, by which the weights were chosen
    others.sort(key=lambda name: name in _SHORT)
    labels = {name: accuracy_label(evaluations[name]) for name in others}
    # forces tell most, so a set without them is judged only where none has any
    best = min(labels.values(), key=_LABELS.index)
    sizes = {
        name: evaluations[name].comparisons[best].reference.size
        for name in others
        if labels[name] == best
    }
    large = [name for name, size in sizes.items() if size >= _SMALL * max(sizes.values())]
    return max(large, key=lambda name: relative_error(evaluations[name], best) or 0.0)


def accuracy_label(evaluation: Evaluation) -> str:
    """Return the label that tells most of the accuracy: forces where there are any."""
    for label in _LABELS:
        if label in evaluation.comparisons:
            return label
    raise ValueError("an evaluation compares nothing")


def relative_error(evaluation: Evaluation, label: str) -> float | None:
    """Return the RMSE over the spread of the reference, ``None`` where it does not spread.

    Forces and stress spread around zero, energies less their E0s around their mean.
    """
    comparison = evaluation.comparisons[label]
    values = comparison.reference
    if comparison.isolated is not None:
        values = values - comparison.isolated
        values = values - values.mean()
    spread = float(np.sqrt((values**2).mean()))
    rmse = float(np.sqrt(((comparison.predicted - comparison.reference) ** 2).mean()))
    return rmse / spread if spread > 1e-12 else None


def judge_accuracy(evaluations: Mapping[str, Evaluation]) -> Check:
    """Return whether the errors on held-out frames are small beside what is predicted."""
    name = held_out(evaluations)
    evaluation = evaluations[name]
    label = accuracy_label(evaluation)
    ratio = relative_error(evaluation, label)
    factor, unit = SCALES[label]
    rmse = evaluation.comparisons[label].errors(factor, unit)["rmse"]
    what = {keys.FORCES: "Forces", keys.ENERGY: "Energies", keys.STRESS: "Stresses"}[label]
    text = f"{what} on {name_of_set(name)} are wrong by {figures(rmse)} {unit} (RMSE)"
    if ratio is None:
        return Check("accuracy", Status.UNKNOWN, f"{text}; their references do not vary.")
    grade = _grade(ratio, GOOD_ERROR, FAIR_ERROR)
    text += (
        f", {figures(100 * ratio, 2)} % of their spread (good up to {100 * GOOD_ERROR:.0f} %, fair "
        f"up to {100 * FAIR_ERROR:.0f} %)."
    )
    # forces may be good while energies have not converged yet
    has_both = label != keys.ENERGY and keys.ENERGY in evaluation.comparisons
    of_energy = relative_error(evaluation, keys.ENERGY) if has_both else None
    if of_energy is not None and of_energy > 1.0:
        grade = Status.BAD
        text += (
            f" Energies are wrong by {figures(100 * of_energy, 2)} % of their spread: they have "
            "not converged; train longer."
        )
    return Check("accuracy", grade, text)


def judge_generalization(evaluations: Mapping[str, Evaluation]) -> Check:
    """Return whether frames that were not trained on are predicted about as well as those."""
    name = "generalisation"
    others = [set_name for set_name in evaluations if set_name != "train"]
    if "train" not in evaluations or not others:
        return Check(name, Status.UNKNOWN, "There are no frames besides those of the training.")
    label = accuracy_label(evaluations["train"])
    ratios = {}
    for set_name in others:
        if label in evaluations[set_name].comparisons:
            ratios[set_name] = _rmse(evaluations[set_name], label) / max(
                _rmse(evaluations["train"], label), 1e-12
            )
    if not ratios:
        return Check(name, Status.UNKNOWN, f"No other set carries {label}.")
    worst = max(ratios, key=lambda set_name: ratios[set_name])
    grade = _grade(ratios[worst], GOOD_GAP, FAIR_GAP)
    text = (
        f"Errors of {label} on {name_of_set(worst)} are {figures(ratios[worst])} times those on "
        f"the training frames (good up to {GOOD_GAP:g}, fair up to {FAIR_GAP:g})."
    )
    if grade != Status.GOOD:
        text += " In use, expect the former; more training frames bring the two together."
    return Check(name, grade, text)


def judge_audit(audit: Mapping[str, Any] | None) -> Check:
    """Return the verdict of the audit of the data."""
    if audit is None:
        return Check("data", Status.UNKNOWN, "The data were not audited.")
    severities = [finding.get("severity") for finding in audit.get("findings", [])]
    n_errors, n_warnings = severities.count("error"), severities.count("warning")
    status = Status.BAD if n_errors else Status.WARNING if n_warnings else Status.GOOD
    return Check(
        "data",
        status,
        f"The audit of the data found {counted(n_errors, 'error')} and "
        f"{counted(n_warnings, 'warning')}.",
    )


def judge_training(events: Iterable[Mapping[str, Any]]) -> Check:
    """Return whether the training went through without trouble."""
    kinds = [str(event.get("kind", "")) for event in events]
    n_rollbacks = kinds.count("rollback")
    n_excluded = kinds.count("frame_excluded")
    troubles = []
    if n_rollbacks or n_excluded:
        troubles.append(
            f"The training went back to an earlier state {counted(n_rollbacks, 'time')} and left "
            f"out {counted(n_excluded, 'frame')}; see its events."
        )
    if "no_export" in kinds:
        troubles.append("There is no TorchScript export of the potential; its events say why.")
    if troubles:
        return Check("training", Status.WARNING, " ".join(troubles))
    return Check("training", Status.GOOD, "The training went through without a setback.")


def headline(
    elements: Iterable[str], evaluations: Mapping[str, Evaluation], model: str
) -> list[str]:
    """Return a few sentences: what the potential is for, and how good."""
    symbols = list(elements)
    listed = symbols[0] if len(symbols) == 1 else f"{', '.join(symbols[:-1])} and {symbols[-1]}"
    n_train = evaluations["train"].n_frames if "train" in evaluations else 0
    sentences = [
        f"An interatomic potential for {listed}: {model}, trained on {counted(n_train, 'frame')}."
    ]
    name = held_out(evaluations)
    evaluation = evaluations[name]
    parts = []
    for label, comparison in evaluation.comparisons.items():
        factor, unit = SCALES[label]
        parts.append(f"{label} {figures(comparison.errors(factor, unit)['rmse'])} {unit}")
    typical = ""
    if keys.FORCES in evaluation.comparisons:
        reference = evaluation.comparisons[keys.FORCES].reference
        rms = 1e3 * float(np.sqrt((reference**2).mean()))
        typical = f"; a typical force component there is {figures(rms)} meV/Å"
    sentences.append(
        f"Root mean square errors on {name_of_set(name)} "
        f"({counted(evaluation.n_frames, 'frame')}): {', '.join(parts)}{typical}."
    )
    return sentences


def name_of_set(name: str) -> str:
    """Return a set's name as it is said in a sentence."""
    if name in _SHORT:
        return f"the {_SHORT[name]} set"
    return f"the test set {Path(name).name}"


def _rmse(evaluation: Evaluation, label: str) -> float:
    comparison = evaluation.comparisons[label]
    return float(np.sqrt(((comparison.predicted - comparison.reference) ** 2).mean()))


def _grade(value: float, good: float, fair: float) -> Status:
    if value <= good:
        return Status.GOOD
    return Status.WARNING if value <= fair else Status.BAD
