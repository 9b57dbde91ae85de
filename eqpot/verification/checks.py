"""Verdicts: what each measured figure means for who uses the potential, and the bar it was held to.

Bars of exact laws (symmetry, derivatives) allow rounding of float64 and a margin for deep networks;
those of float32 and of dynamics are what users of the field's better codes are used to.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from eqpot.verification.agreement import Agreement
from eqpot.verification.derivatives import Consistency
from eqpot.verification.dimers import Dimers
from eqpot.verification.dynamics import Drift
from eqpot.verification.symmetry import Symmetry
from eqpot.words import counted, figures, power

ENERGY_BAR: Final = 1e-9
"""eV/atom, of symmetry in float64; total energies of 1e5 eV round at 1e-11."""
FORCE_BAR: Final = 1e-9
"""Relative to the rms force, of symmetry in float64."""
DERIVATIVE_BAR: Final = 1e-6
"""Relative to the rms force or largest stress; finite differences lose half of the digits."""
FLOAT32_ENERGY_BAR: Final = 1e-5
"""eV/atom, of float32 against float64."""
FLOAT32_FORCE_BAR: Final = 1e-3
"""Relative to the rms force, of float32 against float64."""
EXPORT_FORCE_BAR: Final = {"float32": 1e-3, "float64": 1e-9}
"""Relative to the rms force, of an export against the potential in the same type."""
FLUCTUATION_BAR: Final = 0.05
"""Of the total over the kinetic energy; a sound step of 0.5 fs stays well below, even with H."""
DRIFT_BAR: Final = 0.02
"""Of the mean kinetic energy, in a run of about 1 ps, beyond three standard errors."""
LOW_BARRIER: Final = 1.0
"""eV; a hole behind a lower wall is within reach of hot dynamics."""


class Status(StrEnum):
    """Verdict on a check."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Check:
    """A verdict.

    Attributes
    ----------
    name
        Of the law.
    status
        The light.
    message
        Figure, bar and meaning, in plain words.
    """

    name: str
    status: Status
    message: str


def judge_symmetry(symmetry: Symmetry) -> Check:
    """Return the verdict on :func:`eqpot.verification.symmetry.check_symmetry`."""
    parts = symmetry.operations.values()
    energy = max(part.energy for part in parts)
    relative = max(max(part.forces, part.stress or 0.0) for part in parts)
    good = energy <= ENERGY_BAR and relative <= FORCE_BAR
    return Check(
        "symmetry",
        Status.GOOD if good else Status.BAD,
        f"Rotating, mirroring, moving and renumbering {counted(symmetry.n_frames, 'frame')} "
        f"changes the energy by at most {power(energy)} eV/atom and forces by {power(relative)} of "
        f"their size (float64; bars {power(ENERGY_BAR, 1)} and {power(FORCE_BAR, 1)}).",
    )


def judge_derivatives(found: Consistency) -> Check:
    """Return the verdict on :func:`eqpot.verification.derivatives.check_derivatives`."""
    largest = max(found.forces, found.net_force, found.stress or 0.0)
    what = "Forces" if found.stress is None else "Forces and stress"
    return Check(
        "derivatives",
        Status.GOOD if largest <= DERIVATIVE_BAR else Status.BAD,
        f"{what} are the derivatives of the energy to {power(largest)} of their size, by finite "
        f"differences on {counted(found.n_frames, 'frame')} (float64; bar "
        f"{power(DERIVATIVE_BAR, 1)}).",
    )


def judge_precision(found: Agreement) -> Check:
    """Return the verdict on :func:`eqpot.verification.agreement.compare_precisions`."""
    good = found.energy <= FLOAT32_ENERGY_BAR and found.forces <= FLOAT32_FORCE_BAR
    return Check(
        "precision",
        Status.GOOD if good else Status.WARNING,
        f"float32 differs from float64 by at most {power(1e3 * found.energy)} meV/atom and "
        f"{power(found.forces)} of the typical force on {counted(found.n_frames, 'frame')} (bars "
        f"{power(1e3 * FLOAT32_ENERGY_BAR, 1)} meV/atom and {power(FLOAT32_FORCE_BAR, 1)})."
        + ("" if good else " Run it in float64 where small differences matter."),
    )


