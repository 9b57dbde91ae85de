"""Splits: which frames train, which validate and which test."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eqpot.data.frames import Frame, counted_frames

_FAR_OFF: Final = 0.2
"""Part of its size by which a set may miss it without a word."""


@dataclass(frozen=True)
class Split:
    """Indices of training, validation and test frames, each ascending, without overlap.

    Attributes
    ----------
    train, validation, test
        Indices of frames, int64.
    n_groups
        Groups that were divided, 0 where frames were drawn one by one.
    remarks
        What the user should know of the groups.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    n_groups: int = 0
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        tests = f", {len(self.test)} to test" if len(self.test) else ""
        groups = ""
        if self.n_groups:
            groups = f", of {self.n_groups} group{'' if self.n_groups == 1 else 's'}"
        sizes = f"{counted_frames(len(self.train))} to train, {len(self.validation)} to validate"
        return "\n".join([f"{sizes}{tests}{groups}", *self.remarks])


def split_frames(
    frames: Iterable[Frame],
    validation_fraction: float,
    seed: int,
    *,
    test_fraction: float = 0.0,
    groups: Sequence[Hashable] | None = None,
    strata: Sequence[Any] | None = None,
) -> Split:
    """Return a random split into training, validation and test frames, the same for the same seed.

    Isolated atoms always train: they fix the reference energies. Fractions are of the other
    frames; at least one of these stands on each side asked for.

    Parameters
    ----------
    frames
        Any frames; read once, one at a time.
    validation_fraction
        Part of the frames that validate, between 0 and 1.
    seed
        Of the generator that draws them; 0 or above.
    test_fraction
        Part of the frames that test, 0 or above.
    groups
        What each frame belongs to (see :func:`eqpot.data.groups.trajectory_groups`); frames of one
        group stay on one side. Sizes are then met as closely as whole groups allow.
    strata
        Kind of each frame (see :func:`eqpot.data.groups.strata`), of a type that sorts; each kind
        is divided in the same proportion, to within one frame.

    Raises
    ------
    ValueError
        If the fractions are not between 0 and 1 or leave nothing to train, the seed is negative,
        there are too few frames or groups, or both ``groups`` and ``strata`` are given.
    """
    if not (math.isfinite(validation_fraction) and 0.0 < validation_fraction < 1.0):
        raise ValueError(
            f"`validation_fraction` must lie between 0 and 1, got {validation_fraction}"
        )
    if not (math.isfinite(test_fraction) and 0.0 <= test_fraction < 1.0 - validation_fraction):
        raise ValueError(
            "`test_fraction` must be 0 or above and leave frames to train, got "
            f"{test_fraction} beside {validation_fraction} to validate"
        )
    if seed < 0:
        raise ValueError(f"`seed` must be 0 or above, got {seed}")
    if groups is not None and strata is not None:
        raise ValueError("give `groups` or `strata`, not both")
    isolated = np.array([frame.is_isolated_atom for frame in frames], dtype=np.bool_)
    for name, labels in (("groups", groups), ("strata", strata)):
        if labels is not None and len(labels) != len(isolated):
            raise ValueError(f"`{name}` must name {len(isolated)} frames, names {len(labels)}")
    candidates = np.flatnonzero(~isolated)
    fractions = (validation_fraction, test_fraction)
    sizes = _sizes(len(candidates), fractions, int(isolated.sum()))
    rng = np.random.default_rng(seed)
    counts: list[int] = []
    if groups is not None:
        of_candidates = [groups[index] for index in candidates.tolist()]
        counts = list(Counter(of_candidates).values())
        chosen = _by_group(of_candidates, sizes, rng)
    elif strata is not None:
        chosen = _by_stratum([strata[index] for index in candidates.tolist()], sizes, rng)
    else:
        drawn = rng.permutation(len(candidates))
        chosen = [drawn[: sizes[0]], drawn[sizes[0] : sizes[0] + sizes[1]]]
    part = np.zeros(len(isolated), dtype=np.int64)
    for number, drawn in enumerate(chosen, start=1):
        part[candidates[drawn]] = number
    remarks = _remarks(counts, sizes, [len(drawn) for drawn in chosen])
    train, validation, test = (np.flatnonzero(part == number) for number in range(3))
    return Split(train, validation, test, len(counts), remarks)


