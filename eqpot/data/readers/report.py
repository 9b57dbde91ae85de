"""What a reader found in a file."""

from dataclasses import dataclass, field

from eqpot import keys
from eqpot.data.frames import Frame, LabelCounts


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

    def merge(self, other: "LabelReport") -> None:
        """Add what was found elsewhere."""
        self.counts.merge(other.counts)
        for label, found in other.names.items():
            for name, number in found.items():
                self.names[label][name] = self.names[label].get(name, 0) + number
        self.n_isolated_atoms += other.n_isolated_atoms
        self.n_stress_dropped += other.n_stress_dropped
        self.n_grouped += other.n_grouped
        self.unlabelled_keys |= other.unlabelled_keys
        self.remarks += other.remarks

    def __str__(self) -> str:
        lines = [str(self.counts)]
        for label, found in self.names.items():
            for name, count in found.items():
                lines.append(f"  {label} from `{name}` in {count} of {self.counts.n_frames} frames")
        if self.n_isolated_atoms:
            lines.append(f"  isolated atoms: {self.n_isolated_atoms}")
        if self.n_stress_dropped:
            lines.append(
                f"  stress left out in {self.n_stress_dropped} frames: not periodic in 3 directions"
            )
        lines += [f"  {remark}" for remark in self.remarks]
        return "\n".join(lines)
