"""VASP's OUTCAR: ionic steps with the energy that belongs to their forces.

VASP prints three energies. Forces and stress are derivatives of the free energy TOTEN, so that is
the label (named ``free_energy``, as ASE does); the energy extrapolated to zero smearing is there
for who asks for ``energy``. Stress is printed as pressure in kbar, xx yy zz xy yz zx: its sign
turns.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eqpot import keys, units
from eqpot.data.frames import Frame, counted_frames
from eqpot.data.readers.compression import unpacked
from eqpot.data.readers.labels import LabelFinder
from eqpot.data.readers.lines import bounded_lines
from eqpot.data.readers.records import LARGEST_N_ATOMS, Record
from eqpot.elements import SYMBOLS

FREE_ENERGY: Final = "free_energy"
_NUMBER: Final = re.compile(r"[-+]?\d+\.\d*(?:[Ee][-+]?\d+)?")
_MOST_SPECIES: Final = 10_000


def outcar_frames(path: Path, labels: LabelFinder) -> Iterator[Frame]:
    """Yield the ionic steps of an OUTCAR.

    Steps that VASP's own machine-learned force field made (``ML_LMLFF``) are no reference and are
    left out. They, steps whose electrons did not converge, and a run that was cut off, are told in
    the remarks of the report.

    Raises
    ------
    ValueError
        If the file is no sound OUTCAR; names file and line.
    """
    run = _Run(path, labels)
    with unpacked(path) as plain:
        try:
            yield from run.frames(bounded_lines(plain, path))
        except _CutOffError:
            run.step.started = True
    run.steps.close()
    if run.steps.n_learned:
        labels.report.remarks.append(
            f"{path}: {run.steps.n_learned} steps of VASP's machine-learned force field are left "
            "out; they are no reference"
        )
    tell_unconverged(labels, path, run.unconverged)
    if not run.finished:
        left_out = "; its last step is not whole and is left out" if run.step.started else ""
        labels.report.remarks.append(f"{path}: the run did not end by itself{left_out}")


def tell_unconverged(labels: LabelFinder, path: Path, frames: list[int]) -> None:
    """Add a remark on frames whose electrons did not converge."""
    if frames:
        some = ", ".join(map(str, frames[:10])) + (", ..." if len(frames) > 10 else "")
        labels.report.remarks.append(
            f"{path}: the electrons of {counted_frames(len(frames))} did not converge ({some}); "
            "their labels are not sound, take them out"
        )


@dataclass
class _Step:
    """What has been read of the present ionic step."""

    cell: Any = None
    positions: Any = None
    forces: Any = None
    stress: Any = None
    free_energy: float | None = None
    converged: bool = False
    started: bool = False


@dataclass
class _IonicSteps:
    """Counts the steps that have no energy but that of a machine-learned force field.

    A step of VASP's learning on the fly may have both, in any order.
    """

    n_learned: int = 0
    has_learned: bool = False
    has_reference: bool = False

    def close(self) -> None:
        """End a step."""
        self.n_learned += self.has_learned and not self.has_reference
        self.has_learned = self.has_reference = False

    def learned(self) -> None:
        """Note an energy of the force field."""
        if self.has_learned:
            self.close()
        self.has_learned = True

    def reference(self) -> None:
        """Note an energy of the electrons."""
        if self.has_reference:
            self.close()
        self.has_reference = True


class _CutOffError(Exception):
    """The file ends within a block or a line."""


class _Run:
    """Reads the lines of one file, step by step."""

    def __init__(self, path: Path, labels: LabelFinder) -> None:
        self.path = path
        self.labels = labels
        self.step = _Step()
        self.symbols: list[str] = []
        self.counts: list[int] | None = None
        self.unconverged: list[int] = []
        self.finished = False
        self.steps = _IonicSteps()

    def frames(self, lines: Iterator[tuple[int, str]]) -> Iterator[Frame]:
        numbers: Any = None
        index = 0
        in_energy = learned = False
        for number, line in lines:
            step = self.step
            where = f"{self.path}, frame {index} (line {number})"
            if "TITEL  =" in line:
                if len(self.symbols) >= _MOST_SPECIES:
                    raise ValueError(f"{where}: more than {_MOST_SPECIES} potentials")
                self.symbols.append(_symbol(line, where))
            elif "ions per type =" in line:
                self.counts = _counts(line, where)
            elif "Iteration" in line and "---" in line:
                step.started = True
                learned = False
            elif "LOOP+" in line or "Ionic step" in line:
                self.steps.close()
            elif "FORCE on cell" in line:
                learned = "ML FORCE" in line
            elif "ML FREE ENERGIE" in line:
                self.steps.learned()
                learned = False
                if step.forces is None:
                    step.cell = None
            elif "EDIFF is reached" in line:
                step.converged = True
            elif not learned and "in kB" in line and line.split()[:2] == ["in", "kB"]:
                xx, yy, zz, xy, yz, zx = _numbers(line, 6, where)[:6]
                pressure = np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])
                step.stress = -0.1 * units.GPA * pressure
            elif not learned and "direct lattice vectors" in line:
                rows = [_numbers(_next(lines), 3, where)[:3] for _ in range(3)]
                step.cell = np.array(rows)
            # forces of VASP's own force field are marked, and are no reference
            elif "POSITION" in line and "TOTAL-FORCE" in line and "(ML)" not in line:
                if numbers is None:
                    numbers = self._atomic_numbers()
                _next(lines)
                block = np.empty((len(numbers), 6))
                for k in range(len(numbers)):
                    block[k] = _numbers(_next(lines), 6, where)[:6]
                step.positions, step.forces = block[:, :3], block[:, 3:]
            elif "FREE ENERGIE OF THE ION-ELECTRON SYSTEM" in line:
                in_energy = True
            elif in_energy and "TOTEN" in line and "enthalpy" not in line:
                step.free_energy = _numbers(line, 1, where)[0]
            elif in_energy and "energy(sigma->0)" in line:
                if not line.endswith("\n"):
                    raise _CutOffError
                if not step.converged:
                    self.unconverged.append(index)
                record = self._record(numbers, line, where)
                self.steps.reference()
                self.step, in_energy = _Step(), False
                yield self.labels.frame(record, index)
                index += 1
            elif "General timing and accounting" in line:
                self.finished = True

    def _atomic_numbers(self) -> NDArray[np.int64]:
        if self.counts is None or len(self.counts) != len(self.symbols):
            raise ValueError(
                f"{self.path}: names {len(self.symbols)} potentials (`TITEL`), but `ions per type` "
                f"has {len(self.counts or [])} numbers"
            )
        numbers = [SYMBOLS.index(symbol) for symbol in self.symbols]
        return np.repeat(np.array(numbers, dtype=np.int64), self.counts)

    def _record(self, numbers: Any, line: str, where: str) -> Record:
        step = self.step
        if step.positions is None or step.cell is None or step.free_energy is None:
            raise ValueError(f"{where}: an energy without positions, cell or TOTEN before it")
        values = {FREE_ENERGY: step.free_energy, keys.FORCES: step.forces}
        if step.stress is not None:
            values[keys.STRESS] = step.stress
        if self.labels.chosen.energy is not None:
            values[keys.ENERGY] = _numbers(line.split("(sigma->0)")[1], 1, where)[0]
        return Record(numbers, step.positions, step.cell, np.ones(3, dtype=np.bool_), values)


def _symbol(line: str, where: str) -> str:
    for word in line.split("=", 1)[1].split()[:2]:
        # "Fe_pv", "H1.25": what follows the symbol says which potential of the element it is
        symbol = re.split(r"[^A-Za-z]", word)[0]
        if symbol in SYMBOLS[1:]:
            return symbol
    raise ValueError(f"{where}: no element in {line.strip()[:80]!r}")


def _counts(line: str, where: str) -> list[int]:
    words = line.split("=", 1)[1].split()
    if not words or not all(word.isdecimal() and len(word) < 10 for word in words):
        raise ValueError(f"{where}: must hold numbers of atoms, got {line.strip()[:80]!r}")
    counts = [int(word) for word in words]
    if min(counts) < 1 or sum(counts) > LARGEST_N_ATOMS:
        raise ValueError(f"{where}: {sum(counts)} atoms; 1 to {LARGEST_N_ATOMS} are read")
    return counts


def _next(lines: Iterator[tuple[int, str]]) -> str:
    _, line = next(lines, (0, ""))
    if not line:
        raise _CutOffError
    return line


def _numbers(line: str, n: int, where: str) -> list[float]:
    if not line.endswith("\n"):
        raise _CutOffError
    # Fortran glues numbers together when the second is negative
    found = [float(match) for match in _NUMBER.findall(line)]
    if len(found) < n or "***" in line:
        raise ValueError(f"{where}: expected {n} numbers, got {line.strip()[:80]!r}")
    return found