def judge_export(found: Agreement, dtype: str) -> Check:
    """Return the verdict on :func:`eqpot.verification.agreement.compare_export`."""
    bar = EXPORT_FORCE_BAR[dtype]
    good = found.energy <= bar and found.forces <= bar
    return Check(
        "export",
        Status.GOOD if good else Status.BAD,
        f"The exported program gives the forces of the potential to {power(found.forces)} of "
        f"their size on {counted(found.n_frames, 'frame')} ({dtype}; bar {power(bar, 1)}).",
    )


def judge_dimers(dimers: Dimers, repulsion: bool) -> Check:
    """Return the verdict on :func:`eqpot.verification.dimers.dimer_curves`.

    Parameters
    ----------
    dimers
        The curves.
    repulsion
        Whether the potential has nuclear repulsion, which is then no remedy.
    """
    holes = [curve for curve in dimers.curves if curve.hole_distance is not None]
    wavy = [curve for curve in dimers.curves if curve.n_sign_changes > 1 and curve not in holes]
    n_pairs = len(dimers.curves)
    left_out = f" {dimers.n_left_out} rarer pairs were left out." if dimers.n_left_out else ""
    if not holes and not wavy:
        text = f"All {n_pairs} pairs of elements repel at close contact and bind at most once."
        return Check("dimers", Status.GOOD, text + left_out)
    text = ""
    low = False
    if holes:
        worst = min(holes, key=lambda curve: curve.hole_barrier or 0.0)
        barrier = worst.hole_barrier or 0.0
        low = barrier < LOW_BARRIER
        remedy = "frames of shorter distances" if repulsion else "`model.repulsion: true`"
        text = (
            f"{len(holes)} of {n_pairs} pairs, alone in vacuum, attract each other again when they "
            f"are pressed together; the lowest wall before that is {figures(barrier, 2)} eV high "
            f"({'-'.join(worst.symbols)}, {worst.hole_distance:.2f} Å). Hot or dense matter may "
            f"get there: train with {remedy}."
        )
    if wavy:
        names = ", ".join("-".join(curve.symbols) for curve in wavy[:6])
        text += (
            f" The force between {names} changes sign more than once; pairs alone in vacuum are "
            "far from most data."
        )
    return Check("dimers", Status.BAD if low else Status.WARNING, text.strip() + left_out)


def judge_drift(drift: Drift | None) -> Check:
    """Return the verdict on :func:`eqpot.verification.dynamics.run_nve`."""
    name = "energy conservation"
    if drift is None:
        return Check(name, Status.UNKNOWN, "No frame has two atoms to run dynamics with.")
    if drift.ended_by:
        return Check(name, Status.BAD, f"Dynamics at constant energy ended {drift.ended_by}.")
    duration = drift.n_steps * drift.timestep * 1e-3
    length = f"{figures(duration, 2)} ps of dynamics at constant energy ({drift.n_atoms} atoms)"
    good = drift.fluctuation_ratio <= FLUCTUATION_BAR
    ratio = figures(100 * drift.fluctuation_ratio, 2)
    text = (
        f"In {length} the total energy fluctuates by {ratio} % of what "
        f"the kinetic energy does (bar {100 * FLUCTUATION_BAR:.0f} %)"
    )
    if drift.drift is not None and drift.drift_error is not None:
        kinetic = float(drift.kinetic.mean())
        change = (abs(drift.drift) - 3 * drift.drift_error) * duration
        good = good and change <= DRIFT_BAR * kinetic
        share = figures(100 * abs(drift.drift) * duration / kinetic, 2)
        text += (
            f" and drifts by {figures(drift.drift, 2)} ± {figures(drift.drift_error, 1)} "
            f"meV/atom/ps, in all {share} % of the kinetic energy (bar {100 * DRIFT_BAR:.0f} %)"
        )
    return Check(name, Status.GOOD if good else Status.BAD, text + ".")
