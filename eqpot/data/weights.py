"""Weights of kinds of structures."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches

from eqpot.data.frames import Frame


def check_config_weights(config_weights: Mapping[str, float], known: Iterable[str]) -> None:
    """Check that weights are numbers above zero, of kinds that exist.

    Parameters
    ----------
    config_weights
        Factor by ``config_type``.
    known
        Those of the frames.

    Raises
    ------
    ValueError
        If not: a misspelled name would otherwise change nothing.
    """
    names = set(known)
    for name, weight in config_weights.items():
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight > 0.0):
            raise ValueError(f"the weight of `{name}` must be a number above zero, got {weight!r}")
        if name not in names:
            near = get_close_matches(name, names, n=3)
            choice = f"did you mean {', '.join(near)}?" if near else f"they have {sorted(names)}"
            raise ValueError(f"no frame has the config_type `{name}`; {choice}")


def weighted(frame: Frame, config_weights: Mapping[str, float]) -> Frame:
    """Return the frame with its weight times that of its ``config_type``, if it has one.

    Parameters
    ----------
    frame
        The frame.
    config_weights
        Factor by ``config_type``; 1 for those not named.
    """
    factor = config_weights.get(frame.config_type, 1.0)
    return frame if factor == 1.0 else replace(frame, weight=frame.weight * factor)