def _sizes(n: int, fractions: tuple[float, float], n_isolated: int) -> tuple[int, int]:
    needed = 2 if fractions[1] == 0.0 else 3
    if n < needed:
        raise ValueError(
            f"a split needs at least {needed} frames that are not isolated atoms, got {n} (and "
            f"{n_isolated} isolated atoms); give a validation file instead"
        )
    n_test = min(max(1, round(fractions[1] * n)), n - 2) if fractions[1] > 0.0 else 0
    n_validation = min(max(1, round(fractions[0] * n)), n - n_test - 1)
    return n_validation, n_test


def _remarks(counts: list[int], sizes: tuple[int, int], drawn: list[int]) -> tuple[str, ...]:
    """Return what is to be told of groups that hold so many frames each."""
    if not counts:
        return ()
    remarks = []
    wanted = (sum(counts) - sum(sizes), *sizes)
    got = (sum(counts) - sum(drawn), *drawn, *[0] * (2 - len(drawn)))
    off = [
        f"{n} to {what} instead of {size}"
        for what, n, size in zip(("train", "validate", "test"), got, wanted, strict=True)
        if abs(n - size) > _FAR_OFF * size
    ]
    if off:
        remarks.append(
            f"warning: whole groups give {', '.join(off)} (the largest holds "
            f"{counted_frames(max(counts))}); use more or smaller groups, or "
            "divide by `random` or `stratified`"
        )
    n_single = counts.count(1)
    if 2 * n_single > len(counts):
        remarks.append(
            f"warning: {n_single} of {len(counts)} groups hold one frame, so frames are drawn "
            "nearly one by one, and neighbours in time may stand on both sides; if frames belong "
            "together, name what they belong to (`group`)"
        )
    return tuple(remarks)


def _by_stratum(
    strata: Sequence[Any], sizes: tuple[int, int], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Draw evenly along the frames sorted by stratum, shuffled within each."""
    shuffled = rng.permutation(len(strata))
    order = np.array(sorted(shuffled, key=lambda index: strata[index]), dtype=np.int64)
    chosen = []
    for size in sizes:
        n = len(order)
        # every n/size-th frame from a random one on: a stratum gets its share to within one frame
        steps = np.arange(n + 1) * size + int(rng.integers(n))
        drawn = np.diff(steps // n) > 0
        chosen.append(order[drawn])
        order = order[~drawn]
    return chosen


def _by_group(
    groups: Sequence[Hashable], sizes: tuple[int, int], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    wanted = [size for size in sizes if size > 0]
    if len(members) <= len(wanted):
        raise ValueError(
            f"{len(wanted) + 1} parts need at least as many groups, got {len(members)}; split at "
            "random, or give a validation file"
        )
    names = list(members)
    left = [members[names[k]] for k in rng.permutation(len(names))]
    chosen: list[list[int]] = []
    for number, size in enumerate(wanted):
        others = len(wanted) - number  # groups that must remain for the parts to come and training
        taken: list[list[int]] = []
        kept: list[list[int]] = []
        n_taken = 0
        for block in left:
            # a group that comes closer to the size than it leads away
            if n_taken + len(block) / 2 <= size and len(left) - len(taken) > others:
                taken.append(block)
                n_taken += len(block)
            else:
                kept.append(block)
        if not taken:
            smallest = min(range(len(kept)), key=lambda k: len(kept[k]))
            taken.append(kept.pop(smallest))
        left = kept
        chosen.append([index for block in taken for index in block])
    return [np.array(sorted(part), dtype=np.int64) for part in chosen]
