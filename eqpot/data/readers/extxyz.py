"""Extended XYZ: cut into frames while it is read, each checked before ASE sees it."""

import io
import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple

import ase.io.extxyz

from eqpot.data.frames import Frame
from eqpot.data.readers.compression import COMPRESSIONS
from eqpot.data.readers.labels import LabelFinder
from eqpot.data.readers.records import LARGEST_N_ATOMS, record_of_atoms
from eqpot.data.suffixes import split_suffix

# what stands in quotes, or one of the two keys
_TENSOR: Final = re.compile(r""""[^"]*"|'[^']*'|(?<![^\s"'])(?P<name>stress|virial)(?=\s*=)""")
_MASK: Final = "eqpot_plain_"
_PROPERTIES: Final = re.compile(r"""\bProperties\s*=\s*["']?(?P<columns>[^\s"']+)""")
_LONGEST_LINE: Final = 2**22


class Chunk(NamedTuple):
    """The text of a frame, with its number in the file and the number of its first line."""

    number: int
    line: int
    text: str


def extxyz_frames(path: Path, labels: LabelFinder) -> Iterator[Frame]:
    """Yield the frames of a file."""
    for chunk in extxyz_chunks(path):
        yield parse_chunk(chunk, labels)


def extxyz_chunks(path: Path) -> Iterator[Chunk]:
    """Yield the texts of the frames, their counts of atoms and columns checked.

    Raises
    ------
    ValueError
        If a count is false, a line is too long, or columns are missing; names file and line.
    """
    _, compression = split_suffix(path)
    opener = COMPRESSIONS.get(compression, open)
    # ASE seeks through the whole file first, which takes for ever in a compressed one
    # some editors of Windows begin a file with a mark of its encoding
    with opener(path, "rt", encoding="utf-8-sig") as stream:
        yield from _chunks(path, stream)


def parse_chunk(chunk: Chunk, labels: LabelFinder) -> Frame:
    """Return the frame of a text.

    Raises
    ------
    ValueError
        If it cannot be read; names file, frame and line.
    """
    where = f"{labels.path}, frame {chunk.number} (line {chunk.line})"
    first, header, atom_lines = chunk.text.split("\n", 2)
    # ASE makes a tensor of nine numbers symmetric under these two names, which would hide that it
    # was not, and refuses six; under other names it leaves the numbers as they are
    text = f"{first}\n{_TENSOR.sub(_masked, header)}\n{atom_lines}"
    try:
        atoms = next(ase.io.extxyz.read_xyz(io.StringIO(text), slice(0, 1)))
    except KeyError as error:
        raise ValueError(f"{where}: there is no element {error}") from error
    except Exception as error:
        raise ValueError(f"{where}: {error}") from error
    for name in [name for name in atoms.info if str(name).startswith(_MASK)]:
        atoms.info[name.removeprefix(_MASK)] = atoms.info.pop(name)
    if not atoms.cell.any() and not re.search(r"\bpbc\s*=", header):
        # a zero Lattice is how some programs write "no cell"
        atoms.pbc = False
    try:
        record = record_of_atoms(atoms)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return labels.frame(record, chunk.number)


def _masked(match: re.Match[str]) -> str:
    """Return a key that ASE does not know, or what stands in quotes as it is."""
    return f"{_MASK}{match['name']}" if match["name"] else match[0]


def _chunks(path: Path, stream: IO[str]) -> Iterator[Chunk]:
    lines = _numbered_lines(path, stream)
    index = 0
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{path}, frame {index} (line {number})"
        n_atoms = _count(line, where)
        _, header = next(lines, (0, ""))
        declared = _declared_columns(header, where)
        chunk = [line, header]
        n_columns = declared
        for at, entry in lines:
            # compared at once: after a false count the next frame would be swallowed, and the rest
            columns = len(entry.split())
            if columns == 0:
                # a blank line stands at the end of a frame, never within
                break
            if n_columns is None:
                n_columns = columns
            if columns != n_columns:
                atom = len(chunk) - 2
                expected = "atom 0 has" if declared is None else "`Properties` declares"
                raise ValueError(
                    f"{where}: atom {atom} (line {at}) has {columns} columns, {expected} "
                    f"{n_columns}"
                )
            chunk.append(entry)
            if len(chunk) == n_atoms + 2:
                break
        if len(chunk) < n_atoms + 2:
            raise ValueError(
                f"{where}: the frame should have {n_atoms} atoms, found {len(chunk) - 2}; "
                "is the file truncated?"
            )
        yield Chunk(index, number, "".join(chunk))
        index += 1


def _count(line: str, where: str) -> int:
    try:
        n_atoms = int(line)
    except ValueError:
        raise ValueError(
            f"{where}: expected the number of atoms, got {line.strip()[:60]!r}"
        ) from None
    if n_atoms < 1:
        raise ValueError(f"{where}: a frame must have at least 1 atom, got {n_atoms}")
    if n_atoms > LARGEST_N_ATOMS:
        raise ValueError(
            f"{where}: a frame may have at most {LARGEST_N_ATOMS} atoms, got {n_atoms}"
        )
    return n_atoms


def _declared_columns(header: str, where: str) -> int | None:
    """Return the number of columns that ``Properties`` declares, or None without it."""
    match = _PROPERTIES.search(header)
    if match is None:
        return None
    parts = match["columns"].split(":")
    counts = parts[2::3]
    if len(parts) % 3 != 0 or not all(c.isdecimal() and 0 < len(c) < 5 for c in counts):
        raise ValueError(
            f"{where}: `Properties` must be name:type:columns, repeated, got "
            f"{match['columns'][:60]!r}"
        )
    return sum(int(count) for count in counts)


def _numbered_lines(path: Path, stream: IO[str]) -> Iterator[tuple[int, str]]:
    number = 0
    while True:
        number += 1
        try:
            line = stream.readline(_LONGEST_LINE)
        except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError) as error:
            raise ValueError(f"{path}, line {number}: cannot be read ({error})") from error
        if not line:
            return
        if len(line) == _LONGEST_LINE:
            raise ValueError(f"{path}, line {number}: longer than {_LONGEST_LINE} characters")
        yield number, line
