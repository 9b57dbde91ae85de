"""What the plots of errors show: points of parity plots, and histograms of all errors."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eqpot import keys, units
from eqpot.elements import SYMBOLS
from eqpot.report.plain import plain, shorten, significant
from eqpot.training.evaluation import SCALES, Comparison, Evaluation

OTHERS: Final = "(others)"

_MOST_GROUPS = 12
_MOST_BINS = 61
_NAMED = 60  # points, those of the largest errors, whose frames are named
_AXES: Final = {
    keys.ENERGY: ("eV/atom", 1.0),
    keys.FORCES: ("eV/Å", 1.0),
    keys.STRESS: ("GPa", 1 / units.GPA),
}


@dataclass(frozen=True)
class Groups:
    """The elements and kinds of structure that have a colour, the commonest first.

    Attributes
    ----------
    elements, config_types
        Names; the last is :data:`OTHERS` where there are more than can be told apart.
    """

    elements: list[str]
    config_types: list[str]

    @staticmethod
    def of(evaluations: Mapping[str, Evaluation]) -> "Groups":
        """Return the groups of some sets together."""
        elements: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        for evaluation in evaluations.values():
            kinds.update(evaluation.config_types)
            for comparison in evaluation.comparisons.values():
                if comparison.atomic_numbers is not None:
                    numbers, counts = np.unique(comparison.atomic_numbers, return_counts=True)
                    for z, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                        elements[SYMBOLS[z]] += count
        return Groups(_commonest(elements), _commonest(kinds))

    def as_dict(self) -> dict[str, list[str]]:
        """Return the names, those without a name and long ones made readable."""
        return {
            "element": self.elements,
            "config_type": [shorten(name, 60) or "(none)" for name in self.config_types],
        }


def _commonest(counts: Counter[str]) -> list[str]:
    names = [name for name, _ in counts.most_common()]
    if len(names) <= _MOST_GROUPS:
        return names
    return [*names[: _MOST_GROUPS - 1], OTHERS]


def parity(
    name: str, evaluation: Evaluation, label: str, groups: Groups, n_points: int
) -> dict[str, Any]:
    """Return the parity plot of a label on a set, and the histogram of its errors.

    Of more components than ``n_points``, those of the largest errors are kept, a tenth of the
    points, and a random draw of the rest. The histogram counts all of them; what lies beyond its
    ends is counted in its outermost bins.

    Parameters
    ----------
    name
        Of the set.
    evaluation, label
        What to show.
    groups
        Of all sets, so that colours mean the same everywhere.
    n_points
        Most points.
    """
    found = evaluation.comparisons[label]
    comparison = found.select(np.isfinite(found.predicted))
    unit, factor = _AXES[label]
    error_factor, error_unit = SCALES[label]
    reference = factor * comparison.reference
    if comparison.isolated is not None:
        # total energies differ by thousands of eV between compositions; what binds does not
        reference = reference - factor * comparison.isolated
    errors = error_factor * (comparison.predicted - comparison.reference)
    of_type = _places(evaluation.config_types, groups.config_types)[comparison.frame_index]
    of_element = np.zeros(0, dtype=np.int64)
    if comparison.atomic_numbers is not None:
        of_element = _places(SYMBOLS, groups.elements)[comparison.atomic_numbers]
    chosen = _choose(np.abs(errors), n_points)
    named = comparison.frame_index[chosen[:_NAMED]].tolist()
    return {
        "set": plain(name),
        "label": label,
        "unit": unit,
        "error_unit": error_unit,
        "errors_per_unit": error_factor / factor,
        "n": len(found.predicted),
        "n_not_finite": len(found.predicted) - len(errors),
        "reference": significant(reference[chosen], 6),
        "error": significant(errors[chosen], 4),
        "element": of_element[chosen].tolist() if len(of_element) else None,
        "config_type": of_type[chosen].tolist(),
        "frame": comparison.frame_index[chosen].tolist(),
        "sources": [shorten(evaluation.frames[index].source, 120) for index in named],
        "histogram": _histogram(errors, of_element, of_type, groups),
    }


def _choose(sizes: NDArray[np.float64], n_points: int) -> NDArray[np.int64]:
    """Return places of points, the largest errors first."""
    if len(sizes) <= n_points:
        return np.argsort(-sizes, kind="stable")
    n_largest = n_points // 10
    order = np.argpartition(-sizes, n_largest)
    largest, rest = order[:n_largest], order[n_largest:]
    drawn = np.random.default_rng(0).choice(rest, n_points - n_largest, replace=False)
    chosen = np.concatenate([largest, drawn])
    return chosen[np.argsort(-sizes[chosen], kind="stable")]


def _places(names: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    """Return the place of each name among the known ones; the last, for others, if it is none."""
    place_of = {name: index for index, name in enumerate(known)}
    last = len(known) - 1
    return np.array([place_of.get(name, last) for name in names], dtype=np.int64)


def _histogram(
    errors: NDArray[np.float64],
    of_element: NDArray[np.int64],
    of_type: NDArray[np.int64],
    groups: Groups,
) -> dict[str, Any]:
    limit = float(np.quantile(np.abs(errors), 0.995)) if len(errors) else 1.0
    limit = limit or 1.0
    # odd, so that one bin is centred at zero; few errors make a comb of many bins
    n_bins = int(np.clip(2 * round(len(errors) ** 0.5) + 1, 11, _MOST_BINS))
    places = np.clip((errors / limit + 1) / 2 * n_bins, 0, n_bins - 1).astype(np.int64)

    def counts(group: NDArray[np.int64], n_groups: int) -> list[list[int]]:
        flat = np.bincount(group * n_bins + places, minlength=n_groups * n_bins)
        table: list[list[int]] = flat.reshape(n_groups, n_bins).tolist()
        return table

    by_element = counts(of_element, len(groups.elements)) if len(of_element) else None
    return {
        "limit": float(f"{limit:.4g}"),
        "all": np.bincount(places, minlength=n_bins).tolist(),
        "element": by_element,
        "config_type": counts(of_type, len(groups.config_types)),
    }


def error_sizes(comparison: Comparison) -> NDArray[np.float64]:
    """Return the length of the error of each force, shape (n_atoms,), eV/Å."""
    difference = (comparison.predicted - comparison.reference).reshape(-1, 3)
    lengths: NDArray[np.float64] = np.linalg.norm(difference, axis=1)
    return lengths
