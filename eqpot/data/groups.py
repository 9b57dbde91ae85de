"""What frames belong together: trajectories, and kinds of structures."""

from collections.abc import Iterable
from typing import Final

import numpy as np

from eqpot.data.frames import Frame

_FEWEST_IN_BLOCK: Final = 10
_BLOCKS: Final = 50


def trajectory_groups(frames: Iterable[Frame], smallest: float = 0.1) -> list[str]:
    """Return a name for each frame, such that frames near in time have the same.

    A frame with a ``group`` has that. Others are grouped by trajectory: consecutive frames of one
    file, one ``config_type`` and the same atoms. Long trajectories are cut into blocks of a
    fiftieth of all frames (at least 10), as otherwise a set of one trajectory could not be
    divided; no block is larger than the smallest part, which otherwise could not be met.

    Parameters
    ----------
    frames
        Any frames in the order of their files; read once, one at a time.
    smallest
        Fraction of the frames in the smallest part that the groups are to be divided into.
    """
    runs: list[tuple[str, int]] = []
    previous: object = None
    n_frames = 0
    for frame in frames:
        n_frames += 1
        if frame.group:
            here: object = ("group", frame.group)
            name = f"group {frame.group}"
        else:
            file = frame.source.rpartition(", frame ")[0]
            here = (file, frame.config_type, frame.atomic_numbers.tobytes())
            name = f"trajectory {len(runs)}"
        if here == previous:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((name, 1))
        previous = here
    # products such as 0.07 * 100 lie a rounding beside the integer
    largest = max(1, int(smallest * n_frames * (1 + 1e-9)))
    block = min(max(_FEWEST_IN_BLOCK, n_frames // _BLOCKS), largest)
    names = []
    for name, length in runs:
        if name.startswith("trajectory "):
            names += [f"{name} block {k // block}" for k in range(length)]
        else:
            names += [name] * length
    return names


def strata(frames: Iterable[Frame]) -> list[tuple[str, str]]:
    """Return the kind of each frame: its ``config_type`` and its composition.

    Parameters
    ----------
    frames
        Any frames; read once, one at a time.
    """
    kinds = []
    for frame in frames:
        numbers, counts = np.unique(frame.atomic_numbers, return_counts=True)
        # elements before counts: sorted, alike compositions are neighbours
        formula = " ".join(f"{z:03d}" for z in numbers) + " | "
        formula += " ".join(f"{count:07d}" for count in counts)
        kinds.append((frame.config_type, formula))
    return kinds
