"""The frames of a file that the readers take, and a message for each that they refuse.

A reader stops at the first frame that is not sound, and rightly. An audit should tell of all of
them: in extended XYZ it goes on with the next frame, and after a wrong number of atoms with the
next line that can begin one.
"""

import lzma
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from eqpot.data.frames import Frame
from eqpot.data.readers import LabelKeys, LabelReport, iter_frames
from eqpot.data.readers.compression import COMPRESSIONS
from eqpot.data.readers.extxyz import Chunk, extxyz_chunks, parse_chunk
from eqpot.data.readers.reading import check_something_was_found, file_format, label_finder
from eqpot.data.suffixes import split_suffix

MOST_REFUSED: Final = 20
"""Frames refused before the rest of a file is given up: by then the file is wrong, not a frame."""
_COUNT: Final = re.compile(r"[ \t]*\d{1,9}[ \t]*\r?\n?")
_LONGEST_PIECE: Final = 2**20
_UNREADABLE: Final = (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError)


def frames_and_refusals(
    path: Path, report: LabelReport, reading: Mapping[str, Any]
) -> Iterator[Frame | str]:
    """Yield the frames of a file, and a message for each that is refused.

    Parameters
    ----------
    path
        The file.
    report
        Filled while frames are read.
    reading
        Names of labels and units, as :func:`~eqpot.data.readers.iter_frames` takes them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    n_read = 0
    try:
        if file_format(path) == "extxyz":
            yield from _of_extxyz(path, report, **reading)
            return
        for frame in iter_frames(path, report=report, require_labels=False, **reading):
            yield frame
            n_read += 1
    except ValueError as error:
        rest = f"; what follows the first {n_read} frames was not read" if n_read else ""
        yield f"{error}{rest}"


def _of_extxyz(
    path: Path,
    report: LabelReport,
    *,
    units: Mapping[str, str] | None = None,
    config_type: str = "",
    **names: str | None,
) -> Iterator[Frame | str]:
    chosen = LabelKeys.from_arguments(names)
    labels = label_finder(path, "extxyz", chosen, units, config_type, report)
    n_refused = 0
    for item in _chunks(path):
        refusal = item if isinstance(item, str) else None
        if isinstance(item, Chunk):
            try:
                frame = parse_chunk(item, labels)
            except ValueError as error:
                refusal = str(error)
            else:
                report.add(frame)
                yield frame
        if refusal is not None:
            yield refusal
            n_refused += 1
        if n_refused >= MOST_REFUSED:
            yield f"{path}: {n_refused} frames were refused; the rest of the file was not read"
            return
    if not n_refused:
        check_something_was_found(path, chosen, report, require_labels=False)


def _chunks(path: Path) -> Iterator[Chunk | str]:
    """Yield the texts of frames; where the readers refuse one, why, and then those after it."""
    number, line = 0, 1
    source = path
    with tempfile.TemporaryDirectory() as folder:
        while True:
            first_number, first_line = number, line
            try:
                for chunk in extxyz_chunks(source):
                    number = first_number + chunk.number + 1
                    line = first_line + chunk.line - 1 + chunk.text.count("\n")
                    yield Chunk(number - 1, first_line + chunk.line - 1, chunk.text)
                return
            except ValueError as error:
                reason = _without_place(str(error))
            copy = Path(folder) / f"rest from line {line}.extxyz"
            try:
                start, is_frame, following = _copy_rest(source, copy, line - first_line)
            except _UNREADABLE:
                yield f"{path}, frame {number} (line {line}): {reason}; nothing after it was read"
                return
            start += first_line
            if not is_frame and number:
                reason += f"; is the number of atoms of frame {number - 1} too small?"
            yield f"{path}, frame {number} (line {start}): {reason}"
            if following is None:
                return
            # what does not begin like a frame is a piece of the one before
            number += is_frame
            line = first_line + following
            if source != path:
                source.unlink()
            source = copy


def _without_place(message: str) -> str:
    """Return the message of a reader without file, frame and line, which are those of a copy."""
    return re.sub(r"^.*?(, frame \d+)?( \(line \d+\)|, line \d+): ", "", message, count=1)


def _copy_rest(path: Path, copy: Path, n_before: int) -> tuple[int, bool, int | None]:
    """Copy what follows the frame that begins after some lines, from the next that can begin one.

    Such a line holds the number of atoms and nothing else.

    Returns
    -------
    tuple of int, bool, and int or None
        Lines before what is left out, whether that begins like a frame (with a number of atoms,
        or with a line before ``Properties``), and lines before the copy; None where no frame
        follows.
    """
    _, compression = split_suffix(path)
    opener = COMPRESSIONS.get(compression, open)
    start, following = n_before, None
    has_count = has_columns = found = False
    with (
        opener(path, "rt", encoding="utf-8-sig") as source,
        copy.open("w", encoding="utf-8") as target,
    ):
        for index, piece in _pieces(source):
            if following is not None:
                target.write(piece)
            elif index >= n_before and not found:
                if piece.strip():
                    found, start, has_count = True, index, bool(_COUNT.fullmatch(piece))
            elif found and index == start + 1 and "Properties=" in piece:
                has_columns = True
            # the second line of a frame is a comment, even if it holds a number alone
            elif found and index > start + has_count and _COUNT.fullmatch(piece):
                following = index
                target.write(piece)
    return start, has_count or has_columns, following


def _pieces(stream: IO[str]) -> Iterator[tuple[int, str]]:
    """Yield lines with the number of lines before each; endless ones in pieces."""
    index = 0
    while piece := stream.readline(_LONGEST_PIECE):
        yield index, piece
        index += piece.endswith("\n")
