"""Rows of a dataset, read straight from the chunks of the file.

The library HDF5 needs some 0.1 ms for each read and must not be used on both sides of a fork. The
chunks of a store are not compressed, so that their places, once the library has told them, are all
that is needed: rows are read by ``pread``, which any number of processes may do on one file.
"""

import os

import numpy as np
from numpy.typing import NDArray

CHECKSUM_BYTES = 4


class Column:
    """One dataset.

    Parameters
    ----------
    name
        For messages.
    dtype, shape
        Of a row.
    n_rows
        Of the dataset.
    rows_in_chunk
        Rows of each chunk; the last one is filled up.
    places
        First byte of each chunk in the file.
    verified
        Whether all bytes have been compared with a checksum already; otherwise each chunk is when
        it is first read.
    """

    def __init__(
        self,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        n_rows: int,
        rows_in_chunk: int,
        places: NDArray[np.int64],
        verified: bool,
    ) -> None:
        self.name = name
        self.dtype = np.dtype(dtype)
        self.shape = shape
        self.n_rows = n_rows
        self._rows_in_chunk = rows_in_chunk
        self._places = places.tolist()
        self._row_bytes = self.dtype.itemsize * int(np.prod(shape, dtype=int))
        self._verified = bytearray([verified]) * len(self._places)

    def rows(self, descriptor: int, start: int, stop: int) -> NDArray[np.generic]:
        """Return rows ``start`` to ``stop - 1``.

        Raises
        ------
        ValueError
            If they are damaged or cut off.
        """
        per = self._rows_in_chunk
        first, last = start // per, (stop - 1) // per
        pieces = []
        for chunk in range(first, last + 1):
            begin = start - chunk * per if chunk == first else 0
            end = stop - chunk * per if chunk == last else per
            pieces.append(self._bytes(descriptor, chunk, begin, end))
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return np.frombuffer(data, self.dtype).reshape((stop - start, *self.shape))

    def _bytes(self, descriptor: int, chunk: int, begin: int, end: int) -> bytes:
        place = self._places[chunk]
        size = self._row_bytes
        if self._verified[chunk]:
            data = os.pread(descriptor, (end - begin) * size, place + begin * size)
            if len(data) != (end - begin) * size:
                raise ValueError(f"`{self.name}` is cut off")
            return data
        n_bytes = self._rows_in_chunk * size
        data = os.pread(descriptor, n_bytes + CHECKSUM_BYTES, place)
        if len(data) != n_bytes + CHECKSUM_BYTES or not has_checksum(data):
            raise ValueError(f"`{self.name}` does not have its checksum")
        self._verified[chunk] = 1
        return data[begin * size : end * size]


def has_checksum(data: bytes) -> bool:
    """Return whether the last 4 bytes are the Fletcher-32 checksum of those before, as in HDF5.

    References
    ----------
    HDF5, ``H5_checksum_fletcher32``: 16-bit words, the first byte the higher one.
    """
    content = data[:-CHECKSUM_BYTES]
    words = np.frombuffer(content + bytes(len(content) % 2), ">u2").astype(np.int64)
    first = int(words.sum())
    second = int(np.dot(words, np.arange(len(words), 0, -1)))
    # sums modulo 65535 that are never folded to 0, unless all is 0
    first, second = ((total - 1) % 65535 + 1 if total else 0 for total in (first, second))
    stored = int.from_bytes(data[-CHECKSUM_BYTES:], "little")
    return stored == (second << 16 | first)
