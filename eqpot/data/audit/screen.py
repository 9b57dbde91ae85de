"""Findings as lines for the screen: one for each cause, short sources, notes without remedies."""

from collections.abc import Sequence

from eqpot.data.audit.findings import Finding, short_sources


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Return lines for findings: those of one cause over several sets are told together."""
    groups: dict[object, list[Finding]] = {}
    for number, finding in enumerate(findings):
        one_set = len(finding.sets) == 1 and _told(finding) is not None
        key = (finding.severity, finding.cause) if one_set else number
        groups.setdefault(key, []).append(finding)
    lines = []
    for group in groups.values():
        lines += _lines(group)
    return lines


def _told(finding: Finding) -> str | None:
    """Return the message without the name of the set at its head, or None if it has none there."""
    head = f"{finding.sets[0]}: "
    return finding.message.removeprefix(head) if finding.message.startswith(head) else None


def _lines(group: Sequence[Finding]) -> list[str]:
    first = group[0]
    if len(group) == 1:
        return [str(first)]
    told = _told(first)
    names = ", ".join(finding.sets[0] for finding in group)
    same = all(_told(finding) == told for finding in group)
    numbers = "" if same else f" (numbers of {first.sets[0]})"
    lines = [f"{first.severity}: {names}: {told}{numbers} [{first.cause}]"]
    if first.severity == "note":
        return lines
    if first.remedy:
        lines.append(f"  do: {first.remedy}")
    for finding in group:
        if finding.frames:
            lines.append(f"  in: {short_sources(finding.frames, finding.n_frames)}")
    return lines
