"""Several sets and parts of sets as one, without reading them."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eqpot.data.frames import Frame
from eqpot.data.weights import weighted


def n_atoms_of(frames: Sequence[Frame]) -> NDArray[np.int64]:
    """Return the number of atoms of each frame; stores and what is made of them know it already.

    Parameters
    ----------
    frames
        A list of frames, a :class:`eqpot.data.store.FrameStore`, or a sequence of this module.
    """
    known = getattr(frames, "n_atoms", None)
    if known is not None:
        return np.asarray(known, dtype=np.int64)
    return np.array([len(frame) for frame in frames], dtype=np.int64)


class Subset(Sequence[Frame]):
    """Some frames of others, such as one side of a split.

    Parameters
    ----------
    frames
        The others.
    indices
        Which, in this order; shape (n,), integers from 0.

    Raises
    ------
    IndexError
        If an index is outside.
    """

    def __init__(self, frames: Sequence[Frame], indices: ArrayLike) -> None:
        self.frames = frames
        self.indices = np.array(indices, dtype=np.int64).reshape(-1)
        if len(self.indices) and not (self.indices.min() >= 0 and self.indices.max() < len(frames)):
            raise IndexError(
                f"indices must lie in 0..{len(frames) - 1}, got {self.indices.min()}.."
                f"{self.indices.max()}"
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Frame:  # type: ignore[override]
        """Return one frame; negative indices count from the end."""
        return self.frames[int(self.indices[index])]

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """Number of atoms of each frame, shape (n_frames,)."""
        return n_atoms_of(self.frames)[self.indices]


class Concatenation(Sequence[Frame]):
    """The frames of several sequences, one after the other.

    Parameters
    ----------
    parts
        Lists, stores, subsets.
    """

    def __init__(self, parts: Sequence[Sequence[Frame]]) -> None:
        self.parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in self.parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Frame:  # type: ignore[override]
        """Return one frame; negative indices count from the end."""
        number = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= number < len(self):
            raise IndexError(f"there is no frame {index}, there are {len(self)}")
        part = int(np.searchsorted(self._ends, number, side="right"))
        start = int(self._ends[part - 1]) if part else 0
        return self.parts[part][number - start]

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """Number of atoms of each frame, shape (n_frames,)."""
        counts = [n_atoms_of(part) for part in self.parts]
        return np.concatenate(counts) if counts else np.zeros(0, dtype=np.int64)


class Reweighted(Sequence[Frame]):
    """Frames whose weights are multiplied by that of their ``config_type``.

    Parameters
    ----------
    frames
        Any sequence of frames.
    config_weights
        Factor by ``config_type``; 1 for those not named. Check the names by
        :func:`eqpot.data.weights.check_config_weights`.
    """

    def __init__(self, frames: Sequence[Frame], config_weights: Mapping[str, float]) -> None:
        self.frames = frames
        self.config_weights = dict(config_weights)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Frame:  # type: ignore[override]
        """Return one frame; negative indices count from the end."""
        return weighted(self.frames[index], self.config_weights)

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """Number of atoms of each frame, shape (n_frames,)."""
        return n_atoms_of(self.frames)
