"""The loss: errors of energy, forces and stress, each relative to its natural size.

The loss of a batch is a weighted mean over its labels. It is kept as numerators and denominators,
:func:`loss_sums` and :func:`label_totals`, both additive over parts of the batch: micro-batches and
processes sum them, and a batch has one loss however it is split.
"""

from dataclasses import dataclass
from typing import Annotated, Dict, Final, Literal

import torch
from pydantic import Field
from torch import Tensor

from eqpot import keys
from eqpot.graph import Graph
from eqpot.training.section import Section

LABELS: Final = (keys.ENERGY, keys.FORCES, keys.STRESS)
"""Labels that enter the loss, in the order in which their terms are added."""

# upper ends of the regimes of a reference force, eV/Å, and the factors on delta within them
_REGIMES: Final = ((100.0, 1.0), (200.0, 0.7), (300.0, 0.4), (float("inf"), 0.1))


class LossSettings(Section):
    """How an error counts."""

    energy: Literal["mse", "mae", "huber"] = "mse"
    """Energies per atom: mean squared, mean absolute, or Huber error."""
    forces: Literal["mse", "mae", "huber", "conditioned", "l2"] = "mse"
    """Forces: also conditioned, a Huber error whose delta falls where the reference force is large,
    and l2, the mean length of the error vector."""
    stress: Literal["mse", "mae", "huber"] = "mse"
    """Stresses, as virials per atom."""
    energy_delta: Annotated[float, Field(gt=0)] = 0.01
    """Error up to which a Huber loss of energies is quadratic, eV/atom."""
    forces_delta: Annotated[float, Field(gt=0)] = 0.01
    """The same for forces, eV/Å."""
    stress_delta: Annotated[float, Field(gt=0)] = 0.01
    """The same for virials per atom, eV/atom."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the loss.

    Attributes
    ----------
    energy, forces, stress
        Weights; zero leaves a term out.
    """

    energy: float
    forces: float
    stress: float


def label_totals(graph: Graph) -> Dict[str, Tensor]:
    """Return the denominators of the loss: the sum of the weights of the labels that are present.

    Each component of a label counts. Only labels are read, so that the denominators of a whole
    batch are known before the first of its parts is computed.

    Parameters
    ----------
    graph
        ``energy``, ``forces``, ``stress`` (NaN where absent), ``batch``, and the weights of frames
        and atoms.

    Returns
    -------
    dict
        By label: scalars, float64; zero where no frame carries the label.
    """
    totals = {}
    for name in LABELS:
        label = graph[name]
        weight = _weight(graph, name).to(torch.float64)
        totals[name] = (_column(weight, label) * ~torch.isnan(label)).sum()
    return totals


