"""Findings on units and signs, from the verdicts over all readings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from eqpot import keys
from eqpot.data.audit.displacements import Pairs, pair_up
from eqpot.data.audit.evidence import Evidence, gather
from eqpot.data.audit.findings import Finding, Severity, named
from eqpot.data.audit.fitted import AS_READ, Fit
from eqpot.data.audit.readings import DECLARED, ENERGY_UNITS, Reading, rank
from eqpot.data.audit.scan import Scan
from eqpot.data.audit.stress import VIRIAL, StressVerdict, asymmetric, judge_stress
from eqpot.data.audit.unrelated import (
    check_ratio,
    check_unchecked,
    check_unrelated_energies,
    check_unrelated_forces,
)

ERROR: Final = 5.0
"""Odds of e^5 = 150 to 1, after what it costs beforehand, stop a training."""
WARNING: Final = 1.5
_RIVAL: Final = 1.5
"""A reading is named beside the best one if its odds are no worse than this."""
_FAR: Final = 2.7
"""Atoms are too stiff or too soft from this many spreads on."""
_NEAR: Final = math.log(2.0)
"""An energy unit within this of what explains it is named."""
_SLACK: Final = 1.0
_MOST_SAID: Final = 6.0
"""What the stress can say for or against a reading of the other labels, in e-foldings."""
_STRESS_UNITS: Final = {
    "ev_per_angstrom3": "eV/Angstrom^3",
    "gpa": "GPa",
    "kbar": "kbar",
    "mpa": "MPa",
    "bar": "bar",
    "hartree_per_bohr3": "Hartree/Bohr^3",
    "rydberg_per_bohr3": "Rydberg/Bohr^3",
    "kcal_per_mol_per_angstrom3": "kcal/mol/Angstrom^3",
}
_VIRIAL_UNITS: Final = {
    "ev_per_angstrom3": "eV",
    "hartree_per_bohr3": "Hartree",
    "rydberg_per_bohr3": "Rydberg",
    "kcal_per_mol_per_angstrom3": "kcal/mol",
}
"""Of the virial that a stress in some unit was made of."""


def check_scales(
    scan: Scan, fit: Fit | None, *, forces_garbled: bool = False, from_virial: bool = False
) -> tuple[list[Finding], dict[str, object]]:
    """Return findings on units and signs of one set, and the evidence for the tables.

    Parameters
    ----------
    scan
        The set.
    fit
        The quick potential.
    forces_garbled
        Whether the forces are known to be zeroed or in a wrong order. Nothing can then be measured
        by them.
    from_virial
        Whether the stress was made of a virial, whose unit is declared as such.
    """
    unrelated: list[Finding] = []
    if not forces_garbled:
        pairs = pair_up(scan.sampled)
        unrelated = check_unrelated_forces(scan, fit, pairs)
    forces_garbled = forces_garbled or bool(unrelated)
    if forces_garbled:
        fit, pairs = None, pair_up([])
    evidence = gather(scan.sampled, pairs, fit, scan.nearest[scan.n_atoms > 2])
    verdict, stress = _judge(evidence, pairs, fit)
    declaration = _declaration(scan, verdict, stress, from_virial)
    findings = _units(scan, verdict, evidence, declaration)
    suspected = [finding.cause for finding in findings]
    findings += unrelated
    if not suspected:
        findings += check_unrelated_energies(scan, evidence, fit, pairs, stress)
        findings += check_ratio(scan, evidence)
    if not findings:
        findings += _stiffness(scan, evidence)
    judged = bool(findings)
    findings += _stress(scan, stress, suspected if evidence.is_consistent else [], declaration)
    skew = asymmetric(scan.sampled)
    if skew:
        findings.append(
            Finding(
                "error",
                "stress",
                "stress.not_symmetric",
                f"{scan.name}: the stress of {len(skew)} of {len(scan.sampled)} frames looked at "
                "is not symmetric",
                "check the order in which its nine numbers are written",
                (scan.name,),
                len(skew),
                named([scan.sampled[k].source for k in skew]),
            )
        )
    findings += check_unchecked(
        scan, evidence, stress, judged=judged, forces_garbled=forces_garbled
    )
    numbers: dict[str, object] = dict(evidence.as_dict())
    numbers["fit_explains"] = None if fit is None else fit.explained[AS_READ]
    numbers["energy_correlation"] = None if math.isnan(evidence.agreement) else evidence.agreement
    numbers["stress"] = None if stress is None else dict(stress.scale)
    return findings, numbers


@dataclass(frozen=True)
class _Verdict:
    """The best reading, how much better it is than eV and Å in e-foldings of odds, its rivals.

    ``stress`` is the verdict on the stress if that reading is right.
    """

    reading: Reading
    advantage: float
    stress: StressVerdict | None
    others: tuple[str, ...] = ()


def _judge(
    evidence: Evidence, pairs: Pairs, fit: Fit | None
) -> tuple[_Verdict, StressVerdict | None]:
    """Return the reading of energies, forces and positions, and that of the stress under it.

    Stress is a witness too: where energies and forces are in kcal/mol alike, only a stress in
    eV/Å³ (or one whose usual units fit no better) tells. But where energies are the work of the
    forces, a stress that disagrees is as likely to be the label that is wrong. It is then judged
    as if energies and forces were right, and may raise no suspicion against them that they
    contradict themselves.
    """
    ranked = [
        (odds, reading, judge_stress(pairs, fit, reading)) for odds, reading in rank(evidence)
    ]
    own, _, plain_stress = next(entry for entry in ranked if not entry[1].causes())
    if evidence.work is None and evidence.work_per_atom is None and evidence.total is None:
        # nothing was measured of the energies alone, so nothing can be wrong with them alone
        ranked = [entry for entry in ranked if not _changes_energy(entry[1]) or entry[1].keeps_work]
    if evidence.is_consistent:
        ranked = [entry for entry in ranked if entry[0] > own - _SLACK]
    most = max((stress.odds for _, _, stress in ranked if stress is not None), default=0.0)

    def said(stress: StressVerdict | None) -> float:
        # a single witness may be wrong for reasons that nobody thought of
        return -_MOST_SAID if stress is None else max(stress.odds - most, -_MOST_SAID)

    joint = [(odds + said(stress), reading, stress) for odds, reading, stress in ranked]
    as_read = own + said(plain_stress)
    total, reading, stress = max(joint, key=lambda entry: entry[0])
    under_reading = stress
    if evidence.is_consistent or (reading.causes() and total - as_read < WARNING):
        stress = plain_stress
    rivals = {
        " and ".join(other.causes())
        for odds, other, _ in joint
        if other.causes() and other != reading and odds > total - _RIVAL
    }
    return _Verdict(reading, total - as_read, under_reading, tuple(sorted(rivals))), stress


def _changes_energy(reading: Reading) -> bool:
    return reading.energy != "ev" or reading.per_atom or reading.energy_sign < 0


def _units(scan: Scan, verdict: _Verdict, evidence: Evidence, declaration: str) -> list[Finding]:
    if verdict.advantage < WARNING:
        return []
    reading = verdict.reading
    # what changes energies and forces alike rests on how stiff such atoms usually are, no more
    certain = verdict.advantage >= ERROR and not reading.keeps_work
    severity: Severity = "error" if certain else "warning"
    seen = _seen(evidence)
    if verdict.others:
        seen += "; nearly as likely: " + ", or ".join(verdict.others)
    findings = []
    for cause in reading.causes():
        message, remedy = _explain(cause, reading, declaration)
        check = "signs" if cause.startswith("sign") else "units"
        findings.append(
            Finding(
                severity,
                check,
                cause,
                f"{scan.name}: {message} (odds {_odds(verdict.advantage)}; {seen})",
                remedy,
                (scan.name,),
                scan.n_frames,
            )
        )
    return findings


def _odds(advantage: float) -> str:
    if advantage > math.log(1e6):
        return "above a million to one"
    return f"{math.exp(advantage):.0f} to one"


def _seen(evidence: Evidence) -> str:
    parts = []
    if evidence.work is not None:
        parts.append(f"energy differences are {evidence.work.value:.4g} of the work of the forces")
    if evidence.stiffness is not None:
        parts.append(f"stiffness {evidence.stiffness.value:.3g} eV/Å²")
    if evidence.nearest is not None:
        parts.append(f"neighbours at {evidence.nearest.value:.3g} of covalent radii")
    if evidence.total is not None and 0.001 < evidence.total.value < 1000.0:
        parts.append(f"total energies {evidence.total.value:.4g} of those with all electrons")
    return "; ".join(parts)


def _explain(cause: str, reading: Reading, declaration: str) -> tuple[str, str]:
    if cause.startswith("units.energy"):
        unit = DECLARED[reading.energy]
        return f"the energies seem to be in {unit}, not in eV", declaration
    if cause.startswith("units.forces"):
        return f"the forces seem to be in {_force_unit(reading)}, not in eV/Å", declaration
    if cause.startswith("units.positions"):
        unit = DECLARED[reading.length]
        return f"the positions seem to be in {unit}, not in Å", declaration
    if cause == "energy.per_atom":
        return (
            "the energies seem to be per atom, not of the whole structure",
            "multiply them by the number of atoms, or name another key with `energy_key`",
        )
    if cause == "sign.energy":
        return "the energies seem to have the wrong sign", "turn the sign of the energies"
    return (
        "the forces seem to have the wrong sign: gradients, not forces",
        "turn the sign: forces are -∂E/∂r",
    )


def _declaration(
    scan: Scan, verdict: _Verdict, stress: StressVerdict | None, from_virial: bool
) -> str:
    """Return how to declare the units of all labels at once.

    Those that are not declared follow energy and length, so a part of them would spoil the rest.
    """
    declared: dict[str, str] = {}
    if verdict.advantage >= WARNING:
        reading, stress = verdict.reading, verdict.stress
        if reading.energy != "ev":
            declared["energy"] = DECLARED[reading.energy]
        if reading.length != "angstrom":
            declared["length"] = DECLARED[reading.length]
        declared["forces"] = _force_unit(reading)
    open_question = ""
    if scan.counts.present[keys.STRESS] and stress is None:
        open_question = "; what unit the stress has could not be told: declare it too"
    elif stress is not None:
        unit = stress.unit if stress.advantage >= WARNING else "ev_per_angstrom3"
        if unit == VIRIAL or (from_virial and unit in _VIRIAL_UNITS):
            declared["virial"] = _VIRIAL_UNITS.get(unit, "eV")
        else:
            declared["stress"] = _STRESS_UNITS[unit]
    recipe = ", ".join(f"{quantity}: {unit}" for quantity, unit in declared.items())
    option = ",".join(f"{quantity}={unit}" for quantity, unit in declared.items())
    return (
        f"declare it: `units: {{{recipe}}}` under `data` of a recipe, `--units {option}` in "
        f"commands{open_question}"
    )


def _force_unit(reading: Reading) -> str:
    return f"{DECLARED[reading.force_energy]}/{DECLARED[reading.force_length]}"


def _stiffness(scan: Scan, evidence: Evidence) -> list[Finding]:
    """Return whether atoms are far stiffer or softer than such atoms are.

    Labels that are all in one foreign unit agree with each other; this alone can tell.
    """
    stiffness = evidence.stiffness
    median, spread = evidence.expected_stiffness
    if stiffness is None or stiffness.value <= 0.0:
        return []
    times = stiffness.value / median
    if abs(math.log(times)) < _FAR * max(spread, 0.6):
        return []
    remedy = "check the units of forces and positions, and of energies and stress with them"
    foreign = [unit for unit in ENERGY_UNITS if unit != "ev"]
    nearest = min(foreign, key=lambda unit: abs(math.log(times * ENERGY_UNITS[unit])))
    if abs(math.log(times * ENERGY_UNITS[nearest])) < _NEAR:
        unit = DECLARED[nearest]
        remedy += (
            f"; if energies are in {unit} and forces in {unit}/Å, declare it: `units: {{energy: "
            f"{unit}}}` under `data` of a recipe, `--units energy={unit}` in commands"
        )
    return [
        Finding(
            "warning",
            "units",
            "units.stiffness",
            f"{scan.name}: by forces and positions atoms have a stiffness of "
            f"{stiffness.value:.3g} eV/Å² ({stiffness.how}); such atoms have some {median:.3g}",
            remedy,
            (scan.name,),
            scan.n_frames,
        )
    ]


def _stress(
    scan: Scan, verdict: StressVerdict | None, suspected: Sequence[str], declaration: str
) -> list[Finding]:
    if verdict is None or verdict.advantage < WARNING:
        return []
    severity = "error" if verdict.advantage >= ERROR and verdict.is_certain else "warning"
    seen = ", ".join(f"{value:.4g} by {how}" for how, value in verdict.scale.items())
    if suspected:
        seen += "; or the stress is right and these are not: " + ", ".join(suspected)
    findings = []
    for cause in verdict.causes():
        if cause == "stress.virial":
            message = "the stress seems to be a virial, -V·stress in eV"
            remedy = "name its key with `virial_key` instead of `stress_key`"
        elif cause == "stress.times_volume":
            message = "the stress seems to be multiplied by the volume"
            remedy = "divide it by the volume"
        elif cause == "sign.stress":
            message = "the stress seems to have the wrong sign, positive under compression"
            remedy = (
                "turn the sign: here a stress is positive in tension (VASP writes the opposite)"
            )
        elif cause == "stress.order":
            message = (
                "the shears of the stress seem to be in another order; what is read as yz, xz, xy "
                f"is {verdict.order}"
            )
            remedy = "write nine numbers, or six in the order xx yy zz yz xz xy"
        else:
            unit = _STRESS_UNITS[verdict.unit]
            message = f"the stress seems to be in {unit}, not in eV/Å³"
            remedy = declaration
        check = "signs" if cause.startswith("sign") else "stress"
        findings.append(
            Finding(
                "error" if severity == "error" else "warning",
                check,
                cause,
                f"{scan.name}: {message} (odds {_odds(verdict.advantage)}; labels over what forces "
                f"and energies ask for: {seen})",
                remedy,
                (scan.name,),
                scan.counts.present["stress"],
            )
        )
    return findings
