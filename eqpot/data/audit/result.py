"""The audit: findings and a table for each set, for eyes and for machines."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from eqpot.data.audit.composition import CompositionFit
from eqpot.data.audit.findings import SEVERITIES, Finding
from eqpot.data.audit.scan import GroupTotals, Scan
from eqpot.data.audit.screen import finding_lines


@dataclass(frozen=True)
class Audit:
    """What an audit found; ``str()`` gives the tables and findings, errors first.

    On the screen findings of one cause over several sets are one, sources are short and notes have
    no remedy; :meth:`as_dict` keeps everything.

    Attributes
    ----------
    findings
        Errors first, then warnings, then notes.
    sets
        Table of each set by name, as plain values: ``n_frames``, ``n_atoms``, ``labels`` (frames
        that carry each), ``n_isolated_atoms``, ``n_sampled``, ``elements`` and ``config_types``
        (what each contributes: frames, atoms, rms of a force component in eV/Å, standard
        deviation of the energy after the composition fit in eV/atom), ``scales`` (the evidence
        for units and signs).
    """

    findings: list[Finding] = field(default_factory=list)
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def errors(self) -> list[Finding]:
        """Findings that must stop a training."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that need a look."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    @property
    def has_errors(self) -> bool:
        """Whether there is an error among the findings."""
        return bool(self.errors)

    def as_dict(self) -> dict[str, Any]:
        """Return sets and findings as plain values, for JSON; what is not finite is None."""
        return {
            "sets": {name: _plain(table) for name, table in self.sets.items()},
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def __str__(self) -> str:
        lines: list[str] = []
        for name, table in self.sets.items():
            lines += _set_lines(name, table)
        lines += finding_lines(self.findings)
        counted = ", ".join(
            f"{n} {severity}{'' if n == 1 else 's'}"
            for severity in SEVERITIES
            if (n := sum(f.severity == severity for f in self.findings))
        )
        lines.append(f"audit: {counted or 'nothing found'}")
        return "\n".join(lines)


def set_table(scan: Scan, fit: CompositionFit | None, scales: dict[str, object]) -> dict[str, Any]:
    """Return the table of a set."""
    residual = np.full(scan.n_frames, np.nan) if fit is None else fit.residual
    holds = {
        z: np.array([any(z == other for other, _ in c) for c in scan.compositions], dtype=np.bool_)
        for z in scan.by_element
    }
    return {
        "n_frames": scan.n_frames,
        "n_atoms": scan.counts.n_atoms,
        "n_isolated_atoms": int(scan.isolated.sum()),
        "n_sampled": len(scan.sampled),
        "labels": dict(scan.counts.items()),
        "elements": {
            chemical_symbols[z]: _group_row(totals, residual[holds[z][scan.composition]])
            for z, totals in sorted(scan.by_element.items())
        },
        "config_types": {
            name: _group_row(totals, residual[scan.config == scan.configs.index(name)])
            for name, totals in scan.by_config.items()
        },
        "n_compositions": len(scan.compositions),
        "composition_rank": None if fit is None else fit.rank,
        "closest_contact": float(scan.closest.min(initial=np.inf)),
        "largest_force": float(np.nan_to_num(scan.max_force).max(initial=0.0)),
        "scales": scales,
    }


def _group_row(totals: GroupTotals, residual: np.ndarray) -> dict[str, Any]:
    known = residual[np.isfinite(residual)]
    return {
        "n_frames": totals.n_frames,
        "n_atoms": totals.n_atoms,
        "force_rms": totals.force_rms,
        "energy_spread": float(known.std()) if len(known) > 1 else None,
    }


def _set_lines(name: str, table: dict[str, Any]) -> list[str]:
    labels = ", ".join(f"{label} {n}/{table['n_frames']}" for label, n in table["labels"].items())
    lines = [f"{name}: {table['n_frames']} frames, {table['n_atoms']} atoms: {labels}"]
    header = f"  {'':<24}{'frames':>8}{'atoms':>10}{'force rms':>12}{'energy spread':>15}"
    units = f"  {'':<24}{'':>8}{'':>10}{'eV/Å':>12}{'eV/atom':>15}"
    lines += [header, units]
    for group in ("elements", "config_types"):
        for key, row in list(table[group].items())[:30]:
            if group == "config_types" and not key and len(table[group]) == 1:
                continue
            lines.append(
                f"  {(key or '(no config_type)')[:23]:<24}{row['n_frames']:>8}{row['n_atoms']:>10}"
                f"{_cell(row['force_rms']):>12}{_cell(row['energy_spread']):>15}"
            )
        if len(table[group]) > 30:
            lines.append(f"  and {len(table[group]) - 30} more")
    return lines


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
