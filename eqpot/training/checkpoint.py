"""Checkpoints: everything a run needs to go on as if it had never stopped.

A sealed file of tensors and JSON (:mod:`eqpot.sealed`), written durably; the one before it is kept,
and is used if the latest is damaged. It holds no state of a random generator: the frames of a step
depend on the seed and its number alone (:class:`eqpot.training.batches.FrameOrder`).
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

import eqpot
from eqpot.durable import write_durably
from eqpot.sealed import LaterVersionError, SealedKind, seal, unseal

_KIND: Final = SealedKind(
    "eqpot-checkpoint", 1, "checkpoint", "the run must go on from another one, or begin again"
)
NAME: Final = "checkpoint.safetensors"
PREVIOUS: Final = "checkpoint.previous.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """The part of a run that a rollback takes back: weights, optimizer, step, history.

    Attributes
    ----------
    tensors
        By name, on the CPU, with memory of their own.
    values
        All else, as plain values.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """State of a run.

    Attributes
    ----------
    identity
        What makes it this run and no other: recipe and checksums of the data.
    run
        What no rollback takes back: plan, time, events, memory.
    now
        Where it stands.
    good
        Where it goes back to if it diverges; ``None`` if that is ``now``.
    candidate
        What becomes the next good state if the steps after it go well.
    """

    identity: dict[str, Any]
    run: dict[str, Any]
    now: Snapshot
    good: Snapshot | None = None
    candidate: Snapshot | None = None


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    file_sha256: str
    format: str
    format_version: int
    eqpot_version: str
    identity: dict[str, Any]
    run: dict[str, Any]
    now: dict[str, Any]
    good: dict[str, Any] | None
    candidate: dict[str, Any] | None
    records: dict[str, str]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the file it replaces is kept beside it under the name ``PREVIOUS``.

    Raises
    ------
    OSError
        If the file cannot be written; names file and size. The old one stays.
    """
    snapshots = {name: getattr(checkpoint, name) for name in ("now", "good", "candidate")}
    tensors = {
        f"{name}.{key}": tensor
        for name, snapshot in snapshots.items()
        if snapshot is not None
        for key, tensor in snapshot.tensors.items()
    }
    document = {
        "eqpot_version": eqpot.__version__,
        "identity": checkpoint.identity,
        "run": checkpoint.run,
        **{name: None if s is None else s.values for name, s in snapshots.items()},
    }
    write_durably(path, seal(_KIND, document, tensors)[0], previous=path.with_name(PREVIOUS))


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint of a file.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If it is foreign, truncated, damaged or of a later version; names file and record.
    """
    content, tensors = unseal(path, _KIND)
    try:
        document = _Document.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: field `{where}` is wrong: {first['msg']}") from error

    def snapshot(name: str, values: dict[str, Any] | None) -> Snapshot | None:
        return None if values is None else Snapshot(part_of(tensors, name), values)

    now = Snapshot(part_of(tensors, "now"), document.now)
    good, candidate = snapshot("good", document.good), snapshot("candidate", document.candidate)
    return Checkpoint(document.identity, document.run, now, good, candidate)


def part_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a name and a dot, under what follows."""
    mark = f"{name}."
    return {k.removeprefix(mark): t for k, t in tensors.items() if k.startswith(mark)}


@dataclass
class CheckpointFolder:
    """Where a run keeps its checkpoints.

    Attributes
    ----------
    folder
        Output folder of the run.
    identity
        As in :class:`Checkpoint`.
    seconds_between
        Time between two checkpoints.
    writes
        Whether this process writes: the first one alone.
    """

    folder: Path
    identity: dict[str, Any]
    seconds_between: float
    writes: bool = True
    _last: float = field(default_factory=time.monotonic)

    @property
    def is_due(self) -> bool:
        """Whether the time between two checkpoints has passed."""
        return self.writes and time.monotonic() - self._last >= self.seconds_between

    def save(
        self,
        run: dict[str, Any],
        now: Snapshot,
        good: Snapshot | None,
        candidate: Snapshot | None = None,
    ) -> None:
        """Write the state of the run, if this process is the one that writes."""
        if self.writes:
            checkpoint = Checkpoint(self.identity, run, now, good, candidate)
            write_checkpoint(self.folder / NAME, checkpoint)
            self._last = time.monotonic()

    def load(self) -> tuple[Checkpoint | None, str]:
        """Return the state to go on from, if there is one, and a word about where it comes from.

        One that is damaged is removed, if the one before is sound.

        Raises
        ------
        OSError
            If a checkpoint cannot be read at present.
        ValueError
            If it belongs to another recipe or other data (names what differs) or is of a later
            eqpot, or all there is is damaged.
        """
        problems = []
        for name in (NAME, PREVIOUS):
            path = self.folder / name
            if not path.exists():
                continue
            try:
                checkpoint = read_checkpoint(path)
            except LaterVersionError:
                raise
            except ValueError as error:
                problems.append(str(error))
                continue
            check_identity(self.folder, checkpoint.identity, self.identity)
            if problems and self.writes:
                # else the next one to be written would put it in the place of this one
                (self.folder / NAME).unlink(missing_ok=True)
            return checkpoint, "; ".join([*problems, f"goes on from {path}"])
        if problems:
            raise ValueError(
                f"{'; '.join(problems)}. Remove the checkpoints of {self.folder} to begin again"
            )
        return None, ""

    def remove(self) -> None:
        """Remove the checkpoints, when the run has left what it was for."""
        if self.writes:
            for name in (PREVIOUS, NAME):
                (self.folder / name).unlink(missing_ok=True)


def check_identity(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Check that a folder holds the run that is asked for.

    Raises
    ------
    ValueError
        If not; names each value that differs.
    """
    old, new = dict(_leaves(found)), dict(_leaves(wanted))
    different = [
        f"`{key}` was {old.get(key)!r}, is {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if different:
        raise ValueError(
            f"{folder}: holds a run of another recipe or of other data: {'; '.join(different)}. "
            "Put it back, name another `output`, or remove the folder"
        )


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings under their dotted names."""
    if not isinstance(tree, Mapping):
        yield name, tree
        return
    for key, value in tree.items():
        yield from _leaves(value, f"{name}.{key}" if name else str(key))
