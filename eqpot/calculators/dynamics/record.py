"""The files of a run: trajectory, log, restart and summary, none of them ever left half written.

The restart knows how long trajectory and log were when it was written; what came later is cut off
before a run goes on, so no frame is doubled and none is lost.
"""

import csv
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz
from numpy.typing import NDArray

from eqpot.calculators.dynamics.system import Array, System
from eqpot.durable import write_durably
from eqpot.units import GPA

TRAJECTORY: Final = "trajectory.extxyz"
LOG: Final = "md.csv"
RESTART: Final = "restart.npz"
SUMMARY: Final = "md.json"

_COLUMNS: Final = (
    "step",
    "time_fs",
    "potential_eV",
    "kinetic_eV",
    "conserved_eV",
    "temperature_K",
    "pressure_GPa",
    "volume_A3",
)
_FORMAT: Final = 1


class Record:
    """Trajectory, log, restart and summary in the folder of a run.

    Parameters
    ----------
    folder
        The folder; :meth:`prepare` makes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trajectory: BinaryIO | None = None
        self.log: BinaryIO | None = None

    @property
    def restart(self) -> Path:
        """Path of the restart."""
        return self.folder / RESTART

    def prepare(self) -> bool:
        """Make the folder and return whether it holds a restart.

        Raises
        ------
        FileExistsError
            If it holds results without a restart.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.restart.exists():
            return True
        for name in (TRAJECTORY, LOG):
            if (self.folder / name).exists():
                raise FileExistsError(
                    f"`output` folder {self.folder} holds {name} but no {RESTART}, so its run "
                    "cannot go on; choose another folder or move the file away"
                )
        return False

    def create(self) -> None:
        """Begin an empty trajectory and an empty log."""
        self.trajectory = (self.folder / TRAJECTORY).open("wb")
        self.log = (self.folder / LOG).open("wb")
        self.log.write((",".join(_COLUMNS) + "\n").encode())

    def read_restart(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return the numbers and the arrays of the restart.

        Raises
        ------
        ValueError
            If it cannot be read, or was written by another version.
        """
        path = self.restart
        try:
            with np.load(path, allow_pickle=False) as file:
                record = json.loads(str(file["record"]))
                arrays = {name: file[name] for name in file.files if name != "record"}
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} must be a restart of molecular dynamics and cannot be read as one "
                f"({error}); put the file back or choose another `output` folder"
            ) from error
        if record["format"] != _FORMAT:
            raise ValueError(
                f"{path} must have format {_FORMAT}, got {record['format']}: it was written by "
                "another version of eqpot; choose another `output` folder"
            )
        return record, arrays

    def reopen(self, sizes: dict[str, int]) -> None:
        """Cut trajectory and log to the sizes of the restart, and go on behind them.

        Raises
        ------
        OSError
            If one is shorter, or not there.
        """
        # Both are looked at before either is cut.
        for name, size in sizes.items():
            self._check_size(name, size)
        self.trajectory = self._reopen(TRAJECTORY, sizes[TRAJECTORY])
        self.log = self._reopen(LOG, sizes[LOG])

    def _check_size(self, name: str, size: int) -> None:
        path = self.folder / name
        present = path.stat().st_size if path.exists() else 0
        if present < size:
            raise OSError(
                f"{path} must have at least {size} bytes, as when {RESTART} was written, got "
                f"{present}; put the file back or choose another `output` folder"
            )

    def _reopen(self, name: str, size: int) -> BinaryIO:
        file = (self.folder / name).open("r+b")
        file.truncate(size)
        file.seek(size)
        return file

    def write_line(
        self, step: int, moment: float, system: System, conserved: float, periodic: bool
    ) -> None:
        """Append a line to the log; ``moment`` in fs, the ``conserved`` energy in eV."""
        assert self.log is not None
        pressure: float | str = ""
        if system.stress is not None:
            virial = -float(np.trace(system.stress)) / 3
            pressure = (virial + system.twice_kinetic / (3 * system.volume)) / GPA
        row = (
            step,
            moment,
            system.energy,
            system.twice_kinetic / 2,
            conserved,
            system.temperature,
            pressure,
            system.volume if periodic else "",
        )
        self.log.write((",".join(str(value) for value in row) + "\n").encode())
        self.log.flush()

    def write_frame(self, step: int, moment: float, system: System) -> None:
        """Append a frame to the trajectory; ``moment`` in fs."""
        assert self.trajectory is not None
        frame = system.atoms.copy()
        frame.set_positions(system.positions, apply_constraint=False)
        frame.set_cell(system.cell, scale_atoms=False)
        frame.set_momenta(system.momenta, apply_constraint=False)
        frame.info = {"step": step, "time_fs": moment}
        results: dict[str, Any] = {"energy": system.energy, "forces": system.forces}
        if system.stress is not None:
            results["stress"] = system.stress
        frame.calc = SinglePointCalculator(frame, **results)
        text = io.StringIO()
        write_extxyz(text, [frame])
        # In one piece, so that whoever reads meanwhile meets whole frames.
        self.trajectory.write(text.getvalue().encode())
        self.trajectory.flush()

    def write_restart(self, state: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Write a restart of these numbers and arrays, with the sizes of trajectory and log."""
        assert self.log is not None
        assert self.trajectory is not None
        # The restart tells how long these are, so they must be on the disk before it is.
        for file in (self.trajectory, self.log):
            file.flush()
            os.fsync(file.fileno())
        record = {
            "format": _FORMAT,
            **state,
            "sizes": {TRAJECTORY: self.trajectory.tell(), LOG: self.log.tell()},
        }
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, record=np.array(json.dumps(record)), **arrays)
        write_durably(self.restart, content.getvalue())

    def write_summary(self, content: dict[str, Any]) -> None:
        """Write the summary."""
        write_durably(self.folder / SUMMARY, (json.dumps(content, indent=2) + "\n").encode())

    def read_log(self) -> dict[str, NDArray[np.float64]]:
        """Return the columns of the log; what is empty becomes NaN."""
        with (self.folder / LOG).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {
            name: np.array([float(row[name] or "nan") for row in rows], dtype=np.float64)
            for name in _COLUMNS
        }

    def close(self) -> None:
        """Close trajectory and log."""
        for file in (self.trajectory, self.log):
            if file is not None:
                file.close()
