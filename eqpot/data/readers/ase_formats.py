"""Anything else that ASE reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import ase.io.formats

from eqpot.data.frames import Frame
from eqpot.data.readers.compression import unpacked
from eqpot.data.readers.labels import LabelFinder
from eqpot.data.readers.records import record_of_atoms

# pickled or foreign formats whose reading could run code or open connections
_REFUSED: Final = (
    "bundletrajectory", "gpw", "py", "python", "postgresql", "mysql", "mariadb",
)  # fmt: skip


def format_of(path: Path) -> str:
    """Return what ASE takes a file for.

    Raises
    ------
    ValueError
        If ASE does not know, or the format is not read.
    """
    with unpacked(path) as plain:
        try:
            name = str(ase.io.formats.filetype(str(plain)))
        except ase.io.formats.UnknownFileTypeError as error:
            raise ValueError(f"{path}: the format of the file is not known to ASE") from error
    if name not in ase.io.formats.ioformats:
        raise ValueError(f"{path}: the format of the file is not known to ASE")
    if name in _REFUSED:
        raise ValueError(f"{path}: files of format `{name}` are not read")
    return name


def ase_frames(path: Path, file_format: str, labels: LabelFinder) -> Iterator[Frame]:
    """Yield the frames of a file."""
    with unpacked(path) as plain:
        structures = ase.io.formats.iread(
            str(plain), ":", format=file_format, do_not_split_by_at_sign=True
        )
        index = 0
        while True:
            try:
                record = record_of_atoms(next(structures))
            except StopIteration:
                return
            except Exception as error:
                raise ValueError(
                    f"{path}, frame {index}: cannot be read as `{file_format}` "
                    f"({type(error).__name__}: {error})"
                ) from error
            yield labels.frame(record, index)
            index += 1
