"""Molecular dynamics with any ASE calculator, in a folder from which it can always go on.

The folder holds ``trajectory.extxyz``, ``md.csv``, ``restart.npz`` and, at the end, ``md.json``.
"""

import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import ase
import ase.units
import numpy as np

from eqpot.calculators.dynamics.integrators import (
    Integrator,
    Langevin,
    MartynaTobiasKlein,
    VelocityVerlet,
)
from eqpot.calculators.dynamics.record import Record
from eqpot.calculators.dynamics.settings import MDSettings
from eqpot.calculators.dynamics.start import (
    bare_copy,
    check_structure,
    fingerprint,
    free_atoms,
    random_generator,
    start_momenta,
)
from eqpot.calculators.dynamics.summary import MDSummary, summarize
from eqpot.calculators.dynamics.system import System
from eqpot.interruption import InterruptedRunError, Signals
from eqpot.progress import StepProgress
from eqpot.units import GPA

_MAX_HEATING: Final = 100.0
_LEAST_REFERENCE_TEMPERATURE: Final = 100.0
"""K. A run that starts cold in a strained structure warms up without being broken."""


class ExplodedRunError(FloatingPointError):
    """The motion has left what the potential can describe."""


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
    with run.progress:
        try:
            run.open()
            with Signals() as signals:
                run.advance(signals)
        finally:
            run.record.close()
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
        self.settings, self.record = settings, Record(folder)
        self.progress = StepProgress("molecular dynamics", silent)
        check_structure(atoms, settings)
        free = free_atoms(atoms)
        fix_center = settings.fix_center and bool(free.all())
        momenta, n_dof = start_momenta(atoms, settings, free, fix_center)
        own = bare_copy(atoms)
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
                random_generator(settings.seed, 1),
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
            "structure": fingerprint(atoms, settings.keep_momenta),
        }
        self.n_done = 0
        self.seconds = 0.0
        self.max_temperature = _MAX_HEATING * max(
            settings.temperature, self.system.temperature, _LEAST_REFERENCE_TEMPERATURE
        )

    def open(self) -> None:
        """Begin, or go on from the restart if the folder has one."""
        if self.record.prepare():
            self._resume()
            return
        # Before any file is made: what fails here leaves no run behind.
        self._guarded(0, self.system.evaluate)
        self.record.create()
        self._record()
        self._save()
        self.progress.line(
            f"{self.settings.ensemble} of {len(self.system.atoms)} atoms for "
            f"{self.settings.n_steps} steps of {self.settings.timestep:g} fs in "
            f"{self.record.folder}"
        )

    def _resume(self) -> None:
        state, arrays = self.record.read_restart()
        old = state["identity"]
        different = [
            f"`{name}` is {self.identity.get(name)!r} and was {old.get(name)!r}"
            for name in {**old, **self.identity}
            if self.identity.get(name) != old.get(name)
        ]
        if state["step"] > self.settings.n_steps:
            different.append(
                f"`n_steps` is {self.settings.n_steps} and {state['step']} steps are done"
            )
        if different:
            raise ValueError(
                f"`output` folder {self.record.folder} holds a run with other settings: "
                + "; ".join(different)
                + ". Use those settings to go on with it, or choose another folder"
            )
        system = self.system
        system.positions, system.momenta = arrays["positions"], arrays["momenta"]
        system.cell, system.forces = arrays["cell"], arrays["forces"]
        system.stress = arrays.get("stress")
        system.energy, system.n_dof = state["energy"], state["n_dof"]
        self.integrator.set_state(state["integrator"])
        self.max_temperature = state["max_temperature"]
        self.n_done, self.seconds = state["step"], state["seconds"]
        # A calculator that has run before may hold a neighbour list of that run.
        _reset_calculator(system.atoms)
        self.record.reopen(state["sizes"])
        if self.n_done == self.settings.n_steps:
            self.progress.line(
                f"the run in {self.record.folder} is finished: {self.n_done} steps; nothing to do"
            )
        else:
            self.progress.line(
                f"going on with the run in {self.record.folder} after step {self.n_done} of "
                f"{self.settings.n_steps}"
            )

    def advance(self, signals: Signals) -> None:
        """Do the steps that are left."""
        n_steps = self.settings.n_steps
        first, started = self.n_done, time.perf_counter()
        before = self.seconds
        self.progress.start(n_steps, first)
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
                _reset_calculator(self.system.atoms)
            if signals.number is not None and step < n_steps:
                name = signal.Signals(signals.number).name
                raise InterruptedRunError(
                    signals.number,
                    f"stopped by {name} after step {step} of {n_steps}; saved in "
                    f"{self.record.restart}, the same command goes on",
                )
            self._tell(step)
        self.progress.stop()

    def _tell(self, step: int) -> None:
        temperature = f"{self.system.temperature:.0f} K"
        pace = self.progress.step(step, temperature)
        if pace is not None:
            self.progress.line(
                f"step {step}/{self.settings.n_steps}  {temperature}  {pace.rate:.1f} steps/s  "
                f"{pace.remaining:.0f} s left"
            )

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
        saved = f"The last sound state is in {self.record.restart}. " if step else ""
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
        moment = self.n_done * self.settings.timestep
        if self.n_done % self.settings.log_interval == 0:
            self.record.write_line(
                self.n_done, moment, self.system, self.integrator.conserved(), self.periodic
            )
        if self.n_done % self.settings.trajectory_interval == 0:
            self.record.write_frame(self.n_done, moment, self.system)

    def _save(self) -> None:
        system = self.system
        state = {
            "step": self.n_done,
            "energy": system.energy,
            "n_dof": system.n_dof,
            "integrator": self.integrator.get_state(),
            "identity": self.identity,
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
        self.record.write_restart(state, arrays)

    def summarize(self) -> MDSummary:
        """Return what the log says, and write it to the summary file."""
        columns = self.record.read_log()
        n_atoms = len(self.system.atoms)
        summary = summarize(columns, self.settings, n_atoms, self.n_done, self.seconds)
        chosen = asdict(self.settings)
        source = {name: value for name, value in self.identity.items() if name not in chosen}
        self.record.write_summary({**asdict(summary), "settings": chosen, "source": source})
        return summary


def _reset_calculator(atoms: ase.Atoms) -> None:
    # ASE calculators drop their neighbour list when all is new to them.
    if hasattr(atoms.calc, "reset"):
        atoms.calc.reset()
