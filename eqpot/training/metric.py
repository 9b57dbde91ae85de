"""The number that judges a validation: lower is better."""

import math
from typing import Literal

from eqpot.training.loss import LossWeights

MetricName = Literal["loss", "energy", "forces", "stress"]
"""What judges: one of the errors, or all, weighted as the loss weighs them at the end of the run.
"""


def validation_metric(
    name: MetricName,
    energy_rmse: float,
    forces_rmse: float,
    virial_rmse: float,
    force_unit: float,
    weights: LossWeights,
) -> float:
    r"""Return the metric of a validation.

    "loss" is :math:`w_E e_E^2 + w_F e_F^2 + w_\sigma e_\sigma^2`, of squared errors in the unit of
    the loss, over the labels that the validation frames carry.

    Parameters
    ----------
    name
        What judges.
    energy_rmse, forces_rmse, virial_rmse
        Errors in eV/atom, eV/Å, eV/atom; NaN without labels.
    force_unit
        Root mean square of the forces of the training data, eV/Å.
    weights
        Of the last step. Those of the present one would make early validations seem better, where
        energies count little.
    """
    errors = {"energy": energy_rmse, "forces": forces_rmse, "stress": virial_rmse}
    if name != "loss":
        return errors[name]
    parts = zip((weights.energy, weights.forces, weights.stress), errors.values(), strict=True)
    return sum(weight * (x / force_unit) ** 2 for weight, x in parts if not math.isnan(x))
