"""What a set of frames holds, counted in one pass."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eqpot.data.frames import Frame, LabelCounts
from eqpot.elements import SYMBOLS


@dataclass
class Range:
    """Smallest and largest of some numbers."""

    smallest: float = float("inf")
    largest: float = float("-inf")

    def add(self, value: float) -> None:
        """Take a number in."""
        self.smallest = min(self.smallest, value)
        self.largest = max(self.largest, value)

    def as_list(self) -> list[float] | None:
        """Return both, or ``None`` where there was no number."""
        return None if self.smallest > self.largest else [self.smallest, self.largest]


@dataclass
class Summary:
    """Counts and ranges of frames, added one by one.

    Attributes
    ----------
    counts
        Frames, atoms, labels.
    elements
        Atoms by atomic number.
    config_types
        Frames by kind.
    n_isolated_atoms, n_periodic, n_weighted, n_atom_weighted
        Frames that are isolated atoms, have three periodic axes, a weight that is not 1, or
        weights of atoms.
    n_groups
        Different groups named by frames.
    """

    counts: LabelCounts = field(default_factory=LabelCounts)
    elements: dict[int, int] = field(default_factory=dict)
    config_types: dict[str, int] = field(default_factory=dict)
    n_isolated_atoms: int = 0
    n_periodic: int = 0
    n_weighted: int = 0
    n_atom_weighted: int = 0
    _groups: set[str] = field(default_factory=set)
    _atoms: Range = field(default_factory=Range)
    _volumes: Range = field(default_factory=Range)
    _energies: Range = field(default_factory=Range)
    _forces: Range = field(default_factory=Range)

    @property
    def n_groups(self) -> int:
        """Different groups."""
        return len(self._groups)

    def add(self, frame: Frame) -> None:
        """Take a frame in."""
        self.counts.add(frame)
        for z, count in zip(*np.unique(frame.atomic_numbers, return_counts=True), strict=True):
            self.elements[int(z)] = self.elements.get(int(z), 0) + int(count)
        self.config_types[frame.config_type] = self.config_types.get(frame.config_type, 0) + 1
        self.n_isolated_atoms += frame.is_isolated_atom
        self.n_weighted += frame.weight != 1.0
        self.n_atom_weighted += frame.atom_weights is not None
        if frame.group:
            self._groups.add(frame.group)
        self._atoms.add(len(frame))
        if frame.pbc.all():
            self.n_periodic += 1
            self._volumes.add(abs(float(np.linalg.det(frame.cell))) / len(frame))
        if frame.energy is not None:
            self._energies.add(frame.energy / len(frame))
        if frame.forces is not None:
            self._forces.add(float(np.linalg.norm(frame.forces, axis=1).max()))

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, units in the names."""
        return {
            "n_frames": self.counts.n_frames,
            "n_atoms": self.counts.n_atoms,
            "atoms_in_frame": self._atoms.as_list(),
            "labels": dict(self.counts.items()),
            "elements": {SYMBOLS[z]: self.elements[z] for z in sorted(self.elements)},
            "config_types": dict(sorted(self.config_types.items())),
            "n_groups": self.n_groups,
            "n_isolated_atoms": self.n_isolated_atoms,
            "n_periodic": self.n_periodic,
            "n_weighted": self.n_weighted,
            "n_atom_weighted": self.n_atom_weighted,
            "volume_per_atom_angstrom3": self._volumes.as_list(),
            "energy_per_atom_ev": self._energies.as_list(),
            "largest_force_ev_per_angstrom": self._forces.as_list(),
        }
