"""Labels that have nothing to do with each other, and what of them could not be checked.

A unit or a sign is a factor between labels. Labels of another calculation, another step or another
order of frames have none: neighbouring frames then differ in energy as if there were no forces.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from eqpot.data.audit.displacements import Pairs
from eqpot.data.audit.evidence import Evidence, scattered
from eqpot.data.audit.findings import Finding
from eqpot.data.audit.fitted import AS_READ, Fit
from eqpot.data.audit.scan import Scan
from eqpot.data.audit.stress import StressVerdict

_FEWEST_PAIRS: Final = 30
_RANK: Final = 0.3
"""Rank correlation of energy differences with the work: sound sets have 0.9 and more."""
_ALONG: Final = 0.1
"""Cosine between displacements and the change of forces: sound sets have 0.13 to 0.9."""
_LARGEST_SPREAD: Final = 0.2
_FAR: Final = 0.35
"""Of the logarithm of a ratio: a fifth of error comes from coarse grids, a third does not."""


def check_unrelated_forces(scan: Scan, fit: Fit | None, pairs: Pairs) -> list[Finding]:
    """Return whether forces have nothing to do with the structures.

    Between neighbours they must change against the displacement, on average, and a potential must
    explain some of them.
    """
    close = (pairs.shift > 0.0) & (pairs.change > 0.0)
    if fit is None or fit.explained[AS_READ] > 0.3 or close.sum() < _FEWEST_PAIRS:
        return []
    along = pairs.curvature[close] / np.sqrt(pairs.change[close] * pairs.shift[close])
    middle = float(np.median(along))
    if abs(middle) > _ALONG:
        return []
    return [
        Finding(
            "warning",
            "forces",
            "forces.unrelated",
            f"{scan.name}: the forces seem to have nothing to do with the structures: a quick "
            f"potential explains {100 * max(fit.explained[AS_READ], 0.0):.0f} % of them, and "
            "between neighbouring frames they change as often along the displacement as against "
            f"it (cosine {middle:.2f}, {int(close.sum())} pairs)",
            "check that forces and positions are of the same step, in the same order of frames "
            "and atoms, and in the same orientation",
            (scan.name,),
            scan.counts.present["forces"],
        )
    ]


def check_unrelated_energies(
    scan: Scan,
    evidence: Evidence,
    fit: Fit | None,
    pairs: Pairs,
    stress: StressVerdict | None,
) -> list[Finding]:
    """Return whether energies have nothing to do with forces that fit the structures well.

    Compared are only frames of one composition and, in crystals, of one lattice, unless a stress
    that is right gives the work between two cells. An error needs two witnesses where both can
    speak, the fit and the frames that lie close; a warning one.
    """
    if fit is None or evidence.work is not None or fit.explained[AS_READ] < 0.6:
        return []
    explained = f"a quick potential explains {100 * fit.explained[AS_READ]:.0f} % of the forces"
    sure = fit.explained[AS_READ] > 0.9 and evidence.n_agreement >= 25
    certain = sure and abs(evidence.agreement) < 0.3 and scattered(pairs)
    rank, n_pairs = rank_of_work(pairs, stress)
    if not certain and not (n_pairs >= _FEWEST_PAIRS and rank < _RANK):
        return []
    seen = []
    if certain:
        seen.append(
            f"its energies have a correlation of {evidence.agreement:.2f} with the labels "
            f"({evidence.n_agreement} frames)"
        )
    if n_pairs >= _FEWEST_PAIRS:
        seen.append(
            "energy differences of neighbouring frames have a rank correlation of "
            f"{rank:.2f} with the work of the forces ({n_pairs} pairs)"
        )
    return [
        Finding(
            "error" if certain else "warning",
            "energies",
            "energy.unrelated",
            f"{scan.name}: the energies {'' if certain else 'seem to '}have nothing to do with the "
            f"forces: {explained}; {'; '.join(seen)}",
            "check that the key is that of the total energy, and that energies and structures are "
            "in the same order",
            (scan.name,),
            scan.counts.present["energy"],
        )
    ]


def rank_of_work(pairs: Pairs, stress: StressVerdict | None) -> tuple[float, int]:
    """Return the rank correlation of energy differences with the work, and the number of pairs."""
    work = pairs.work
    known: NDArray[np.bool_] = np.abs(pairs.strain).max(axis=(1, 2), initial=0.0) < 1e-6
    if stress is None or not stress.causes():
        strained = np.einsum("pab,pab->p", pairs.mean_virial, pairs.strain)
        work = work + np.nan_to_num(strained)
        known = known | np.isfinite(strained)
    used = known & np.isfinite(pairs.energy) & (np.abs(work) > 1e-7)
    if used.sum() < 3 or not np.ptp(pairs.energy[used]):
        return math.nan, 0
    return float(spearmanr(pairs.energy[used], work[used]).statistic), int(used.sum())


def check_ratio(scan: Scan, evidence: Evidence) -> list[Finding]:
    """Return whether energies over work are far from 1 and from every usual factor."""
    work = evidence.work
    if work is None or work.value <= 0.0 or work.spread > _LARGEST_SPREAD:
        return []
    if abs(math.log(work.value)) < max(4.0 * work.spread, _FAR):
        return []
    return [
        Finding(
            "warning",
            "units",
            "energy.work_ratio",
            f"{scan.name}: energy differences are {work} of the work of the forces, not 1, and no "
            "usual unit explains the ratio",
            "check that energies and forces are of one calculation, and that neither was scaled",
            (scan.name,),
            scan.n_frames,
        )
    ]


def check_unchecked(
    scan: Scan,
    evidence: Evidence,
    stress: StressVerdict | None,
    *,
    judged: bool,
    forces_garbled: bool,
) -> list[Finding]:
    """Return notes on what could not be checked, and what was and agrees with nothing.

    Parameters
    ----------
    judged
        Whether another finding already says what is wrong with energies or forces.
    forces_garbled
        Whether the forces are of no use, so that nothing was held against them.
    """
    untold = []
    disagree = []
    both = scan.counts.present["energy"] > 0 and scan.counts.present["forces"] > 0
    if both and evidence.work is None:
        if evidence.n_compared:
            disagree.append(f"energies with forces ({evidence.n_compared} compared)")
        else:
            untold.append("energies against forces")
    if scan.counts.present["forces"] > 0 and evidence.stiffness is None:
        untold.append("the scale and sign of forces")
    if scan.counts.present["stress"] > 0 and stress is None:
        untold.append("stress against forces")
    why = "too few frames of the same atoms, or too different ones,"
    if forces_garbled:
        why = "no sound forces"
    findings = []
    if untold:
        findings.append(
            Finding(
                "note",
                "units",
                "units.unchecked",
                f"{scan.name}: {why} to check {' and '.join(untold)}",
                "units and signs of this set rest on what the file says",
                (scan.name,),
            )
        )
    if disagree and not judged:
        findings.append(
            Finding(
                "note",
                "units",
                "units.unclear",
                f"{scan.name}: checked, but no clear ratio came out: " + " and ".join(disagree),
                "units and signs of this set rest on what the file says; states of different "
                "spin or charge in one set do this, and so do noisy labels",
                (scan.name,),
            )
        )
    return findings
