"""Labels that are absent, not read, or the same in every frame."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from eqpot import keys
from eqpot.data.audit.findings import Finding
from eqpot.data.audit.scan import Scan
from eqpot.data.frames import LABELS
from eqpot.data.readers import LabelReport

_CONSTANT: Final = 1e-9
_SAME: Final = 1e-6
"""Part by which invariants of one structure may differ, as files round positions."""


def check_labels(scan: Scan, report: LabelReport | None) -> list[Finding]:
    """Return findings on presence of labels and on labels that do not vary."""
    findings = []
    for label in LABELS:
        present = scan.counts.present[label]
        if label == keys.STRESS and not np.isfinite(scan.volume).any():
            continue
        if present == 0:
            findings += _unread(scan, label, report) or [_absent(scan, label)]
        elif present < _could_have(scan, label):
            findings += _unread(scan, label, report)
            findings.append(
                Finding(
                    "note",
                    "labels",
                    f"labels.partial.{label}",
                    f"{scan.name}: {present} of {scan.n_frames} frames have {label}; losses and "
                    "errors are taken over those",
                    "",
                    (scan.name,),
                    scan.n_frames - present,
                )
            )
    if not any(scan.counts.present.values()):
        findings.append(
            Finding(
                "warning",
                "labels",
                "labels.none",
                f"{scan.name}: no frame has energy, forces or stress: nothing to learn from",
                "to train a potential, name the keys of the labels, or give files that have them",
                (scan.name,),
                scan.n_frames,
            )
        )
    if report is not None and report.n_stress_dropped:
        findings.append(
            Finding(
                "warning",
                "labels",
                "labels.stress_dropped",
                f"{scan.name}: the stress of {report.n_stress_dropped} frames is left out, as they "
                "are not periodic in three directions",
                'write `pbc="T T T"` if they are crystals',
                (scan.name,),
                report.n_stress_dropped,
            )
        )
    findings += _constant(scan)
    return findings


def _could_have(scan: Scan, label: str) -> int:
    if label == keys.FORCES:
        return int((~scan.isolated).sum())
    if label == keys.STRESS:
        return int((np.isfinite(scan.volume) & ~scan.isolated).sum())
    return scan.n_frames


def _unread(scan: Scan, label: str, report: LabelReport | None) -> list[Finding]:
    """Return whether frames without a label may have it under a name that is not read."""
    like = [] if report is None else report.unread(label)
    if not like:
        return []
    shown = ", ".join(f"`{name}`" for name in like)
    option = "`energy_key`" if label == keys.ENERGY else f"`{label}_key`"
    if label == keys.STRESS:
        option = "`stress_key` or `virial_key`"
    present = scan.counts.present[label]
    missing = _could_have(scan, label) - present
    what = f"only {present} of {scan.n_frames} frames have {label} under a usual name"
    remedy = f"if that is the {label} of the others, write it under one name in all frames"
    if present == 0:
        what = f"no frame has {label} under a usual name"
        remedy = f"if that is the {label}, name it with {option}"
    return [
        Finding(
            "warning",
            "labels",
            f"labels.unread.{label}",
            f"{scan.name}: {what}, but there is {shown}",
            remedy,
            (scan.name,),
            missing if present else scan.n_frames,
        )
    ]


def _absent(scan: Scan, label: str) -> Finding:
    return Finding(
        "warning" if label == keys.FORCES else "note",
        "labels",
        f"labels.absent.{label}",
        f"{scan.name}: no frame has {label}",
        "compute them, unless other training files have them: energies alone are not enough"
        if label == keys.FORCES
        else "",
        (scan.name,),
        scan.n_frames,
    )


def _constant(scan: Scan) -> list[Finding]:
    findings = []
    used = np.isfinite(scan.energy) & ~scan.isolated & (np.nan_to_num(scan.force_rms) > 0.01)
    energies = scan.energy[used]
    if not _differ(scan, used):
        energies = energies[:0]
    if len(energies) >= 4 and float(np.ptp(energies)) <= _CONSTANT * float(
        np.abs(energies).max(initial=1.0)
    ):
        findings.append(_constant_finding(scan, "energy", energies, "the energy"))
    used = np.isfinite(scan.stress_size) & ~scan.isolated
    stresses = scan.stress_size[used]
    if len(stresses) >= 4 and not stresses.any() and _differ(scan, used):
        findings.append(_constant_finding(scan, "stress", stresses, "every stress entry"))
    return findings


def _differ(scan: Scan, used: NDArray[np.bool_]) -> bool:
    """Return whether the structures of frames differ, not only their orientation or order."""
    if len(set(scan.composition[used].tolist())) > 1:
        return True
    invariants = scan.invariants[used]
    size = np.abs(invariants).max(axis=0, initial=1e-300)
    return bool((np.ptp(invariants, axis=0) > _SAME * size).any()) if len(invariants) else False


def _constant_finding(scan: Scan, label: str, values: NDArray[np.float64], what: str) -> Finding:
    return Finding(
        "error",
        "labels",
        f"{label}.constant",
        f"{scan.name}: {what} is {values[0]:.6g} in all of {len(values)} frames, though their "
        "structures differ",
        "labels that were not computed must be left out of the file, not written as a constant",
        (scan.name,),
        len(values),
    )
