"""Labels: which numbers of a record are energy, forces and stress.

A number is a label only under a name that says so. Where a frame holds two such names with
different values, the reader stops and asks; it never chooses between two energies.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eqpot import keys
from eqpot.data.declared_units import UnitFactors
from eqpot.data.frames import Frame, names_isolated_atom
from eqpot.data.readers.keys import LabelKeys
from eqpot.data.readers.records import Record, same
from eqpot.data.readers.report import LabelReport

LABEL_NAMES: Final[dict[str, tuple[str, ...]]] = {
    keys.ENERGY: (
        "energy",
        "REF_energy",
        "ref_energy",
        "dft_energy",
        "DFT_energy",
        "total_energy",
        "free_energy",
    ),
    keys.FORCES: (
        "forces",
        "force",
        "REF_forces",
        "ref_forces",
        "REF_force",
        "dft_forces",
        "dft_force",
        "DFT_forces",
        "DFT_force",
    ),
    keys.STRESS: ("stress", "REF_stress", "ref_stress", "dft_stress", "DFT_stress"),
    keys.VIRIAL: (
        "virial",
        "virials",
        "REF_virial",
        "REF_virials",
        "ref_virial",
        "dft_virial",
        "DFT_virial",
    ),
}
"""Names under which labels are looked for, in order of preference."""

WEIGHT_NAMES: Final = ("weight", "config_weight")
ATOM_WEIGHT_NAMES: Final = ("atom_weight", "atom_weights", "force_weight")
LABEL_WEIGHTS: Final = {
    "config_energy_weight": keys.ENERGY,
    "config_forces_weight": keys.FORCES,
    "config_stress_weight": keys.STRESS,
    "config_virials_weight": keys.VIRIAL,
}
"""Weights of single labels in files made for MACE; a label of weight 0 is a dummy."""

CONFIG_TYPE: Final = "config_type"
GROUP: Final = "group"


class LabelFinder:
    """Turns the records of a file into frames: finds labels, converts units, counts.

    Parameters
    ----------
    path
        The file, for messages.
    chosen
        Names given by the user.
    factors
        From the units of the file to eV and Å.
    report
        Told of each frame.
    config_type
        Of frames that name none.
    names
        Under which labels are looked for.
    """

    def __init__(
        self,
        path: Path,
        chosen: LabelKeys,
        factors: UnitFactors,
        report: LabelReport,
        config_type: str = "",
        names: Mapping[str, tuple[str, ...]] = LABEL_NAMES,
    ) -> None:
        self.path = path
        self.chosen = chosen
        self.factors = factors
        self.report = report
        self.config_type = config_type
        self.names = names
        self._spelled = {label: {name.lower() for name in names[label]} for label in names}
        self._known = {label: self._names(label) for label in names}
        self._ours = {
            *(name for known in self._known.values() for name in known),
            *(CONFIG_TYPE, chosen.group or GROUP),
            *(*WEIGHT_NAMES, *ATOM_WEIGHT_NAMES, *LABEL_WEIGHTS),
        }

    def frame(self, record: Record, index: int, path: Path | None = None) -> Frame:
        """Return the frame of a record, the ``index``-th of the file or of a ``path`` below it.

        Raises
        ------
        ValueError
            If the labels are ambiguous or the frame is not sound; names file and frame.
        """
        source = f"{path or self.path}, frame {index}"
        try:
            return self._frame(record, source)
        except ValueError as error:
            # Frame already begins its messages with the source
            message = str(error)
            if not message.startswith(source):
                message = f"{source}: {message}"
            raise ValueError(message) from error

    def _frame(self, record: Record, source: str) -> Frame:
        values = record.values
        factors = self.factors
        cell = np.asarray(record.cell, dtype=np.float64) * factors.length
        n_atoms = len(record.atomic_numbers)
        dummies = _dummies(values)
        energy = None if keys.ENERGY in dummies else self._find(keys.ENERGY, values)
        forces = None if keys.FORCES in dummies else self._find(keys.FORCES, values)
        stress, stress_name = self._stress(values, cell, np.asarray(record.pbc), dummies)
        config_type = str(values.get(CONFIG_TYPE, self.config_type))
        if names_isolated_atom(config_type) and n_atoms != 1:
            raise ValueError(f"`config_type` is {config_type}, but the frame has {n_atoms} atoms")
        weights = [values[name] for name in WEIGHT_NAMES if name in values]
        atom_weights = [(name, values[name]) for name in ATOM_WEIGHT_NAMES if name in values]
        group_name = self.chosen.group or GROUP
        frame = Frame(
            atomic_numbers=record.atomic_numbers,
            positions=np.asarray(record.positions, dtype=np.float64) * factors.length,
            cell=cell,
            pbc=record.pbc,
            energy=None if energy is None else _number(*energy) * factors.energy,
            forces=None if forces is None else _numbers(*forces) * factors.forces,
            stress=stress,
            config_type=config_type,
            group=str(values.get(group_name, "")),
            weight=1.0 if not weights else _number("weight", weights[0]),
            atom_weights=None if not atom_weights else _numbers(*atom_weights[0]),
            source=source,
        )
        # counted only now: a frame that is refused has supplied nothing
        found = {keys.ENERGY: energy, keys.FORCES: forces}
        for label, pair in found.items():
            if pair is not None:
                self.report.count(label, pair[0])
        if stress_name is not None:
            self.report.count(keys.STRESS, stress_name)
        for label, name in dummies.items():
            if self._known[label] & values.keys():
                self.report.leave_out(name)
        self.report.unlabelled_keys.update(map(str, values.keys() - self._ours))
        return frame

    def _names(self, label: str) -> set[str]:
        """Return the names under which a label is looked for."""
        chosen = self.chosen.label(label)
        if chosen is not None:
            return {chosen}
        other = {keys.STRESS: self.chosen.virial, keys.VIRIAL: self.chosen.stress}.get(label)
        return set() if other is not None else set(self.names[label])

    def _find(self, label: str, values: Mapping[str, Any]) -> tuple[str, Any] | None:
        """Return name and value of a label, or None where the frame has none."""
        chosen = self.chosen.label(label)
        if chosen is not None:
            return (chosen, values[chosen]) if chosen in values else None
        found = [(name, values[name]) for name in self.names[label] if name in values]
        if not found:
            return None
        # a name that differs in capitals alone is never read, but may be what was meant
        spelled, known = self._spelled[label], self.names[label]
        alike = [
            (name, value)
            for name, value in values.items()
            if str(name).lower() in spelled and name not in known
        ]
        for name, value in (*found[1:], *alike):
            if not same(found[0][1], value):
                hint = ""
                if "free_energy" in (name, found[0][0]):
                    hint = " (forces are the derivative of `free_energy`)"
                raise ValueError(
                    f"`{found[0][0]}` and `{name}` differ{_difference(found[0][1], value)}; choose "
                    f"one with `{label}_key`{hint}"
                )
        return found[0]

    def _stress(
        self,
        values: Mapping[str, Any],
        cell: NDArray[np.float64],
        pbc: NDArray[Any],
        dummies: Mapping[str, str],
    ) -> tuple[NDArray[np.float64] | None, str | None]:
        stress = virial = None
        if not self.chosen.virial and keys.STRESS not in dummies:
            stress = self._find(keys.STRESS, values)
        if not self.chosen.stress and keys.VIRIAL not in dummies:
            virial = self._find(keys.VIRIAL, values)
        if stress is None and virial is None:
            return None, None
        if not pbc.all():
            self.report.n_stress_dropped += 1
            return None, None
        found = []
        if stress is not None:
            found.append((stress[0], _matrix(*stress) * self.factors.stress))
        if virial is not None:
            volume = abs(np.linalg.det(cell))
            if volume > 0.0:
                found.append((virial[0], -_matrix(*virial) * self.factors.virial / volume))
        if len(found) == 2:
            largest = max(np.abs(found[0][1]).max(), np.abs(found[1][1]).max())
            # files round both, so they agree less closely than two copies of one number
            if not np.abs(found[0][1] - found[1][1]).max() <= 1e-4 * largest + 1e-9:
                raise ValueError(
                    f"`{found[0][0]}` and `{found[1][0]}` differ: the stress should be -virial/V; "
                    "choose one with `stress_key` or `virial_key`"
                )
        if not found:
            return None, None
        return found[0][1], found[0][0]


def _dummies(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels that have weight 0, with the name of the weight.

    Raises
    ------
    ValueError
        If a weight is neither 0 nor 1.
    """
    dummies = {}
    for name, label in LABEL_WEIGHTS.items():
        weight = _number(name, values[name]) if name in values else 1.0
        if weight == 0.0:
            dummies[label] = name
        elif weight != 1.0:
            raise ValueError(
                f"`{name}` must be 0 (the label is left out) or 1, got {weight:g}: single labels "
                "of a frame have no weights; weigh the frame by `weight`, forces by `atom_weight`, "
                "or labels in the loss of the recipe"
            )
    return dummies


