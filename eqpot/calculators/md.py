"""Molecular dynamics with any ASE calculator, in a folder from which it can always go on.

The folder holds ``trajectory.extxyz``, ``md.csv``, ``restart.npz`` and, at the end, ``md.json``.
The restart knows how long trajectory and log were when it was written; what came later is cut off
before a run goes on, so no frame is doubled and none is lost.
"""

import csv
import hashlib
import io
import json
import math
import os
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO, Final, Literal

import ase
import ase.units
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io.extxyz import write_extxyz
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eqpot.calculators.integrators import (
    Integrator,
    Langevin,
    MartynaTobiasKlein,
    System,
    VelocityVerlet,
)
from eqpot.files import write_durably
from eqpot.units import BOLTZMANN, GPA

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
_SECONDS_BETWEEN_LINES: Final = 10.0
_MAX_HEATING: Final = 100.0
_LEAST_REFERENCE_TEMPERATURE: Final = 100.0
"""K. A run that starts cold in a strained structure warms up without being broken."""
_N_BLOCKS: Final = 20


@dataclass(frozen=True)
class MDSettings:
    """What a run shall do.

    Parameters
    ----------
    n_steps
        Number of time steps, of the whole run.
    ensemble
        ``"nve"``: velocity Verlet. ``"nvt"``: Langevin dynamics (BAOAB). ``"npt"``: a
        Martyna-Tobias-Klein barostat with Nosé-Hoover chains, the cell changing in size but not in
        shape. References at the classes of :mod:`eqpot.calculators.integrators`.
    timestep
        fs.
    temperature
        K; of the starting velocities, and of the thermostat.
    friction
        1/fs: the friction of Langevin dynamics, and for ``"npt"`` one over the time in which the
        thermostat answers.
    pressure
        GPa, positive in compression; read by ``"npt"``.
    barostat_time
        fs; the time in which the barostat answers.
    seed
        Of the starting velocities and of the noise.
    fix_center
        Start without net momentum and keep noise from bringing any in: right for all potentials
        that depend on distances alone. Of no effect where atoms are fixed.
    keep_momenta
        Start with the momenta of the structure instead of drawn ones.
    trajectory_interval, log_interval, checkpoint_interval
        Steps between frames, lines of the log, and restarts.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    n_steps: int
    ensemble: Literal["nve", "nvt", "npt"] = "nve"
    timestep: float = 0.5
    temperature: float = 300.0
    friction: float = 0.01
    pressure: float = 0.0
    barostat_time: float = 1000.0
    seed: int = 0
    fix_center: bool = True
    keep_momenta: bool = False
    trajectory_interval: int = 100
    log_interval: int = 10
    checkpoint_interval: int = 1000

    def __post_init__(self) -> None:
        if self.ensemble not in ("nve", "nvt", "npt"):
            raise ValueError(f'`ensemble` must be "nve", "nvt" or "npt", got {self.ensemble!r}')
        for name in ("timestep", "friction", "barostat_time"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` must be positive and finite, got {value!r}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(
                f"`temperature` must be finite and not negative, got {self.temperature!r}"
            )
        if self.ensemble == "npt" and self.temperature == 0:
            raise ValueError(
                '`temperature` must be positive for `ensemble` "npt", whose thermostat has a '
                "mass in proportion to it; got 0"
            )
        if not math.isfinite(self.pressure):
            raise ValueError(f"`pressure` must be finite, got {self.pressure!r}")
        for name, least in (
            ("n_steps", 1),
            ("seed", 0),
            ("trajectory_interval", 1),
            ("log_interval", 1),
            ("checkpoint_interval", 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"`{name}` must be an integer of at least {least}, got {value!r}")


@dataclass(frozen=True)
class MDSummary:
    """What came of a run.

    Means are over all lines of the log, the start included. The conserved energy is the total
    energy for ``"nve"``; else heat and work, which came from outside, are counted back. Its drift
    is the slope of a line through the means of up to 20 blocks of the log, with the standard error
    of that slope; its fluctuation is the root mean square about the line. A value is ``None`` where
    the log is too short, or the structure has no volume.
    """

    ensemble: str
    n_atoms: int
    n_steps: int
    time_ps: float
    mean_temperature: float
    """K"""
    mean_pressure: float | None
    """GPa"""
    mean_volume: float | None
    """Å³"""
    drift: float | None
    """meV/atom/ns"""
    drift_error: float | None
    """meV/atom/ns, one standard error"""
    fluctuation: float | None
    """meV/atom"""
    seconds: float
    """Wall time of the steps, all sessions of the run together."""
    steps_per_second: float
    ns_per_day: float


class ExplodedRunError(FloatingPointError):
    """The motion has left what the potential can describe."""


class InterruptedRunError(RuntimeError):
    """A signal ended the run; it is saved and can go on.

    Parameters
    ----------
    number
        Of the signal.
    message
        Where the run stands.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = number

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, as shells have it."""
        return 128 + self.signal


def parse_duration(text: str) -> float:
    """Return a duration such as ``"500 fs"``, ``"1 ps"`` or ``"0.1 ns"`` in fs.

    Raises
    ------
    ValueError
        If the text is no positive number with one of these units.

    Examples
    --------
    >>> parse_duration("1.5 ps")
    1500.0
    """
    units = {"fs": 1.0, "ps": 1e3, "ns": 1e6, "us": 1e9}
    stripped = text.strip()
    try:
        value = float(stripped[:-2]) * units[stripped[-2:]]
    except (ValueError, KeyError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(
            "`time` must be a positive number with its unit (fs, ps, ns, us), "
            f'such as "1 ps", got {text!r}'
        )
    return value


def run_md(
    atoms: ase.Atoms,
    settings: MDSettings,
    output: str | os.PathLike[str],
    *,
    source: Mapping[str, str] | None = None,
    silent: bool = False,
) -> MDSummary:
    """Run molecular dynamics, or go on with a run of the same settings, and sum it up.

    A run that was stopped and goes on gives the same bits as one that was not, if the answer of
    the calculator depends on nothing but the structure; a calculator with a memory (a neighbour
    list) is reset at every restart that is written on schedule. A greater ``n_steps`` prolongs a
    run; all other settings must be those it began with.

    Parameters
    ----------
    atoms
        Structure with a calculator attached; it is not changed. Of constraints, ``FixAtoms`` is
        understood.
    settings
        See :class:`MDSettings`.
    output
        Folder of the results; made if missing.
    source
        What else must be the same when the run goes on, such as the file of the potential.
    silent
        Print nothing.

    Raises
    ------
    ValueError
        If structure, calculator and settings do not fit each other, or settings and restart.
    FileExistsError, OSError
        If the folder holds results without a restart, or less than its restart knows of.
    ExplodedRunError
        If energy, forces or positions are not finite, the calculator refuses a structure that the
        motion led to, or the temperature exceeds a hundred times the greatest of that set, that of
        the start, and 100 K. The restart is the last sound one.
    InterruptedRunError
        After SIGINT or SIGTERM; state saved. In the main thread only.
    """
    folder = Path(output)
    run = _Run(atoms, settings, folder, dict(source or {}), silent)
    with run.reporter:
        try:
            run.open()
            with _Signals() as signals:
                run.advance(signals)
        finally:
            run.close()
        return run.summarize()


class _Run:
    """One run in its folder."""

    def __init__(
        self,
        atoms: ase.Atoms,
        settings: MDSettings,
        folder: Path,
        source: dict[str, str],
        silent: bool,
    ) -> None:
        self.settings, self.folder = settings, folder
        self.reporter = _Reporter(silent)
        _check(atoms, settings)
        free = _free_atoms(atoms)
        fix_center = settings.fix_center and bool(free.all())
        momenta, n_dof = _start(atoms, settings, free, fix_center)
        own = _bare_copy(atoms)
        own.calc = atoms.calc
        own.set_momenta(momenta, apply_constraint=False)
        self.system = System(own, n_dof, free)
        self.periodic = bool(atoms.pbc.all())
        self.has_stress = self.periodic and "stress" in atoms.calc.implemented_properties
        timestep = settings.timestep * ase.units.fs
        self.integrator: Integrator
        if settings.ensemble == "nve":
            self.integrator = VelocityVerlet(self.system, timestep)
        elif settings.ensemble == "nvt":
            self.integrator = Langevin(
                self.system,
                timestep,
                settings.temperature,
                settings.friction / ase.units.fs,
                fix_center,
                _generator(settings.seed, 1),
            )
        else:
            self.integrator = MartynaTobiasKlein(
                self.system,
                timestep,
                settings.temperature,
                settings.pressure * GPA,
                ase.units.fs / settings.friction,
                settings.barostat_time * ase.units.fs,
            )
        self.identity: dict[str, Any] = {
            **{name: value for name, value in asdict(settings).items() if name != "n_steps"},
            **source,
            "structure": _fingerprint(atoms, settings.keep_momenta),
        }
        self.n_done = 0
        self.seconds = 0.0
        self.max_temperature = _MAX_HEATING * max(
            settings.temperature, self.system.temperature, _LEAST_REFERENCE_TEMPERATURE
        )
        self.trajectory: BinaryIO | None = None
        self.log: BinaryIO | None = None

    def open(self) -> None:
        """Begin, or go on from the restart if the folder has one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Left by a run that was killed while it wrote a restart; the restart itself is whole.
        for part in self.folder.glob(f".{RESTART}.*.part"):
            part.unlink(missing_ok=True)
        if (self.folder / RESTART).exists():
            self._resume()
            return
        for name in (TRAJECTORY, LOG):
            if (self.folder / name).exists():
                raise FileExistsError(
                    f"`output` folder {self.folder} holds {name} but no {RESTART}, so its run "
                    "cannot go on; choose another folder or move the file away"
                )
        # Before any file is made: what fails here leaves no run behind.
        self._guarded(0, self.system.evaluate)
        self.trajectory = (self.folder / TRAJECTORY).open("wb")
        self.log = (self.folder / LOG).open("wb")
        self.log.write((",".join(_COLUMNS) + "\n").encode())
        self._record()
        self._save()
        self.reporter.line(
            f"{self.settings.ensemble} of {len(self.system.atoms)} atoms for "
            f"{self.settings.n_steps} steps of {self.settings.timestep:g} fs in {self.folder}"
        )

    def _resume(self) -> None:
        path = self.folder / RESTART
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
        old = record["identity"]
        different = [
            f"`{name}` is {self.identity.get(name)!r} and was {old.get(name)!r}"
            for name in {**old, **self.identity}
            if self.identity.get(name) != old.get(name)
        ]
        if record["step"] > self.settings.n_steps:
            different.append(
                f"`n_steps` is {self.settings.n_steps} and {record['step']} steps are done"
            )
        if different:
            raise ValueError(
                f"`output` folder {self.folder} holds a run with other settings: "
                + "; ".join(different)
                + ". Use those settings to go on with it, or choose another folder"
            )
        system = self.system
        system.positions, system.momenta = arrays["positions"], arrays["momenta"]
        system.cell, system.forces = arrays["cell"], arrays["forces"]
        system.stress = arrays.get("stress")
        system.energy, system.n_dof = record["energy"], record["n_dof"]
        self.integrator.set_state(record["integrator"])
        self.max_temperature = record["max_temperature"]
        self.n_done, self.seconds = record["step"], record["seconds"]
        # A calculator that has run before may hold a neighbour list of that run.
        _reset(system.atoms)
        # Both are looked at before either is cut.
        for name, size in record["sizes"].items():
            self._check_size(name, size)
        self.trajectory = self._reopen(TRAJECTORY, record["sizes"][TRAJECTORY])
        self.log = self._reopen(LOG, record["sizes"][LOG])
        if self.n_done == self.settings.n_steps:
            self.reporter.line(
                f"the run in {self.folder} is finished: {self.n_done} steps; nothing to do"
            )
        else:
            self.reporter.line(
                f"going on with the run in {self.folder} after step {self.n_done} of "
                f"{self.settings.n_steps}"
            )

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

    def advance(self, signals: "_Signals") -> None:
        """Do the steps that are left."""
        n_steps = self.settings.n_steps
        first, started = self.n_done, time.perf_counter()
        before = self.seconds
        self.reporter.start(first, n_steps)
        while self.n_done < n_steps:
            step = self.n_done + 1
            self._guarded(step, self.integrator.step)
            self.n_done = step
            self.seconds = before + time.perf_counter() - started
            self._record()
            scheduled = step % self.settings.checkpoint_interval == 0 or step == n_steps
            if scheduled or signals.number is not None:
                self._save()
            if scheduled:
                # A run that goes on from here begins with a new neighbour list; so does this one.
                _reset(self.system.atoms)
            if signals.number is not None and step < n_steps:
                name = signal.Signals(signals.number).name
                raise InterruptedRunError(
                    signals.number,
                    f"stopped by {name} after step {step} of {n_steps}; saved in "
                    f"{self.folder / RESTART}, the same command goes on",
                )
            self.reporter.step(step, self.system.temperature)
        self.reporter.stop()

    def _guarded(self, step: int, action: Callable[[bool], None]) -> None:
        """Take a step and raise if what it leads to is no sound state."""
        system = self.system
        try:
            # What overflows is caught below and told with its step, so it need not be warned of.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                action(self._wants_stress(step))
        except FloatingPointError as error:
            raise ExplodedRunError(self._explosion(step, str(error))) from error
        except ValueError as error:
            if step == 0:
                raise
            # What it took at the start it refuses now: atoms have met, or the cell has collapsed.
            reason = f"the calculator refused the structure ({error})"
            raise ExplodedRunError(self._explosion(step, reason)) from error
        if not math.isfinite(system.energy):
            reason = f"the energy is {system.energy}"
        elif not np.isfinite(system.forces).all():
            reason = "a force is not finite"
        elif not np.isfinite(system.momenta).all():
            reason = "a momentum is not finite"
        elif not system.temperature <= self.max_temperature:
            reason = (
                f"the temperature is {system.temperature:.4g} K, and more than "
                f"{self.max_temperature:.4g} K counts as exploded"
            )
        else:
            return
        raise ExplodedRunError(self._explosion(step, reason))

    def _explosion(self, step: int, reason: str) -> str:
        lengths = np.linalg.norm(self.system.forces, axis=1)
        worst = int(np.argmax(np.where(np.isfinite(lengths), lengths, np.inf)))
        symbol = self.system.atoms.symbols[worst]
        saved = f"The last sound state is in {self.folder / RESTART}. " if step else ""
        return (
            f"the run exploded in step {step}: {reason}. The largest force, "
            f"{lengths[worst]:.4g} eV/Å, is on atom {worst} ({symbol}, counted from 0). {saved}"
            f"Try a smaller `timestep` than {self.settings.timestep:g} fs, relax the structure "
            "first, or train the potential on structures like this one"
        )

    def _wants_stress(self, step: int) -> bool:
        if not self.has_stress:
            return False
        settings = self.settings
        noted = step % settings.log_interval == 0 or step % settings.trajectory_interval == 0
        return noted or self.integrator.needs_stress

    def _record(self) -> None:
        system, settings = self.system, self.settings
        assert self.log is not None
        assert self.trajectory is not None
        moment = self.n_done * settings.timestep
        if self.n_done % settings.log_interval == 0:
            pressure: float | str = ""
            if system.stress is not None:
                virial = -float(np.trace(system.stress)) / 3
                pressure = (virial + system.twice_kinetic / (3 * system.volume)) / GPA
            row = (
                self.n_done,
                moment,
                system.energy,
                system.twice_kinetic / 2,
                self.integrator.conserved(),
                system.temperature,
                pressure,
                system.volume if self.periodic else "",
            )
            self.log.write((",".join(str(value) for value in row) + "\n").encode())
            self.log.flush()
        if self.n_done % settings.trajectory_interval == 0:
            frame = system.atoms.copy()
            frame.set_positions(system.positions, apply_constraint=False)
            frame.set_cell(system.cell, scale_atoms=False)
            frame.set_momenta(system.momenta, apply_constraint=False)
            frame.info = {"step": self.n_done, "time_fs": moment}
            results: dict[str, Any] = {"energy": system.energy, "forces": system.forces}
            if system.stress is not None:
                results["stress"] = system.stress
            frame.calc = SinglePointCalculator(frame, **results)
            text = io.StringIO()
            write_extxyz(text, [frame])
            # In one piece, so that whoever reads meanwhile meets whole frames.
            self.trajectory.write(text.getvalue().encode())
            self.trajectory.flush()

    def _save(self) -> None:
        assert self.log is not None
        assert self.trajectory is not None
        system = self.system
        # The restart tells how long these are, so they must be on the disk before it is.
        for file in (self.trajectory, self.log):
            file.flush()
            os.fsync(file.fileno())
        record = {
            "format": _FORMAT,
            "step": self.n_done,
            "energy": system.energy,
            "n_dof": system.n_dof,
            "integrator": self.integrator.get_state(),
            "identity": self.identity,
            "sizes": {TRAJECTORY: self.trajectory.tell(), LOG: self.log.tell()},
            "seconds": self.seconds,
            "max_temperature": self.max_temperature,
        }
        arrays = {
            "positions": system.positions,
            "momenta": system.momenta,
            "cell": system.cell,
            "forces": system.forces,
        }
        if system.stress is not None:
            arrays["stress"] = system.stress
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, record=np.array(json.dumps(record)), **arrays)
        write_durably(self.folder / RESTART, content.getvalue())

    def close(self) -> None:
        """Close trajectory and log."""
        for file in (self.trajectory, self.log):
            if file is not None:
                file.close()

    def summarize(self) -> MDSummary:
        """Return what the log says, and write it to the summary file."""
        settings = self.settings
        n_atoms = len(self.system.atoms)
        columns = _read_log(self.folder / LOG)
        drift, error, fluctuation = _drift(columns["time_fs"], columns["conserved_eV"] / n_atoms)
        rate = self.n_done / self.seconds if self.seconds > 0 else 0.0
        summary = MDSummary(
            ensemble=settings.ensemble,
            n_atoms=n_atoms,
            n_steps=self.n_done,
            time_ps=self.n_done * settings.timestep / 1e3,
            mean_temperature=float(columns["temperature_K"].mean()),
            mean_pressure=_mean(columns["pressure_GPa"]),
            mean_volume=_mean(columns["volume_A3"]),
            drift=drift,
            drift_error=error,
            fluctuation=fluctuation,
            seconds=self.seconds,
            steps_per_second=rate,
            ns_per_day=rate * settings.timestep * 86400 * 1e-6,
        )
        chosen = asdict(settings)
        source = {name: value for name, value in self.identity.items() if name not in chosen}
        content = {**asdict(summary), "settings": chosen, "source": source}
        write_durably(self.folder / SUMMARY, (json.dumps(content, indent=2) + "\n").encode())
        return summary


