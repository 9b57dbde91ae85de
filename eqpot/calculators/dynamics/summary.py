"""What came of a run: means of the log, and the drift of the conserved energy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eqpot.calculators.dynamics.settings import MDSettings

_N_BLOCKS: Final = 20
ENERGY_ERROR_BAR: Final = 0.1
"""A drift of as much at 300 K is a change by 30 K."""


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
    energy_error: float | None
    """How far the conserved energy is from being conserved: the larger of its change by drift, less
    three standard errors, over the mean kinetic energy, and its fluctuation over that of the
    kinetic energy. Sound dynamics stay below :data:`ENERGY_ERROR_BAR`."""
    seconds: float
    """Wall time of the steps, all sessions of the run together."""
    steps_per_second: float
    ns_per_day: float


def summarize(
    columns: Mapping[str, NDArray[np.float64]],
    settings: MDSettings,
    n_atoms: int,
    n_done: int,
    seconds: float,
) -> MDSummary:
    """Return the summary of ``n_done`` steps that took ``seconds``, from the columns of the log."""
    drift, error, fluctuation = energy_drift(columns["time_fs"], columns["conserved_eV"] / n_atoms)
    rate = n_done / seconds if seconds > 0 else 0.0
    length = n_done * settings.timestep
    energy_error = None
    kinetic = 1e3 * columns["kinetic_eV"] / n_atoms
    if drift is not None and error is not None and fluctuation is not None and kinetic.std() > 0:
        change = (abs(drift) - 3 * error) * length * 1e-6
        energy_error = float(max(change / kinetic.mean(), fluctuation / kinetic.std()))
    return MDSummary(
        ensemble=settings.ensemble,
        n_atoms=n_atoms,
        n_steps=n_done,
        time_ps=length / 1e3,
        mean_temperature=float(columns["temperature_K"].mean()),
        mean_pressure=_mean(columns["pressure_GPa"]),
        mean_volume=_mean(columns["volume_A3"]),
        drift=drift,
        drift_error=error,
        fluctuation=fluctuation,
        energy_error=energy_error,
        seconds=seconds,
        steps_per_second=rate,
        ns_per_day=rate * settings.timestep * 86400 * 1e-6,
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    sound = values[np.isfinite(values)]
    return float(sound.mean()) if len(sound) else None


def energy_drift(
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
