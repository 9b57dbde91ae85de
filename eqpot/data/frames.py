"""The frame: one structure with its labels, and the count of labels in many frames."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eqpot import keys
from eqpot.data.cells import check_cell

LABELS: Final = (keys.ENERGY, keys.FORCES, keys.STRESS)
"""Names of the labels that a frame may carry."""

LARGEST_Z: Final = 118


@dataclass(frozen=True, eq=False)
class Frame:
    """One structure and what was computed for it; a label that is ``None`` is absent.

    Attributes
    ----------
    atomic_numbers
        Z of each atom, shape (n_atoms,), int64.
    positions
        Shape (n_atoms, 3), Å.
    cell
        Rows are lattice vectors, shape (3, 3), Å. Rows of non-periodic axes have no meaning.
    pbc
        Periodic axes, shape (3,), bool.
    energy
        Total energy, eV.
    forces
        Shape (n_atoms, 3), eV/Å.
    stress
        (1/V) ∂E/∂ε, shape (3, 3), eV/Å³, positive in tension.
    config_type
        Kind of structure, as the file calls it.
    group
        What the frame belongs to, such as a trajectory or a molecule; frames of one group stay
        together when a set is split.
    weight
        Weight of the frame in the loss, above zero.
    atom_weights
        Weight of each atom's force in the loss, shape (n_atoms,), 0 or above; ``None`` means 1.
    source
        Where the frame comes from, such as ``"train.xyz, frame 17"``; for messages.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite, an atom is of no element, or the cell of a
        periodic axis is zero or flat. The message begins with ``source``.
    """

    atomic_numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(3, dtype=np.bool_))
    energy: float | None = None
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None
    config_type: str = ""
    group: str = ""
    weight: float = 1.0
    atom_weights: NDArray[np.float64] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        try:
            self._check_and_convert()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.source or 'frame'}: {error}") from error

    def _check_and_convert(self) -> None:
        numbers = np.asarray(self.atomic_numbers)
        if numbers.ndim != 1 or len(numbers) == 0 or numbers.dtype.kind not in "iu":
            raise ValueError(
                "`atomic_numbers` must be integers of shape (n_atoms,) with at least one atom, "
                f"got {numbers.dtype} of shape {numbers.shape}"
            )
        wrong = np.flatnonzero((numbers < 1) | (numbers > LARGEST_Z))
        if len(wrong) > 0:
            raise ValueError(
                f"atom {wrong[0]} has atomic number {numbers[wrong[0]]}, must be 1 to {LARGEST_Z} "
                "(virtual sites and placeholders must be removed)"
            )
        n_atoms = len(numbers)
        self._set("atomic_numbers", numbers.astype(np.int64))
        self._set("positions", _atom_vectors("positions", self.positions, n_atoms))
        pbc = np.asarray(self.pbc)
        if pbc.shape != (3,) or pbc.dtype.kind not in "biu":
            raise ValueError(f"`pbc` must be three booleans, got {pbc.tolist()}")
        pbc = pbc.astype(np.bool_)
        cell = np.array(self.cell, dtype=np.float64)
        if cell.shape != (3, 3):
            raise ValueError(f"`cell` must have shape (3, 3), got {cell.shape}")
        check_cell(cell, pbc)
        if not np.isfinite(cell).all():
            raise ValueError(f"`cell` must be finite, got {cell.tolist()}")
        self._set("pbc", pbc)
        self._set("cell", cell)
        if self.energy is not None:
            self._set("energy", _finite_number("energy", self.energy))
        if self.forces is not None:
            self._set("forces", _atom_vectors("forces", self.forces, n_atoms))
        if self.stress is not None:
            stress = np.array(self.stress, dtype=np.float64)
            if stress.shape != (3, 3):
                raise ValueError(f"`stress` must have shape (3, 3), got {stress.shape}")
            if not np.isfinite(stress).all():
                raise ValueError(f"`stress` must be finite, got {stress.tolist()}")
            self._set("stress", stress)
        weight = _finite_number("weight", self.weight)
        if weight <= 0.0:
            raise ValueError(f"`weight` must be above zero, got {weight}")
        self._set("weight", weight)
        if self.atom_weights is not None:
            self._set("atom_weights", _atom_weights(self.atom_weights, n_atoms))

    def _set(self, name: str, value: Any) -> None:
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
        object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.atomic_numbers)

    @property
    def is_isolated_atom(self) -> bool:
        """Whether this is one atom alone, so that its energy is the E0 of its element.

        That is so without any periodic axis, or where ``config_type`` says so (``isolated_atom``,
        ``IsolatedAtom``): plane-wave codes compute lone atoms in a large periodic box.
        """
        return len(self) == 1 and (not self.pbc.any() or names_isolated_atom(self.config_type))


def names_isolated_atom(config_type: str) -> bool:
    """Return whether a ``config_type`` means an isolated atom, however it is spelled."""
    plain = "".join(letter for letter in config_type.lower() if letter.isalpha())
    return plain in ("isolatedatom", "isolatedatoms")


def _finite_number(name: str, value: ArrayLike) -> float:
    number = np.asarray(value, dtype=np.float64)
    if number.size != 1:
        raise ValueError(f"`{name}` must be one number, got shape {number.shape}")
    if not np.isfinite(number).all():
        raise ValueError(f"`{name}` must be finite, got {number.item()}")
    return float(number.item())


def _atom_vectors(name: str, value: ArrayLike, n_atoms: int) -> NDArray[np.float64]:
    array = np.array(value, dtype=np.float64)
    if array.shape != (n_atoms, 3):
        raise ValueError(f"`{name}` must have shape ({n_atoms}, 3), got {array.shape}")
    wrong = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(wrong) > 0:
        raise ValueError(
            f"`{name}` must be finite, got {array[wrong[0]].tolist()} for atom {wrong[0]}"
        )
    return array


def _atom_weights(value: ArrayLike, n_atoms: int) -> NDArray[np.float64]:
    array = np.array(value, dtype=np.float64)
    if array.shape != (n_atoms,):
        raise ValueError(f"`atom_weights` must have shape ({n_atoms},), got {array.shape}")
    wrong = np.flatnonzero(~(np.isfinite(array) & (array >= 0.0)))
    if len(wrong) > 0:
        raise ValueError(
            f"`atom_weights` must be finite and 0 or above, got {array[wrong[0]]} for atom "
            f"{wrong[0]}"
        )
    return array


@dataclass
class LabelCounts:
    """How many frames carry each label; ``str()`` gives a line, :meth:`table` a table.

    Attributes
    ----------
    n_frames, n_atoms
        Frames and atoms counted.
    present
        Number of frames that carry a label, by its name.

    Examples
    --------
    >>> counts = LabelCounts()
    >>> counts.add(Frame(np.array([1]), np.zeros((1, 3)), energy=-13.6))
    >>> print(counts)
    1 frame, 1 atom: energy 1/1, forces 0/1, stress 0/1
    """

    n_frames: int = 0
    n_atoms: int = 0
    present: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LABELS, 0))

    def add(self, frame: Frame) -> None:
        """Count one frame."""
        self.n_frames += 1
        self.n_atoms += len(frame)
        for label in LABELS:
            if getattr(frame, label) is not None:
                self.present[label] += 1

    def merge(self, other: "LabelCounts") -> None:
        """Add what was counted elsewhere."""
        self.n_frames += other.n_frames
        self.n_atoms += other.n_atoms
        for label, count in other.present.items():
            self.present[label] += count

    def __str__(self) -> str:
        frames = counted_frames(self.n_frames)
        atoms = "atom" if self.n_atoms == 1 else "atoms"
        labels = ", ".join(f"{name} {count}/{self.n_frames}" for name, count in self.items())
        return f"{frames}, {self.n_atoms} {atoms}: {labels}"

    def items(self) -> list[tuple[str, int]]:
        """Return pairs of label and number of frames that carry it."""
        return [(label, self.present[label]) for label in LABELS]

    def table(self) -> str:
        """Return a table of several lines: label, frames that carry it, frames that do not."""
        lines = [f"{'label':<8}{'present':>10}{'absent':>10}"]
        lines += [f"{name:<8}{n:>10}{self.n_frames - n:>10}" for name, n in self.items()]
        return "\n".join(lines)


def counted_frames(number: int) -> str:
    """Return a number of frames as it is said.

    Examples
    --------
    >>> counted_frames(1), counted_frames(2)
    ('1 frame', '2 frames')
    """
    return f"{number} frame{'' if number == 1 else 's'}"


def count_labels(frames: Iterable[Frame]) -> LabelCounts:
    """Return how many of the frames carry each label.

    Parameters
    ----------
    frames
        Any frames; read once, one at a time.
    """
    counts = LabelCounts()
    for frame in frames:
        counts.add(frame)
    return counts
