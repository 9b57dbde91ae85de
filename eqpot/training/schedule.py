"""Schedules over the steps of a run: learning rate and energy weight."""

import math


def learning_rate_factor(step: int, n_steps: int, n_warmup: int) -> float:
    """Return the factor on the learning rate: linear warm-up, then a cosine to 0.2 % at the end.

    Parameters
    ----------
    step
        From 0 to ``n_steps - 1``.
    n_steps
        Steps of the run.
    n_warmup
        Steps of the warm-up.

    References
    ----------
    Loshchilov and Hutter, SGDR, ICLR 2017, eq. 5, without restarts.
    """
    progress = min(1.0, step / max(1, n_steps - 1))
    warmup = min(1.0, (step + 1) / max(1, n_warmup))
    return warmup * (0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * progress)))


def energy_weight(step: int, n_steps: int, first: float, last: float, ramp: float) -> float:
    """Return the weight of the energy term: ``first``, then from the fraction ``ramp`` on a rise.

    The rise to ``last`` is geometric and takes a tenth of the run: forces shape the surface, and
    energies are sharpened while the learning rate falls.

    Parameters
    ----------
    step, n_steps
        As in :func:`learning_rate_factor`.
    first, last
        Weights before and after, above zero.
    ramp
        Fraction of the run at which the rise begins.
    """
    progress = step / max(1, n_steps - 1)
    rise = min(1.0, max(0.0, (progress - ramp) / 0.1))
    return float(first * (last / first) ** rise)
