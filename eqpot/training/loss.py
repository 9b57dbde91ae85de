"""The loss: errors of energy, forces and stress, each relative to its natural size."""

from dataclasses import dataclass
from typing import Dict

import torch
from torch import Tensor

from eqpot import keys
from eqpot.graph import Graph


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of :func:`loss_terms`.

    Attributes
    ----------
    energy, forces, stress
        Weights; zero leaves a term out.
    """

    energy: float
    forces: float
    stress: float


def loss_terms(outputs: Dict[str, Tensor], graph: Graph, force_unit: float) -> Dict[str, Tensor]:
    r"""Return the mean squared errors of the labels that are present.

    .. math::
        L_E = \langle (\Delta E / n)^2 \rangle, \quad
        L_F = \langle \Delta F^2 \rangle, \quad
        L_\sigma = \langle (V \Delta\sigma / n)^2 \rangle

    in units of ``force_unit`` (times 1 Å for energies and virials), so that all are dimensionless
    and of comparable size for any level of theory. Means are over the present labels, weighted by
    frame; a label that is NaN is absent.

    Parameters
    ----------
    outputs
        ``energy``, ``forces``, ``stress`` of the potential.
    graph
        The same names as labels; ``cell``, ``batch`` and ``weight``.
    force_unit
        Root mean square of the forces of the training data, eV/Å.

    Returns
    -------
    dict
        ``energy``, ``forces``, ``stress``: scalars; zero where no frame carries the label.
    """
    batch = graph[keys.BATCH]
    weight = graph[keys.WEIGHT]
    n_graphs = len(weight)
    n_atoms = torch.bincount(batch, minlength=n_graphs).to(weight.dtype)
    volume = torch.linalg.det(graph[keys.CELL]).abs()
    sizes = {
        keys.ENERGY: (n_atoms * force_unit, weight),
        keys.FORCES: (torch.full_like(batch, force_unit, dtype=weight.dtype), weight[batch]),
        keys.STRESS: (n_atoms * force_unit / volume.clamp(min=1e-12), weight),
    }
    terms = {}
    for name, (size, frame_weight) in sizes.items():
        label = graph[name]
        shape = (-1,) + (1,) * (label.dim() - 1)
        present = ~torch.isnan(label)
        # zero, not NaN, goes into the difference: NaN times a mask would still be NaN
        difference = outputs[name] - torch.where(present, label, 0.0)
        squares = frame_weight.view(shape) * (difference / size.view(shape)).square()
        total = (frame_weight.view(shape) * present).sum()
        terms[name] = torch.where(present, squares, 0.0).sum() / total.clamp(min=1e-30)
    return terms


def total_loss(terms: Dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Return the weighted sum of the terms."""
    return (
        weights.energy * terms[keys.ENERGY]
        + weights.forces * terms[keys.FORCES]
        + weights.stress * terms[keys.STRESS]
    )