def _check(atoms: ase.Atoms, settings: MDSettings) -> None:
    """Raise ValueError if the structure cannot be run this way."""
    if len(atoms) == 0:
        raise ValueError("`atoms` must hold at least one atom, got none")
    if atoms.calc is None:
        raise ValueError("`atoms` must have a calculator attached (`atoms.calc`), got none")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(np.array(atoms.cell)).all()):
        raise ValueError("`atoms` must have finite positions and cell")
    masses = atoms.get_masses()
    if not (np.isfinite(masses).all() and (masses > 0).all()):
        bad = int(np.argmin(np.where(np.isfinite(masses), masses, -np.inf)))
        raise ValueError(f"masses must be positive, got {masses[bad]} for atom {bad}")
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms):
            raise ValueError(
                "`atoms` may have no constraints but FixAtoms, got "
                f"{type(constraint).__name__}; remove it with `atoms.set_constraint()`"
            )
    if settings.keep_momenta and not atoms.has("momenta"):
        raise ValueError(
            "`keep_momenta` needs a structure with momenta, got one without; "
            "leave it out to draw velocities"
        )
    if settings.ensemble != "npt":
        return
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise ValueError(
            '`ensemble` "npt" needs a cell periodic in three directions, got '
            f"pbc {atoms.pbc.tolist()} and a cell of rank {atoms.cell.rank}"
        )
    if "stress" not in atoms.calc.implemented_properties:
        raise ValueError(
            '`ensemble` "npt" needs a calculator with stress, got '
            f"{type(atoms.calc).__name__}, which gives {atoms.calc.implemented_properties}"
        )
    if atoms.constraints:
        raise ValueError('`ensemble` "npt" cannot hold atoms fixed; remove the constraints')
    if not settings.fix_center:
        raise ValueError('`fix_center` must be true for `ensemble` "npt", got false')


