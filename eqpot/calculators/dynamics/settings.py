"""What a run of molecular dynamics shall do."""

import math
from dataclasses import dataclass
from typing import Literal


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
        shape. References at the classes of :mod:`eqpot.calculators.dynamics.integrators`.
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
