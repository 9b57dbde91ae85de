"""VASP's vasprun.xml: ionic steps with the energy that belongs to their forces.

As in OUTCAR, the free energy is the label. In this file the energy of a step holds the work p·V of
an external pressure (``PSTRESS``), which no force is the derivative of; it is taken off.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from eqpot import keys, units
from eqpot.data.frames import Frame
from eqpot.data.readers.compression import unpacked
from eqpot.data.readers.labels import LabelFinder
from eqpot.data.readers.outcar import FREE_ENERGY, tell_unconverged
from eqpot.data.readers.records import LARGEST_N_ATOMS, Record
from eqpot.elements import SYMBOLS

# large and of no use here
_DROPPED: Final = ("eigenvalues", "dos", "projected", "dielectricfunction", "kpoints", "incar")
_BLOCK: Final = 2**16
_MOST_NODES: Final = 1_000_000
_LONGEST_TEXT: Final = 2**24


def vasprun_frames(path: Path, labels: LabelFinder) -> Iterator[Frame]:
    """Yield the ionic steps of a vasprun.xml, read as a stream.

    Steps whose electrons did not converge, and a file that was cut off, are told in the remarks of
    the report.

    Raises
    ------
    ValueError
        If the file is no sound vasprun.xml.
    """
    unconverged: list[int] = []
    with unpacked(path) as plain, plain.open("rb") as stream:
        run = _Run(path)
        index = 0
        try:
            for step in run.steps(stream):
                record, converged = run.record(step, index, labels.chosen.energy is not None)
                if not converged:
                    unconverged.append(index)
                yield labels.frame(record, index)
                index += 1
        # an unknown encoding is a LookupError
        except (ElementTree.ParseError, LookupError) as error:
            if index == 0 and not run.symbols:
                raise ValueError(f"{path}: cannot be read as XML ({error})") from error
            labels.report.remarks.append(
                f"{path}: the file is cut off; what follows its {index} whole steps is left out"
            )
    tell_unconverged(labels, path, unconverged)


class _Run:
    """One run: what stands at its head, and its steps as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.symbols: list[str] = []
        self.pressure = 0.0
        self.most_iterations = 0

    def steps(self, stream: IO[bytes]) -> Iterator[ElementTree.Element]:
        parser: Any = ElementTree.XMLPullParser(events=("start", "end"))
        root: ElementTree.Element | None = None
        depth = n_nodes = n_dropping = n_silent = 0
        while True:
            data = stream.read(_BLOCK)
            n_silent += len(data)
            if n_silent > _LONGEST_TEXT:
                raise ValueError(f"{self.path}: is no vasprun.xml (one text of {n_silent} bytes)")
            # a DTD brings entities, which vasprun.xml never has
            if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
                raise ValueError(f"{self.path}: holds a DTD, which is not read")
            if data:
                parser.feed(data)
            else:
                parser.close()
            for event, element in parser.read_events():
                n_silent = 0
                if event == "start":
                    root = element if root is None else root
                    depth += 1
                    n_nodes += 1
                    n_dropping += element.tag in _DROPPED
                    if depth > 100 or n_nodes > _MOST_NODES:
                        raise ValueError(f"{self.path}: is no vasprun.xml (too many elements)")
                    continue
                depth -= 1
                if element.tag == "calculation":
                    yield element
                elif element.tag == "atominfo":
                    self._atoms(element)
                elif element.tag == "parameters":
                    self._parameters(element)
                elif element.tag in _DROPPED:
                    n_dropping -= 1
                elif not (n_dropping and element.tag == "set"):
                    continue
                n_nodes = depth
                element.clear()
                if root is not None and depth == 1:
                    root.clear()
            if not data:
                return

    def _atoms(self, element: ElementTree.Element) -> None:
        for entry in element.iterfind("array[@name='atoms']/set/rc"):
            symbol = re.sub(r"[^A-Za-z].*", "", (entry.findtext("c") or "").strip())
            if symbol not in SYMBOLS[1:]:
                raise ValueError(f"{self.path}: `atominfo` names no element in {symbol!r}")
            self.symbols.append(symbol)
        if not 1 <= len(self.symbols) <= LARGEST_N_ATOMS:
            raise ValueError(f"{self.path}: has {len(self.symbols)} atoms in `atominfo`")

    def _parameters(self, element: ElementTree.Element) -> None:
        for entry in element.iter("i"):
            name = entry.get("name", "").upper()
            if name == "PSTRESS":
                self.pressure = 0.1 * units.GPA * self._number(entry.text, name)
            elif name == "NELM":
                self.most_iterations = int(self._number(entry.text, name))

    def record(
        self, step: ElementTree.Element, index: int, all_energies: bool
    ) -> tuple[Record, bool]:
        """Return a step, and whether its electrons converged."""
        where = f"frame {index}"
        if not self.symbols:
            raise ValueError(f"{self.path}, {where}: a calculation before `atominfo`")
        n_atoms = len(self.symbols)
        cell = self._vectors(step, "structure/crystal/varray[@name='basis']", 3, where)
        scaled = self._vectors(step, "structure/varray[@name='positions']", n_atoms, where)
        forces = self._vectors(step, "varray[@name='forces']", n_atoms, where)
        stress = self._vectors(step, "varray[@name='stress']", 3, where)
        energy = step.find("energy/i[@name='e_fr_energy']")
        if cell is None or scaled is None or energy is None:
            raise ValueError(f"{self.path}, {where}: has no cell, positions or free energy")
        free_energy = self._number(energy.text, "e_fr_energy")
        free_energy -= self.pressure * abs(float(np.linalg.det(cell)))
        values: dict[str, Any] = {FREE_ENERGY: free_energy}
        if forces is not None:
            values[keys.FORCES] = forces
        if stress is not None:
            values[keys.STRESS] = -0.1 * units.GPA * stress
        iterations = step.findall("scstep")
        if all_energies and iterations:
            # the zero-smearing energy of the step itself is wrong in VASP; the difference in its
            # last iteration is right
            last = iterations[-1]
            without = self._number(last.findtext("energy/i[@name='e_0_energy']"), "e_0_energy")
            free = self._number(last.findtext("energy/i[@name='e_fr_energy']"), "e_fr_energy")
            values[keys.ENERGY] = free_energy + without - free
        numbers = np.array([SYMBOLS.index(symbol) for symbol in self.symbols])
        record = Record(numbers, scaled @ cell, cell, np.ones(3, dtype=np.bool_), values)
        return record, not 0 < self.most_iterations <= len(iterations)

    def _vectors(
        self, step: ElementTree.Element, name: str, n: int, where: str
    ) -> NDArray[np.float64] | None:
        block = step.find(name)
        if block is None:
            return None
        try:
            rows = [[float(word) for word in (v.text or "").split()] for v in block.iterfind("v")]
            array = np.array(rows, dtype=np.float64)
        except ValueError as error:
            raise ValueError(f"{self.path}, {where}: `{name}` is no numbers ({error})") from error
        if array.shape != (n, 3):
            raise ValueError(
                f"{self.path}, {where}: `{name}` must have shape ({n}, 3), got {array.shape}"
            )
        return array

    def _number(self, text: str | None, name: str) -> float:
        try:
            return float(text or "")
        except ValueError:
            raise ValueError(f"{self.path}: `{name}` must be a number, got {text!r}") from None
