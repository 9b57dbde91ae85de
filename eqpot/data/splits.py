"""Splits: which frames train and which validate."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eqpot.data.frames import Frame


@dataclass(frozen=True)
class Split:
    """Indices of training and validation frames, each ascending, without overlap.

    Attributes
    ----------
    train, validation
        Indices of frames, int64.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]

    def __str__(self) -> str:
        return f"{len(self.train)} frames to train, {len(self.validation)} to validate"


def split_frames(frames: Iterable[Frame], validation_fraction: float, seed: int) -> Split:
    """Return a random split into training and validation frames, the same for the same seed.

    Isolated atoms always train: they fix the reference energies. The fraction is of the other
    frames; at least one of these stands on each side.

    Parameters
    ----------
    frames
        Any frames; read once, one at a time.
    validation_fraction
        Part of the frames that validate, between 0 and 1.
    seed
        Of the generator that draws them; 0 or above.

    Raises
    ------
    ValueError
        If the fraction is not between 0 and 1, the seed is negative, or fewer than two frames
        are not isolated atoms.
    """
    if not (math.isfinite(validation_fraction) and 0.0 < validation_fraction < 1.0):
        raise ValueError(
            f"`validation_fraction` must lie between 0 and 1, got {validation_fraction}"
        )
    if seed < 0:
        raise ValueError(f"`seed` must be 0 or above, got {seed}")
    isolated = np.array([frame.is_isolated_atom for frame in frames], dtype=np.bool_)
    candidates = np.flatnonzero(~isolated)
    n_candidates = len(candidates)
    if n_candidates < 2:
        raise ValueError(
            f"a split needs at least 2 frames that are not isolated atoms, got {n_candidates} "
            f"(and {int(isolated.sum())} isolated atoms); give a validation file instead"
        )
    n_validation = min(max(1, round(validation_fraction * n_candidates)), n_candidates - 1)
    drawn = np.random.default_rng(seed).permutation(n_candidates)[:n_validation]
    validates = np.zeros(len(isolated), dtype=np.bool_)
    validates[candidates[drawn]] = True
    return Split(np.flatnonzero(~validates), np.flatnonzero(validates))
