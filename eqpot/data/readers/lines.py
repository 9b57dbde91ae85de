"""Lines of a text file, numbered, with a bound on their length."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LONGEST_LINE: Final = 2**20


def bounded_lines(path: Path, source: Path) -> Iterator[tuple[int, str]]:
    """Yield number (from 1) and text of each line; what is no UTF-8 is replaced.

    Parameters
    ----------
    path
        The file.
    source
        Its name in messages.

    Raises
    ------
    ValueError
        If a line is longer than 1 MiB.
    """
    with path.open(encoding="utf-8", errors="replace") as stream:
        number = 0
        while line := stream.readline(_LONGEST_LINE):
            number += 1
            if len(line) == _LONGEST_LINE:
                raise ValueError(f"{source}, line {number}: longer than {_LONGEST_LINE} characters")
            yield number, line
