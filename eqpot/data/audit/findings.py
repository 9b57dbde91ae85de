"""What an audit says: a finding, with its cause, the frames and the remedy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Severity = Literal["error", "warning", "note"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")
MOST_NAMED: Final = 20
"""Frames that a finding names; ``n_frames`` counts all of them."""


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found.

    Attributes
    ----------
    severity
        ``"error"``: training on this is wrong. ``"warning"``: it may be. ``"note"``: good to know,
        such as what was sampled or could not be checked.
    check
        The check that found it, such as ``"duplicates"``.
    cause
        Short and for machines, such as ``"units.energy.kcal_per_mol"``.
    message
        What was found, in which set, with the numbers that show it.
    remedy
        What to do.
    sets
        Names of the sets concerned.
    n_frames
        Number of frames concerned.
    frames
        Sources of up to 20 of them.
    """

    severity: Severity
    check: str
    cause: str
    message: str
    remedy: str
    sets: tuple[str, ...] = ()
    n_frames: int = 0
    frames: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.severity}: {self.message} [{self.cause}]"]
        if self.remedy:
            lines.append(f"  do: {self.remedy}")
        if self.frames:
            shown = ", ".join(self.frames[:3])
            more = "" if self.n_frames <= 3 else f" and {self.n_frames - 3} more"
            lines.append(f"  in: {shown}{more}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as plain values, for JSON."""
        return {
            "severity": self.severity,
            "check": self.check,
            "cause": self.cause,
            "message": self.message,
            "remedy": self.remedy,
            "sets": list(self.sets),
            "n_frames": self.n_frames,
            "frames": list(self.frames),
        }


def named(sources: Sequence[str]) -> tuple[str, ...]:
    """Return the first sources, as many as a finding names."""
    return tuple(sources[:MOST_NAMED])
