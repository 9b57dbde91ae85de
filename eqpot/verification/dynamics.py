"""Dynamics: a short run at constant energy, and how fast it went."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import ase.units
import numpy as np
from numpy.typing import NDArray

from eqpot.calculators import ASECalculator, MDSettings
from eqpot.calculators.dynamics.integrators import VelocityVerlet
from eqpot.calculators.dynamics.start import free_atoms, start_momenta
from eqpot.calculators.dynamics.summary import energy_drift
from eqpot.calculators.dynamics.system import System
from eqpot.data import Frame
from eqpot.potential import Potential
from eqpot.units import BOLTZMANN
from eqpot.verification.prediction import atoms_of, calmest, sample

MOST_STEPS: Final = 2000
FEWEST_STEPS: Final = 10
TIMESTEP: Final = 0.5
"""fs"""
TEMPERATURE: Final = 300.0
"""K, of the velocities drawn for the start"""


@dataclass(frozen=True)
class Drift:
    """A run at constant energy.

    Attributes
    ----------
    source
        The frame it started from.
    n_atoms, n_steps, timestep
        Size and length of the run; the step in fs.
    times
        fs, shape (n_steps + 1,).
    total, kinetic
        Energies less their first value and as such, meV/atom, of the same shape.
    temperature
        Mean over the run, K.
    drift, drift_error
        Slope of the total energy and its standard error, meV/atom/ps; ``None`` where the run is too
        short to tell.
    fluctuation_ratio
        Standard deviation of the total energy over that of the kinetic energy: small where energy
        is conserved.
    steps_per_second
        Through the calculator of ASE.
    ended_by
        What stopped the run before its time, or nothing.
    """

    source: str
    n_atoms: int
    n_steps: int
    timestep: float
    times: NDArray[np.float64]
    total: NDArray[np.float64]
    kinetic: NDArray[np.float64]
    temperature: float
    drift: float | None
    drift_error: float | None
    fluctuation_ratio: float
    steps_per_second: float
    ended_by: str = ""


@dataclass(frozen=True)
class Speed:
    """Speed through the calculator of ASE, energies and forces of moving atoms."""

    source: str
    n_atoms: int
    periodic: bool
    steps_per_second: float

    @property
    def atom_steps_per_second(self) -> float:
        """Atoms times steps, per second."""
        return self.n_atoms * self.steps_per_second


def run_nve(potential: Potential, frames: Sequence[Frame], seconds: float) -> Drift | None:
    """Run the calmest frame at constant energy, for as many steps as the time holds.

    Parameters
    ----------
    potential
        In the type it is used in.
    frames
        To start from; ``None`` is returned where none has two atoms.
    seconds
        Time of the run, but for at least :data:`FEWEST_STEPS` steps.
    """
    frame = calmest(frames)
    if frame is None:
        return None
    atoms = atoms_of(frame)
    atoms.calc = ASECalculator(potential)
    settings = MDSettings(MOST_STEPS, timestep=TIMESTEP, temperature=TEMPERATURE)
    momenta, n_dof = start_momenta(atoms, settings, free_atoms(atoms), True)
    atoms.set_momenta(momenta)
    system = System(atoms, n_dof, free_atoms(atoms))
    system.evaluate(False)
    integrator = VelocityVerlet(system, TIMESTEP * ase.units.fs)
    energies, kinetic = [integrator.conserved()], [system.twice_kinetic / 2]
    ended_by = ""
    started = time.monotonic()
    for step in range(MOST_STEPS):
        if step >= FEWEST_STEPS and time.monotonic() - started > seconds:
            break
        try:
            integrator.step(False)
        except (FloatingPointError, ValueError) as error:
            ended_by = f"after {step} steps: {error}"
            break
        energies.append(integrator.conserved())
        kinetic.append(system.twice_kinetic / 2)
    elapsed = time.monotonic() - started
    n_steps = len(energies) - 1
    times = TIMESTEP * np.arange(n_steps + 1, dtype=np.float64)
    total = np.array(energies, dtype=np.float64) * (1e3 / len(frame))
    moving = np.array(kinetic, dtype=np.float64) * (1e3 / len(frame))
    slope, error_of_slope, _ = energy_drift(times, total * 1e-3)
    spread = float(moving.std())
    return Drift(
        frame.source,
        len(frame),
        n_steps,
        TIMESTEP,
        times,
        total - total[0],
        moving,
        float(np.mean(kinetic)) * 2 / (n_dof * BOLTZMANN),
        # from meV/ns to meV/ps: the length of such a run
        slope * 1e-3 if slope is not None else None,
        error_of_slope * 1e-3 if error_of_slope is not None else None,
        float(total.std()) / spread if spread > 0 else 0.0,
        n_steps / elapsed if elapsed > 0 else 0.0,
        ended_by,
    )


def largest_frame_speed(
    potential: Potential, frames: Sequence[Frame], seconds: float
) -> Speed | None:
    """Return the speed for the largest frame, moved a little before each call.

    Parameters
    ----------
    potential
        In the type it is used in.
    frames
        Some; ``None`` is returned for none.
    seconds
        Time of the calls, but for at least three after one to warm up.
    """
    frame = max(sample(frames), key=len, default=None)
    if frame is None:
        return None
    rng = np.random.default_rng(0)
    atoms = atoms_of(frame)
    calculator = ASECalculator(potential)
    calculator.calculate(atoms, ["forces"])
    started = time.monotonic()
    n_calls = 0
    while n_calls < 3 or time.monotonic() - started < seconds:
        # the length of a step of dynamics: the neighbour list stays, as it does there
        atoms.positions = frame.positions + rng.normal(scale=0.005, size=frame.positions.shape)
        calculator.calculate(atoms, ["forces"])
        n_calls += 1
    rate = n_calls / (time.monotonic() - started)
    return Speed(frame.source, len(frame), bool(frame.pbc.any()), rate)
