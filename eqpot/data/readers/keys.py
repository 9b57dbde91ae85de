"""The names that a user gives for labels and other arrays of a file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TypedDict

from eqpot import keys


class KeyArguments(TypedDict, total=False):
    """The arguments ``energy_key`` ... of the readers; see :class:`LabelKeys`."""

    energy_key: str | None
    forces_key: str | None
    stress_key: str | None
    virial_key: str | None
    group_key: str | None
    atomic_numbers_key: str | None
    positions_key: str | None
    cell_key: str | None


@dataclass(frozen=True)
class LabelKeys:
    """Names in a file, where they are not the usual ones; ``None`` means that the usual are tried.

    The public functions take them as ``energy_key="E_dft"`` and so on.

    Attributes
    ----------
    energy, forces, stress
        Names of the labels.
    virial
        Name of a virial, from which the stress -virial/V is made.
    group
        Name of what a frame belongs to (a trajectory, a molecule), for grouped splits; without
        it ``group``.
    atomic_numbers, positions, cell
        Names of arrays in an npz file; all other formats say themselves what these are.

    Raises
    ------
    ValueError
        If both ``stress`` and ``virial`` are given.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    virial: str | None = None
    group: str | None = None
    atomic_numbers: str | None = None
    positions: str | None = None
    cell: str | None = None

    def __post_init__(self) -> None:
        if self.stress is not None and self.virial is not None:
            raise ValueError("give `stress_key` or `virial_key`, not both")

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, object]) -> "LabelKeys":
        """Return the keys given as arguments ``energy_key`` ...

        Raises
        ------
        TypeError
            If an argument is of no such name or no text.
        """
        known = [f"{field.name}_key" for field in fields(cls)]
        for name, value in arguments.items():
            if name not in known:
                raise TypeError(f"there is no argument `{name}`; known are {', '.join(known)}")
            if value is not None and not isinstance(value, str):
                raise TypeError(f"`{name}` must be a text, got {value!r}")
        return cls(**{name.removesuffix("_key"): value for name, value in arguments.items()})  # type: ignore[arg-type]

    def label(self, name: str) -> str | None:
        """Return the name given for a label or the virial."""
        chosen = {
            keys.ENERGY: self.energy,
            keys.FORCES: self.forces,
            keys.STRESS: self.stress,
            keys.VIRIAL: self.virial,
        }
        return chosen[name]

    def given(self) -> dict[str, str]:
        """Return what was given, by the name of the argument."""
        pairs = {f"{field.name}_key": getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in pairs.items() if value is not None}
