"""What an audit says: a finding, with its cause, the frames and the remedy."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

Severity = Literal["error", "warning", "note"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")
MOST_NAMED: Final = 20
"""Frames that a finding names; ``n_frames`` counts all of them."""

_SOURCE: Final = re.compile(r"(?P<file>.*), frame (?P<number>\d+)")
_SHOWN: Final = 3


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
        if self.severity == "note":
            return lines[0]
        if self.remedy:
            lines.append(f"  do: {self.remedy}")
        if self.frames:
            lines.append(f"  in: {short_sources(self.frames, self.n_frames)}")
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


def short_sources(sources: Sequence[str], n_frames: int) -> str:
    """Return the first sources with each file named once, by its last part.

    Examples
    --------
    >>> short_sources(["a/train.xyz, frame 2", "a/train.xyz, frame 7"], 2)
    'frames 2, 7 of train.xyz'
    """
    shown = sources[:_SHOWN]
    by_file: dict[str, list[str]] = {}
    parts = []
    for source in shown:
        match = _SOURCE.fullmatch(source)
        if match is None:
            parts.append(source)
        else:
            by_file.setdefault(match["file"], []).append(match["number"])
    names = [Path(file).name for file in by_file]
    for file, numbers in by_file.items():
        name = Path(file).name
        if names.count(name) > 1:
            name = file
        parts.append(f"frame{'s' if len(numbers) > 1 else ''} {', '.join(numbers)} of {name}")
    more = n_frames - len(shown)
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")