def _difference(one: Any, other: Any) -> str:
    a, b = np.asarray(one), np.asarray(other)
    return f" ({a.item()} and {b.item()})" if a.size == b.size == 1 else ""


def _numbers(name: str, value: Any) -> NDArray[np.float64]:
    array = np.asarray(value)
    # `energy=T` is no 1 and "1.0" no number: the file was not written as it was meant
    if array.dtype.kind not in "iuf":
        shown = f"{value!r}" if len(f"{value!r}") < 100 else f"{value!r}"[:97] + "..."
        raise ValueError(f"`{name}` must be numbers, got {shown}")
    return array.astype(np.float64)


def _number(name: str, value: Any) -> float:
    array = _numbers(name, value)
    if array.size != 1:
        raise ValueError(f"`{name}` must be one number, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite, got {array.item()}")
    return float(array.item())


def _matrix(name: str, value: Any) -> NDArray[np.float64]:
    """Return a 3×3 tensor from 3×3 or 9 numbers, or from 6 in ASE's order xx yy zz yz xz xy."""
    array = _numbers(name, value)
    if array.size == 9:
        return array.reshape(3, 3)
    if array.shape == (6,):
        xx, yy, zz, yz, xz, xy = array
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    raise ValueError(
        f"`{name}` must have shape (3, 3), (9,) or (6,) (xx yy zz yz xz xy), got {array.shape}"
    )
