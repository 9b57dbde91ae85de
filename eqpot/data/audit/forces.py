"""Forces by themselves: zeroed ones, sums and torques that must vanish, wrong orders."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from eqpot.data.audit.findings import Finding, named
from eqpot.data.audit.fitted import AS_READ, Fit
from eqpot.data.audit.scan import Scan, sources
from eqpot.data.frames import Frame
from eqpot.data.neighbors import neighbor_list

Array = NDArray[np.float64]

_PULL: Final = 1e-3
"""Symmetry makes sums over neighbours vanish to the rounding of positions; this is far above."""
_LARGE_NET: Final = 0.1
_LARGE_TORQUE: Final = 0.1
"""Parts of what random forces would give. Sound sets have below 0.02; fields from outside (point
charges around a molecule) give more, so these are warnings."""
_FEWEST: Final = 5
_LOOKED_AT: Final = 40


def check_forces(scan: Scan, frames: Sequence[Frame], fit: Fit | None) -> list[Finding]:
    """Return findings about forces that need no other label."""
    if not np.isfinite(scan.force_rms).any():
        return []
    flat = _component_zero(scan, frames)
    if flat:
        return flat
    zeroed = _zeroed(scan, frames)
    findings = list(zeroed)
    order = _order(scan, fit)
    findings += order
    if not order:
        findings += _sums(scan, frames, bool(zeroed))
    return findings


def site_pull(frame: Frame) -> Array:
    """Return how far the surroundings of each atom are from symmetric, between 0 and 1 or so.

    Sums ``Σ_j g(r_ij) r̂_ij`` with several functions g, relative to ``Σ_j g``: on a site where
    symmetry forbids a force they all vanish, and so does every force.
    """
    (i, j), shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, 5.0)
    n_atoms = len(frame)
    if not len(i):
        return np.zeros((n_atoms, 3))
    cell = np.where(frame.pbc[:, None], frame.cell, 0.0)
    vectors = frame.positions[j] - frame.positions[i] + shifts @ cell
    r = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.maximum(r, 1e-12)[:, None]
    radius = covalent_radii[frame.atomic_numbers[j]]
    largest = np.zeros((n_atoms, 3))
    for decay in (0.4, 1.0):
        weight = np.exp(-r / decay) * (1.0 - (r / 5.0) ** 2) ** 2 * radius
        total = np.bincount(i, weight, minlength=n_atoms)
        for axis in range(3):
            pull = np.bincount(i, weight * unit[:, axis], minlength=n_atoms)
            largest[:, axis] = np.maximum(largest[:, axis], np.abs(pull) / np.maximum(total, 1e-30))
    return largest


def _component_zero(scan: Scan, frames: Sequence[Frame]) -> list[Finding]:
    """Return whether one component of all forces is zero though the structures allow one."""
    candidates = np.flatnonzero((np.nan_to_num(scan.force_rms) > 0.0) & (scan.n_atoms > 1))
    if not len(candidates):
        return []
    if len(candidates) > _LOOKED_AT:
        generator = np.random.default_rng(0)
        candidates = np.sort(generator.choice(candidates, _LOOKED_AT, replace=False))
    wrong: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for k in candidates.tolist():
        frame = frames[k]
        assert frame.forces is not None
        zero = np.flatnonzero((frame.forces == 0.0).all(axis=0))
        if len(zero):
            pull = site_pull(frame).max(axis=0)
            for axis in zero[pull[zero] > 20 * _PULL].tolist():
                wrong[axis].append(k)
    axes = [axis for axis, found in wrong.items() if 2 * len(found) > len(candidates)]
    if not axes:
        return []
    names = " and ".join("xyz"[axis] for axis in axes)
    found = wrong[axes[0]]
    return [
        Finding(
            "error",
            "forces",
            "forces.component_zero",
            f"{scan.name}: the {names} component of every force is exactly zero in {len(found)} of "
            f"{len(candidates)} frames looked at, though the structures are not symmetric along it",
            "write all three components of the forces; a column may have been lost or set to zero",
            (scan.name,),
            round(len(found) / len(candidates) * scan.counts.present["forces"]),
            named(sources(frames, found)),
        )
    ]


def _zeroed(scan: Scan, frames: Sequence[Frame]) -> list[Finding]:
    """Return whether forces of atoms were set to zero that have no reason to be so."""
    candidates = np.flatnonzero((scan.n_zero_forces > 0.0) & ~scan.isolated & (scan.n_atoms > 1))
    if not len(candidates):
        return []
    generator = np.random.default_rng(0)
    looked_at = candidates
    if len(candidates) > _LOOKED_AT:
        looked_at = np.sort(generator.choice(candidates, _LOOKED_AT, replace=False))
    wrong, n_atoms, everywhere = [], 0, 0
    for k in looked_at.tolist():
        frame = frames[k]
        assert frame.forces is not None
        zero = (frame.forces == 0.0).all(axis=1)
        pulled = zero & (site_pull(frame).max(axis=1) > 20 * _PULL)
        if pulled.any():
            wrong.append(k)
            n_atoms += int(pulled.sum())
            everywhere += bool(zero.all())
    if not wrong:
        return []
    estimated = round(len(wrong) / len(looked_at) * len(candidates))
    every = everywhere == len(wrong)
    what = "all atoms" if every else f"{n_atoms} atoms"
    return [
        Finding(
            "error",
            "forces",
            "forces.all_zero" if every else "forces.zeroed",
            f"{scan.name}: {what} in {len(wrong)} of {len(looked_at)} frames looked at have a "
            "force of exactly zero on a site whose surroundings are not symmetric",
            "forces that were not computed must be left out of the file, not written as zeros"
            if every
            else "write the forces that were computed: ASE and others zero those of constrained "
            "atoms unless asked not to (`atoms.get_forces(apply_constraint=False)`)",
            (scan.name,),
            estimated,
            named(sources(frames, wrong)),
        )
    ]


def _order(scan: Scan, fit: Fit | None) -> list[Finding]:
    """Return whether another order of atoms or axes explains the forces far better."""
    if fit is None or len(fit.frames) < 10:
        return []
    as_read = fit.explained[AS_READ]
    others = {name: value for name, value in fit.explained.items() if name != AS_READ}
    best = max(others, key=lambda name: others[name])
    # the unexplained part must shrink to a half, and what is explained double
    if others[best] < 0.3 or as_read > 0.5 * others[best]:
        return []
    if (1.0 - others[best]) > 0.7 * (1.0 - max(as_read, 0.0)):
        return []
    causes = {
        "transposed": (
            "forces.transposed",
            "as three rows of all atoms, not as a row for each atom",
            "transpose the array (3, n_atoms) before it is written atom by atom",
        ),
        "transposed back": (
            "forces.transposed",
            "as if (n_atoms, 3) had been read as (3, n_atoms) and transposed",
            "write the array as it is, a row for each atom",
        ),
    }
    if best in causes:
        cause, what, remedy = causes[best]
    elif best.startswith("axes"):
        cause, what = "forces.axes", f"with axes in the order {best[5:]}"
        remedy = "put the columns of the forces into the order x, y, z"
    else:
        how = {
            "atoms.reversed": "from the last atom to the first",
            "atoms.sorted": "with atoms sorted by atomic number",
            "atoms.sorted down": "with atoms sorted by falling atomic number",
        }[best]
        cause, what = "forces.atom_order", how
        remedy = "write forces and positions in one order of atoms"
    return [
        Finding(
            "error",
            "forces",
            cause,
            f"{scan.name}: the forces fit the structures only if they are read {what}: a quick "
            f"potential then explains {100 * others[best]:.0f} % of them, as read "
            f"{100 * max(as_read, 0.0):.0f} % ({len(fit.frames)} frames of the sample)",
            remedy,
            (scan.name,),
            scan.counts.present["forces"],
        )
    ]


def _sums(scan: Scan, frames: Sequence[Frame], zeroed: bool) -> list[Finding]:
    findings = []
    many = scan.n_atoms > 1
    size = np.nan_to_num(scan.force_rms) > 0.02
    for values, limit, cause, what, hint in (
        (
            scan.net_force,
            _LARGE_NET,
            "forces.net_force",
            "forces that do not add up to zero",
            "some atoms may be missing or have forces that were set to zero, or the "
            "calculation had a coarse grid; a potential has no net force and cannot learn one",
        ),
        (
            scan.torque,
            _LARGE_TORQUE,
            "forces.torque",
            "forces that turn the molecule as a whole",
            "forces and positions may be in different orientations or orders of atoms, or the "
            "molecule was in an outer field; a potential without field cannot learn them",
        ),
    ):
        wrong = np.flatnonzero(many & size & (np.nan_to_num(values) > limit))
        known = int(np.isfinite(values[many & size]).sum())
        if len(wrong) < min(_FEWEST, max(1, known)) or (zeroed and cause == "forces.net_force"):
            continue
        worst = wrong[np.argsort(-values[wrong])]
        findings.append(
            Finding(
                "warning",
                "forces",
                cause,
                f"{scan.name}: {len(wrong)} of {known} frames have {what}: up to "
                f"{values[worst[0]]:.2g} of what random forces would give",
                hint,
                (scan.name,),
                len(wrong),
                named(sources(frames, worst.tolist())),
            )
        )
    return findings
