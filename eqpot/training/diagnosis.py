"""Which frames of a step are to blame: each is computed alone."""

from collections.abc import Iterable

import torch

from eqpot import keys
from eqpot.data import GraphDataset
from eqpot.potential import Potential
from eqpot.training.batches import make_batch
from eqpot.training.loss import LossWeights, combine, label_totals
from eqpot.training.objective import Objective
from eqpot.training.rescue import FrameErrors


def frame_errors(
    objective: Objective,
    potential: Potential,
    dataset: GraphDataset,
    frames: Iterable[int],
    weights: LossWeights,
) -> dict[int, FrameErrors]:
    """Return the errors of each frame alone.

    Parameters
    ----------
    objective
        Computes the loss.
    potential
        Its gradients are overwritten: give a copy.
    dataset
        Graphs of the frames.
    frames
        Indices.
    weights
        Of the loss.
    """
    found = {}
    for index in frames:
        batch = make_batch(dataset, [index], None)
        totals = label_totals(batch.parts[0])
        sums = objective.gradient(potential, dataset, batch, totals, weights)
        nothing = objective.sums_of_nothing(batch)
        gradients = [p.grad for p in potential.parameters() if p.grad is not None]
        found[index] = FrameErrors(
            float(combine(sums, totals, weights)),
            float(torch.nn.utils.get_total_norm(gradients)),
            float(sums[keys.FORCES] / totals[keys.FORCES]),
            float(nothing[keys.FORCES] / totals[keys.FORCES]),
        )
    return found
