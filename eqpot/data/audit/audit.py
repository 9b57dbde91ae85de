"""All checks over all sets of a training."""

from collections.abc import Mapping, Sequence

from eqpot import keys
from eqpot.data.audit.composition import check_rank, fit_composition
from eqpot.data.audit.distances import check_distances
from eqpot.data.audit.duplicates import check_duplicates
from eqpot.data.audit.findings import SEVERITIES, Finding
from eqpot.data.audit.fitted import fit_forces
from eqpot.data.audit.forces import check_forces
from eqpot.data.audit.labels import check_labels
from eqpot.data.audit.outliers import check_outliers
from eqpot.data.audit.result import Audit, set_table
from eqpot.data.audit.scales import check_scales
from eqpot.data.audit.scan import SAMPLE, scan
from eqpot.data.frames import Frame
from eqpot.data.readers import LabelReport


def audit_frames(
    sets: Mapping[str, Sequence[Frame]],
    *,
    reports: Mapping[str, LabelReport] | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
) -> Audit:
    """Return what is in the sets and what is wrong with them.

    Each set is read once from first to last, and a sample of it is kept; memory does not grow with
    the number of frames but for some 300 bytes each.

    Parameters
    ----------
    sets
        Frames by the name of the set: ``"train"``, ``"validation"``, ``"test.xyz"``. Anything with
        a length that can be indexed will do, such as a :class:`~eqpot.data.store.FrameStore`.
    reports
        What the readers found, by the same names: it tells of labels that were not read.
    sample
        Frames of each set for the checks that cost more than a pass, drawn in runs of two.
    seed
        Of the generator that draws them.

    Returns
    -------
    Audit
        Findings and tables.

    Raises
    ------
    ValueError
        If there is no set, or a set is empty.
    """
    if not sets:
        raise ValueError("an audit needs at least one set of frames")
    for name, frames in sets.items():
        if len(frames) == 0:
            raise ValueError(f"{name}: there is no frame in the set")
    findings: list[Finding] = []
    tables = {}
    scans = {}
    for name, frames in sets.items():
        scanned = scan(name, frames, sample=sample, seed=seed)
        scans[name] = scanned
        fit = fit_forces(scanned.sampled)
        composition = fit_composition(scanned)
        report = (reports or {}).get(name)
        findings += check_labels(scanned, report)
        findings += check_distances(scanned, frames)
        of_forces = check_forces(scanned, frames, fit)
        findings += of_forces
        garbled = any(finding.severity == "error" for finding in of_forces)
        found, scales = check_scales(
            scanned, fit, forces_garbled=garbled, from_virial=_has_virial(report)
        )
        findings += found
        findings += check_rank(scanned, composition)
        findings += check_outliers(scanned, frames, composition)
        if len(scanned.sampled) < scanned.n_frames:
            findings.append(
                Finding(
                    "note",
                    "sample",
                    "sampled",
                    f"{name}: units, signs and orders were checked on {len(scanned.sampled)} of "
                    f"{scanned.n_frames} frames, drawn with seed {seed}; labels, distances, "
                    "outliers and duplicates on all",
                    "",
                    (name,),
                )
            )
        tables[name] = set_table(scanned, composition, scales)
        scanned.sampled.clear()
    findings += check_duplicates(sets, scans)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Audit(findings, tables)


def _has_virial(report: LabelReport | None) -> bool:
    names = {} if report is None else report.names[keys.STRESS]
    return any("virial" in name.lower() for name in names)
