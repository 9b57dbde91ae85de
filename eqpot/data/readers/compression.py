"""Packed files: read as a stream, or unpacked for libraries that must seek."""

import bz2
import contextlib
import gzip
import lzma
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from eqpot.data.suffixes import split_suffix, unpacked_path

COMPRESSIONS: Final[dict[str, Callable[..., IO[Any]]]] = {
    ".xz": lzma.open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
}
_LARGEST_DECOMPRESSED: Final = 8 * 2**30


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield the path of an unpacked copy, or the path itself where nothing is packed.

    Raises
    ------
    ValueError
        If the file is damaged, or unpacks to more than 8 GiB: a few bytes can stand for terabytes.
    """
    _, compression = split_suffix(path)
    if not compression:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / unpacked_path(path).name
        with COMPRESSIONS[compression](path, "rb") as packed, plain.open("wb") as target:
            try:
                shutil.copyfileobj(_Limited(path, packed), target, 2**20)
            except (OSError, EOFError, lzma.LZMAError) as error:
                raise ValueError(f"{path}: cannot be decompressed ({error})") from error
        yield plain


class _Limited:
    """Reads a stream up to a limit."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path = path
        self.stream = stream
        self.left = _LARGEST_DECOMPRESSED

    def read(self, size: int = -1, /) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(
                f"{self.path}: decompresses to more than {_LARGEST_DECOMPRESSED} bytes; decompress "
                "it yourself if that is right"
            )
        return data