def loss_sums(
    outputs: Dict[str, Tensor], graph: Graph, force_unit: float, settings: LossSettings
) -> Dict[str, Tensor]:
    r"""Return the numerators of the loss: weighted sums of the errors of the present labels.

    The error :math:`x` of a component is that of

    .. math:: E / n, \qquad F, \qquad V \sigma / n

    in units of ``force_unit`` (times 1 Å for energies and virials), so that all are dimensionless
    and of comparable size for any level of theory. It counts as

    .. math::
        x^2, \qquad |x|, \qquad
        h_\delta(x) = \begin{cases} x^2 / 2 & |x| \le \delta \\
                      \delta (|x| - \delta / 2) & \text{else} \end{cases}

    ("mse", "mae", "huber"). For forces, "conditioned" multiplies δ by 1, 0.7, 0.4 and 0.1 where the
    length of the reference force is below 100, 200, 300 eV/Å, and above: the forces of atoms that
    nearly collide are learned with less zeal. "l2" counts the length of the error of an atom's
    force, which unlike "mae" does not depend on the orientation of the frame.

    Parameters
    ----------
    outputs
        ``energy``, ``forces``, ``stress`` of the potential.
    graph
        As in :func:`label_totals`, with ``cell``.
    force_unit
        Root mean square of the forces of the training data, eV/Å.
    settings
        Kind of loss of each label, and δ.

    Returns
    -------
    dict
        By label: scalars; zero, with a gradient of zero, where no frame carries the label.

    References
    ----------
    P. J. Huber, Ann. Math. Statist. 35, 73 (1964). The conditioned loss: Batatia et al., A
    foundation model for atomistic materials chemistry, arXiv:2401.00096, training of MACE-MP-0;
    the regimes are those of ``conditional_huber_forces`` in mace 0.3.16, ``mace/modules/loss.py``.
    "l2": Chanussot et al., ACS Catal. 11, 6059 (2021).
    """
    weight = graph[keys.WEIGHT]
    n_atoms = torch.bincount(graph[keys.BATCH], minlength=len(weight)).to(weight.dtype)
    volume = torch.linalg.det(graph[keys.CELL]).abs()
    sizes = {
        keys.ENERGY: n_atoms * force_unit,
        keys.FORCES: torch.full_like(graph[keys.BATCH], force_unit, dtype=weight.dtype),
        keys.STRESS: n_atoms * force_unit / volume.clamp(min=1e-12),
    }
    kinds = {
        keys.ENERGY: (settings.energy, settings.energy_delta),
        keys.FORCES: (settings.forces, settings.forces_delta),
        keys.STRESS: (settings.stress, settings.stress_delta),
    }
    sums = {}
    for name in LABELS:
        label = graph[name]
        present = ~torch.isnan(label)
        # the mask comes before anything nonlinear: a gradient of zero times NaN would be NaN
        difference = torch.where(present, outputs[name] - label, 0.0)
        kind, delta = kinds[name]
        errors = _errors(difference / _column(sizes[name], label), label, kind, delta / force_unit)
        sums[name] = torch.where(present, _column(_weight(graph, name), label) * errors, 0.0).sum()
    return sums


def combine(sums: Dict[str, Tensor], totals: Dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Return the loss, or the part of it that a part of the batch adds.

    Parameters
    ----------
    sums
        :func:`loss_sums` of the batch or of a part.
    totals
        :func:`label_totals` of the whole batch, summed over its parts in all processes.
    weights
        Weights of the terms.

    Notes
    -----
    The loss of the batch is the sum over its parts in all processes, and so is its gradient.
    """
    terms = {name: sums[name] / totals[name].clamp(min=1e-30) for name in LABELS}
    return (
        weights.energy * terms[keys.ENERGY]
        + weights.forces * terms[keys.FORCES]
        + weights.stress * terms[keys.STRESS]
    )


def _errors(difference: Tensor, label: Tensor, kind: str, delta: float) -> Tensor:
    """Return what each component adds; differences and delta in the unit of the loss."""
    if kind == "mse":
        return difference.square()
    if kind == "mae":
        return difference.abs()
    if kind == "l2":
        # each component carries the length, so that the mean over components is that over atoms
        size: Tensor = torch.linalg.vector_norm(difference, dim=1, keepdim=True)
        return size.expand_as(difference)
    deltas = torch.full_like(difference, delta)
    if kind == "conditioned":
        length = torch.linalg.vector_norm(label.nan_to_num(nan=0.0), dim=1, keepdim=True)
        ends, factors = (difference.new_tensor(column) for column in zip(*_REGIMES, strict=True))
        deltas = deltas * factors[torch.bucketize(length, ends, right=True)]
    size = difference.abs()
    return torch.where(size <= deltas, 0.5 * size.square(), deltas * (size - 0.5 * deltas))


def _weight(graph: Graph, name: str) -> Tensor:
    """Return the weight of each frame, or for forces of each atom."""
    weight = graph[keys.WEIGHT]
    if name != keys.FORCES:
        return weight
    weight = weight[graph[keys.BATCH]]
    return weight * graph[keys.ATOM_WEIGHT]


def _column(values: Tensor, label: Tensor) -> Tensor:
    """Return values of frames or atoms in a shape that spreads over the components of a label."""
    return values.view((-1,) + (1,) * (label.dim() - 1))
