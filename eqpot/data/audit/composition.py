"""Energies less those of the elements, and whether the elements can be told apart."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from eqpot.data.audit.findings import Finding
from eqpot.data.audit.scan import Scan

Array = NDArray[np.float64]

_RANK: Final = 1e-8
"""Directions of composition with a singular value below this part of the largest do not vary."""


@dataclass(frozen=True)
class CompositionFit:
    """A least-squares fit of the energies by composition, isolated atoms left out.

    Attributes
    ----------
    elements
        Atomic numbers of the columns.
    energies
        Energy of each element, eV; of smallest norm where undetermined.
    rank
        Independent compositions.
    residual
        Energy less the fit, by atom, eV; NaN for frames left out.
    undetermined
        Elements whose energies the compositions cannot tell apart.
    """

    elements: tuple[int, ...]
    energies: Array
    rank: int
    residual: Array
    undetermined: tuple[int, ...]


def fit_composition(scan: Scan) -> CompositionFit | None:
    """Return the fit, or None without energies.

    Frames of one composition enter by their mean, weighted by their number, so a million frames
    cost no more than their compositions.
    """
    used = np.isfinite(scan.energy) & ~scan.isolated
    if not used.any():
        return None
    elements = sorted({z for composition in scan.compositions for z, _ in composition})
    column = {z: k for k, z in enumerate(elements)}
    counts = np.zeros((len(scan.compositions), len(elements)))
    for row, composition in enumerate(scan.compositions):
        for z, count in composition:
            counts[row, column[z]] = count
    n = np.bincount(scan.composition[used], minlength=len(counts)).astype(np.float64)
    sums = np.bincount(scan.composition[used], scan.energy[used], minlength=len(counts))
    seen = n > 0
    size = counts[seen].sum(axis=1)
    fractions = counts[seen] / size[:, None]
    per_atom = sums[seen] / n[seen] / size
    weight = np.sqrt(n[seen])
    mean = float((per_atom * n[seen]).sum() / n[seen].sum())
    u, values, vt = np.linalg.svd(fractions * weight[:, None], full_matrices=False)
    kept = values > _RANK * values[0]
    energies = vt[kept].T @ ((u[:, kept].T @ ((per_atom - mean) * weight)) / values[kept]) + mean
    there = np.flatnonzero((fractions > 0.0).any(axis=0))
    # an element is determined where its unit vector lies in the row space
    missing = 1.0 - (vt[kept] ** 2).sum(axis=0)
    undetermined = tuple(elements[k] for k in there if missing[k] > 1e-6)
    residual = np.full(scan.n_frames, np.nan)
    fitted = counts @ energies
    residual[used] = (scan.energy[used] - fitted[scan.composition[used]]) / scan.n_atoms[used]
    return CompositionFit(tuple(elements), energies, int(kept.sum()), residual, undetermined)


def check_rank(scan: Scan, fit: CompositionFit | None) -> list[Finding]:
    """Return a finding where E0 of some elements cannot be told apart by a fit."""
    if fit is None or not fit.undetermined:
        return []
    isolated = {
        scan.compositions[k][0][0]
        for k in set(scan.composition[scan.isolated & np.isfinite(scan.energy)].tolist())
    }
    left = [z for z in fit.undetermined if z not in isolated]
    if not left:
        return []
    names = ", ".join(chemical_symbols[z] for z in left)
    return [
        Finding(
            "warning" if isolated else "note",
            "composition",
            "composition.rank",
            f"{scan.name}: {fit.rank} independent compositions for {len(fit.elements)} elements: "
            f"a fit cannot tell apart E0 of {names}",
            "give frames of the isolated atoms, or their energies in the recipe "
            "(`reference_energies`), if atoms are to come apart",
            (scan.name,),
        )
    ]
