"""Frames far from all others, by energy after the composition fit and by force."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from eqpot.data.audit.composition import CompositionFit
from eqpot.data.audit.findings import Finding, named
from eqpot.data.audit.scan import Scan, sources
from eqpot.data.frames import Frame

_FAR: Final = 20.0
"""Robust standard deviations. Sets of rattled and strained cells reach 10."""
_SMALLEST: Final = 0.05
"""eV/atom: below, an energy is no outlier, however narrow the others lie."""
_LARGE_FORCE: Final = 30.0
"""eV/Å: a bond pressed by a fifth of its length pushes back so."""
_FEWEST: Final = 20


def check_outliers(
    scan: Scan, frames: Sequence[Frame], fit: CompositionFit | None
) -> list[Finding]:
    """Return warnings that name the frames far from the rest of their composition or set."""
    found = []
    if fit is not None:
        energies = _far_energies(scan, fit)
        if len(energies):
            worst = energies[np.argsort(-np.abs(fit.residual[energies]))]
            found.append(
                Finding(
                    "warning",
                    "outliers",
                    "outliers.energy",
                    f"{scan.name}: {len(worst)} frames have an energy far from the others after "
                    f"the composition fit, up to {fit.residual[worst[0]]:+.3g} eV/atom",
                    "look whether these calculations converged, and to the same state; a squared "
                    "loss is ruled by such frames",
                    (scan.name,),
                    len(worst),
                    named(sources(frames, worst.tolist())),
                )
            )
    forces = _far_forces(scan)
    if len(forces):
        worst = forces[np.argsort(-scan.max_force[forces])]
        found.append(
            Finding(
                "warning",
                "outliers",
                "outliers.forces",
                f"{scan.name}: {len(worst)} frames have forces far above the others, up to "
                f"{scan.max_force[worst[0]]:.3g} eV/Å",
                "look whether atoms collide there; leave such frames out or give them a small "
                "weight unless collisions are to be learnt",
                (scan.name,),
                len(worst),
                named(sources(frames, worst.tolist())),
            )
        )
    return found


def _far_energies(scan: Scan, fit: CompositionFit) -> np.ndarray:
    far = np.zeros(scan.n_frames, dtype=np.bool_)
    labelled = np.isfinite(fit.residual)
    # within a composition where it is frequent: a mean over many kinds hides what is odd in one
    large = np.bincount(scan.composition[labelled], minlength=len(scan.compositions)) >= _FEWEST
    groups = [labelled & (scan.composition == k) for k in np.flatnonzero(large)[:200]]
    groups.append(labelled & ~large[scan.composition])
    for group in groups:
        if group.sum() < _FEWEST:
            continue
        values = fit.residual[group]
        off = np.abs(values - np.median(values))
        spread = 1.4826 * float(np.median(off))
        far[group] = off > max(_FAR * spread, _SMALLEST)
    return np.flatnonzero(far)


def _far_forces(scan: Scan) -> np.ndarray:
    known = np.isfinite(scan.max_force)
    if known.sum() < _FEWEST:
        return np.zeros(0, dtype=np.int64)
    typical = float(np.median(scan.max_force[known]))
    return np.flatnonzero(known & (scan.max_force > max(_LARGE_FORCE, 10.0 * typical)))
