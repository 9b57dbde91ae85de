"""What a reader found in a file."""

import re
from dataclasses import dataclass, field
from typing import Final

from eqpot import keys
from eqpot.data.frames import Frame, LabelCounts, counted_frames

_LIKE: Final = {
    keys.ENERGY: re.compile(r"energ|(^|_)e(_|$|tot|0$)|toten", re.IGNORECASE),
    keys.FORCES: re.compile(r"forc|gradient|(^|_)f(_|$)", re.IGNORECASE),
    keys.STRESS: re.compile(r"stress|virial|pressure", re.IGNORECASE),
}
"""Names that may mean a label."""


@dataclass
class LabelReport:
    """What a reader found: label counts, and how often each name supplied a label.

    Attributes
    ----------
    counts
        Frames and labels.
    names
        By label, number of frames by the name that supplied it.
    n_isolated_atoms
        Frames of one atom that give the E0 of their element.
    n_stress_dropped
        Frames whose stress or virial was left out, as they are not periodic along three axes:
        without a volume a stress has no meaning.
    n_grouped
        Frames that name what they belong to.
    dummies
        Number of frames with a label that was left out, as its weight is 0, by the name of the
        weight.
    unlabelled_keys
        Other names seen in the file, for messages.
    remarks
        What the user should know, such as calculations that did not converge.
    """

    counts: LabelCounts = field(default_factory=LabelCounts)
    names: dict[str, dict[str, int]] = field(
        default_factory=lambda: {keys.ENERGY: {}, keys.FORCES: {}, keys.STRESS: {}}
    )
    n_isolated_atoms: int = 0
    n_stress_dropped: int = 0
    n_grouped: int = 0
    dummies: dict[str, int] = field(default_factory=dict)
    unlabelled_keys: set[str] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)

    def add(self, frame: Frame) -> None:
        """Count a frame that was read."""
        self.counts.add(frame)
        self.n_isolated_atoms += frame.is_isolated_atom
        self.n_grouped += bool(frame.group)

    def count(self, label: str, name: str) -> None:
        """Count a frame whose label was found under a name."""
        self.names[label][name] = self.names[label].get(name, 0) + 1

    def leave_out(self, weight: str) -> None:
        """Count a frame with a label that was left out for its weight."""
        self.dummies[weight] = self.dummies.get(weight, 0) + 1

    def unread(self, label: str) -> list[str]:
        """Return the names that were not read, though they may mean a label some frames lack."""
        if self.counts.present[label] == self.counts.n_frames:
            return []
        return sorted(name for name in self.unlabelled_keys if _LIKE[label].search(name))

    def merge(self, other: "LabelReport") -> None:
        """Add what was found elsewhere."""
        self.counts.merge(other.counts)
        for label, found in other.names.items():
            for name, number in found.items():
                self.names[label][name] = self.names[label].get(name, 0) + number
        self.n_isolated_atoms += other.n_isolated_atoms
        self.n_stress_dropped += other.n_stress_dropped
        self.n_grouped += other.n_grouped
        for name, number in other.dummies.items():
            self.dummies[name] = self.dummies.get(name, 0) + number
        self.unlabelled_keys |= other.unlabelled_keys
        self.remarks += other.remarks

    def __str__(self) -> str:
        lines = [str(self.counts)]
        n_frames = counted_frames(self.counts.n_frames)
        for label, found in self.names.items():
            for name, count in found.items():
                lines.append(f"  {label} from `{name}` in {count} of {n_frames}")
        for label in self.names:
            if unread := self.unread(label):
                option = "stress_key` or `virial_key" if label == keys.STRESS else f"{label}_key"
                lines.append(
                    f"  not read: {', '.join(f'`{name}`' for name in unread)}; if that is the "
                    f"{label}, name it with `{option}`"
                )
        for name, number in self.dummies.items():
            lines.append(f"  label left out in {counted_frames(number)}: `{name}` is 0")
        if self.n_isolated_atoms:
            lines.append(f"  isolated atoms: {self.n_isolated_atoms}")
        if self.n_stress_dropped:
            lines.append(
                f"  stress left out in {counted_frames(self.n_stress_dropped)}: not periodic in 3 "
                "directions"
            )
        lines += [f"  {remark}" for remark in self.remarks]
        return "\n".join(lines)