def _generator(seed: int, stream: int) -> np.random.Generator:
    """Return a generator; velocities (stream 0) and noise (1) must not share one."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream])))


def _free_atoms(atoms: ase.Atoms) -> NDArray[np.bool_]:
    free = np.ones(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        free[constraint.index] = False
    return free


def _start(
    atoms: ase.Atoms, settings: MDSettings, free: NDArray[np.bool_], fix_center: bool
) -> tuple[NDArray[np.float64], int]:
    """Return the momenta to start from, shape (n_atoms, 3), and the degrees of freedom.

    Drawn momenta are normal, less translation and, of molecules, rotation; they are not scaled to
    the exact temperature, which would not be a draw from the canonical ensemble.
    """
    n_dof = 3 * int(free.sum()) - 3 * fix_center
    masses: NDArray[np.float64] = atoms.get_masses()[:, None]
    if settings.keep_momenta:
        momenta: NDArray[np.float64] = atoms.get_momenta() * free[:, None]
    else:
        width = np.sqrt(masses * BOLTZMANN * settings.temperature)
        noise = _generator(settings.seed, 0).standard_normal((len(atoms), 3))
        momenta = noise * width * free[:, None]
    if fix_center:
        momenta = momenta - masses / masses.sum() * momenta.sum(axis=0)
        if not atoms.pbc.any() and not settings.keep_momenta:
            arms = atoms.get_positions() - atoms.get_center_of_mass()
            squares = (masses * arms**2).sum()
            inertia = np.eye(3) * squares - (masses * arms).T @ arms
            tolerance = 1e-10 * max(1.0, float(squares))
            spin = np.linalg.pinv(inertia, rcond=1e-10) @ np.cross(arms, momenta).sum(axis=0)
            momenta = momenta - masses * np.cross(spin, arms)
            if settings.ensemble == "nve":
                # Only there angular momentum stays zero; friction and noise bring rotation back.
                n_dof -= int(np.linalg.matrix_rank(inertia, tol=tolerance))
    if n_dof <= 0:
        raise ValueError(
            f"{len(atoms)} atoms of which {int((~free).sum())} are fixed leave no degree of "
            "freedom; free more atoms, or set `fix_center` to false"
        )
    return momenta, n_dof


def _bare_copy(atoms: ase.Atoms) -> ase.Atoms:
    """Return the structure without results and notes of its file, which would go stale."""
    return ase.Atoms(
        numbers=atoms.numbers,
        positions=atoms.get_positions(),
        masses=atoms.get_masses() if atoms.has("masses") else None,
        cell=np.array(atoms.cell),
        pbc=atoms.pbc,
        constraint=list(atoms.constraints),
    )


def _fingerprint(atoms: ase.Atoms, with_momenta: bool) -> str:
    """Return a hash of all that defines the start."""
    digest = hashlib.sha256()
    parts = [
        atoms.numbers.astype("<i8"),
        atoms.get_positions().astype("<f8"),
        np.array(atoms.cell).astype("<f8"),
        atoms.pbc.astype("<i8"),
        atoms.get_masses().astype("<f8"),
        _free_atoms(atoms).astype("<i8"),
    ]
    if with_momenta:
        parts.append(atoms.get_momenta().astype("<f8"))
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


def _reset(atoms: ase.Atoms) -> None:
    # ASE calculators drop their neighbour list when all is new to them.
    if hasattr(atoms.calc, "reset"):
        atoms.calc.reset()


def _read_log(path: Path) -> dict[str, NDArray[np.float64]]:
    """Return the columns of the log; what is empty becomes NaN."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array([float(row[name] or "nan") for row in rows], dtype=np.float64)
        for name in _COLUMNS
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    sound = values[np.isfinite(values)]
    return float(sound.mean()) if len(sound) else None


