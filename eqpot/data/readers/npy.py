"""Arrays in NumPy's format, read row by row, their headers checked before anything is made."""

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

_LARGEST_ROW: Final = 2**26
_BLOCK: Final = 2**22


class NpyStream:
    """One array, read from front to back in blocks, so that memory does not grow with its length.

    Parameters
    ----------
    stream
        At the start of the npy data.
    size
        Bytes of the npy data.
    name
        For messages.

    Attributes
    ----------
    shape
        Of the whole array.

    Raises
    ------
    ValueError
        If the header is damaged or false, the array holds pickled objects, or is in Fortran's
        order.
    """

    def __init__(self, stream: IO[bytes], size: int, name: str) -> None:
        self.name = name
        self._stream = stream
        try:
            version = np.lib.format.read_magic(stream)
            # later versions serve headers of more than 64 KiB, which no plain array has
            if version != (1, 0):
                raise ValueError(f"npy version {version} is not read")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            header = stream.tell()
        except Exception as error:
            # NumPy parses the header as Python text, zlib unpacks it: both fail in many ways
            raise ValueError(f"`{name}`: {error}") from error
        if dtype.hasobject:
            raise ValueError(f"`{name}` holds pickled objects, which are not read")
        if dtype.kind not in "fiubUS":
            raise ValueError(f"`{name}` must hold numbers, holds {dtype}")
        declared = math.prod(shape) * dtype.itemsize + header
        if declared != size or any(length < 0 for length in shape):
            raise ValueError(
                f"`{name}` declares shape {shape} of {dtype}, {declared} bytes, but has {size}"
            )
        if fortran and len(shape) > 1:
            raise ValueError(
                f"`{name}` is in Fortran's order; save it with numpy.ascontiguousarray"
            )
        self.shape: tuple[int, ...] = shape
        self.dtype = dtype
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize
        if self._row_bytes > _LARGEST_ROW:
            raise ValueError(
                f"`{name}` declares {self._row_bytes} bytes for one row of shape {shape[1:]}, at "
                f"most {_LARGEST_ROW} are read"
            )
        self._left = shape[0] if shape else 0
        self._block: NDArray[Any] = np.zeros((0, *shape[1:]), dtype)
        self._at = 0

    def all(self) -> NDArray[Any]:
        """Return the whole of a small array.

        Raises
        ------
        ValueError
            If it is large or cut.
        """
        n_bytes = math.prod(self.shape) * self.dtype.itemsize
        if n_bytes > _LARGEST_ROW:
            raise ValueError(f"`{self.name}` of {n_bytes} bytes is too large for what it should be")
        return np.frombuffer(self._read(n_bytes), self.dtype).reshape(self.shape)

    def take(self, n_rows: int) -> NDArray[Any]:
        """Return the next rows.

        Raises
        ------
        ValueError
            If there are not so many, or the data are cut.
        """
        if n_rows * self._row_bytes > _LARGEST_ROW:
            raise ValueError(f"`{self.name}`: {n_rows} rows at once are too many")
        if self._at + n_rows <= len(self._block):
            self._at += n_rows
            return self._block[self._at - n_rows : self._at]
        kept = self._block[self._at :]
        wanted = max(n_rows - len(kept), _BLOCK // max(1, self._row_bytes))
        wanted = min(wanted, self._left)
        if len(kept) + wanted < n_rows:
            raise ValueError(f"`{self.name}` has {self.shape[0]} rows, more are needed")
        data = self._read(wanted * self._row_bytes)
        fresh = np.frombuffer(data, self.dtype).reshape((wanted, *self.shape[1:]))
        self._left -= wanted
        self._block = np.concatenate([kept, fresh]) if len(kept) else fresh
        self._at = n_rows
        return self._block[:n_rows]

    def row(self) -> NDArray[Any]:
        """Return the next row."""
        rows: NDArray[Any] = self.take(1)[0]
        return rows

    def _read(self, n_bytes: int) -> bytes:
        try:
            data = self._stream.read(n_bytes)
        except Exception as error:
            # zipfile and zlib have many ways to say that the data are damaged
            raise ValueError(f"`{self.name}` cannot be read ({error})") from error
        if len(data) != n_bytes:
            raise ValueError(f"`{self.name}` ends {n_bytes - len(data)} bytes early")
        return data


class NpyFile(NpyStream):
    """An ``.npy`` file.

    Raises
    ------
    ValueError
        As :class:`NpyStream`, with the name of the file.
    """

    def __init__(self, path: Path, expected: Sequence[int | None] | None = None) -> None:
        self._file: io.BufferedReader = path.open("rb")
        try:
            super().__init__(self._file, os.fstat(self._file.fileno()).st_size, str(path))
            if expected is not None:
                fits = len(expected) == len(self.shape) and all(
                    want is None or want == has
                    for want, has in zip(expected, self.shape, strict=True)
                )
                if not fits:
                    wanted = tuple("n" if want is None else want for want in expected)
                    raise ValueError(f"`{path}` must have shape {wanted}, has {self.shape}")
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "NpyFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
