"""The files of frames that commands write."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from eqpot.data import Frame, write_store
from eqpot.data.extxyz_writing import write_extxyz
from eqpot.data.suffixes import EXTXYZ, STORES


def check_targets(targets: Iterable[Path], sources: Sequence[Path]) -> None:
    """Check, before anything is written, that no file to write is one that is read.

    Raises
    ------
    ValueError
        If one is, be it under another name.
    """
    for target in targets:
        for source in sources:
            if target.exists() and source.exists() and target.samefile(source):
                raise ValueError(f"{target}: is also an input; name another file to write")


def check_suffix(output: Path, others: Sequence[str] = ()) -> None:
    """Check that the suffix of a file to write says its format.

    Raises
    ------
    ValueError
        If not.
    """
    if output.suffix.lower() not in (*STORES, *EXTXYZ, *others):
        known = ", ".join((STORES[0], EXTXYZ[0], *others))
        raise ValueError(f"{output}: must end in one of {known}, so that its format is known")


def write_frames(output: Path, frames: Iterable[Frame], sources: Sequence[Path]) -> int:
    """Write a store or an extended XYZ file and return the number of frames.

    Raises
    ------
    ValueError
        If there is no frame.
    OSError
        If the file cannot be written.
    """
    if output.suffix.lower() in STORES:
        return write_store(output, frames, sources=sources)
    return write_extxyz(output, frames)