def _drift(
    times: NDArray[np.float64], energies: NDArray[np.float64]
) -> tuple[float | None, float | None, float | None]:
    """Return drift and its standard error in meV/ns, and the fluctuation in meV.

    Neighbouring lines of the log are correlated, so a line through all of them would claim too
    small an error; the means of blocks are nearly independent.

    Parameters
    ----------
    times
        fs, equally spaced.
    energies
        eV.
    """
    n_blocks = min(_N_BLOCKS, len(times) // 2)
    if n_blocks < 3:
        return None, None, None
    length = len(times) // n_blocks
    # What does not fill a block is left out at the start, where the run may still settle.
    start = len(times) - length * n_blocks
    x = times[start:].reshape(n_blocks, length).mean(axis=1) * 1e-6
    y = (energies[start:] - energies[-1]).reshape(n_blocks, length).mean(axis=1) * 1e3
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    rest = y - y.mean() - slope * centred
    error = math.sqrt(float(rest @ rest) / (n_blocks - 2) / float(centred @ centred))
    line = y.mean() + slope * (times * 1e-6 - x.mean())
    scatter = (energies - energies[-1]) * 1e3 - line
    return slope, error, float(np.sqrt(np.mean(scatter**2)))


class _Signals:
    """Hold SIGINT and SIGTERM back until the step is done; a second one acts at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        # Python allows handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()


class _Reporter:
    """On a terminal a bar with rate and remaining time, else a line now and then."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._first = self._n_steps = 0
        self._started = self._last_line = time.monotonic()

    def line(self, text: str) -> None:
        """Print a line."""
        if not self._silent:
            self._console.print(text, markup=False)

    def start(self, first: int, n_steps: int) -> None:
        """Begin the progress after ``first`` of ``n_steps`` steps."""
        self._first, self._n_steps = first, n_steps
        self._started = self._last_line = time.monotonic()
        if self._silent or first == n_steps or not sys.stdout.isatty():
            return
        self._progress = Progress(
            TextColumn("molecular dynamics"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task("md", total=n_steps, completed=first, state="")
        self._progress.start()

    def step(self, done: int, temperature: float) -> None:
        """Tell that ``done`` steps are done."""
        if self._silent:
            return
        now = time.monotonic()
        if self._progress is None and now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        rate = (done - self._first) / max(1e-9, now - self._started)
        if self._progress is not None:
            state = f"{rate:.1f} steps/s  {temperature:.0f} K"
            self._progress.update(self._task, completed=done, state=state)
            return
        self._last_line = now
        left = (self._n_steps - done) / rate
        self.line(
            f"step {done}/{self._n_steps}  {temperature:.0f} K  {rate:.1f} steps/s  "
            f"{left:.0f} s left"
        )

    def stop(self) -> None:
        """End the progress."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> "_Reporter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
