"""Writing a store, portion by portion."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

import eqpot
from eqpot import keys
from eqpot.data.checksums import sha256_of
from eqpot.data.frames import LABELS as FRAME_LABELS
from eqpot.data.frames import Frame
from eqpot.data.store.layout import (
    BLOCK,
    CHUNK_BYTES,
    DATASETS,
    FORMAT,
    INFO,
    INFO_OFFSETS,
    LABELS,
    OFFSETS,
    VERSION,
    FirstLine,
)
from eqpot.durable import written_durably

_BUFFER_BYTES: Final = 2**23
_FLAGS: Final = (*FRAME_LABELS, "atom_weights")


def write_store(
    path: str | Path, frames: Iterable[Frame], *, sources: Sequence[str | Path] = ()
) -> int:
    """Write frames to a store and return their number; the file is there whole or not at all.

    Frames are taken one by one and written in portions, so memory does not grow with their
    number. The file is written under a temporary name beside ``path``, flushed to the disk and
    then renamed; a file that was there before stays until that moment.

    Parameters
    ----------
    path
        The file, usually ``name.h5``.
    frames
        Any frames.
    sources
        Files that the frames come from; their names and SHA-256 are kept as provenance.

    Raises
    ------
    ValueError
        If there is no frame.
    OSError
        If the file cannot be written.
    """
    path = Path(path)
    provenance = {
        "eqpot": eqpot.__version__,
        "sources": [
            {"name": Path(source).name, "sha256": sha256_of(Path(source))} for source in sources
        ],
    }
    with written_durably(path) as partial:
        with _Target(path, partial) as target:
            # rows are only added: a cache of chunks would grow and serve nobody
            settings = {"libver": ("v110", "v110"), "userblock_size": BLOCK, "rdcc_nbytes": 2**18}
            with h5py.File(target, "w", **settings) as file:
                file.attrs["format"] = FORMAT
                file.attrs["version"] = VERSION
                file.attrs["provenance"] = json.dumps(provenance)
                n_frames = _write_frames(file, frames, target)
            target.check()
        if n_frames == 0:
            raise ValueError(f"{path}: there is no frame to store")
        with partial.open("r+b") as seal:
            size = os.fstat(seal.fileno()).st_size
            seal.write(FirstLine(VERSION, size, sha256_of(partial, BLOCK)).block())
    return n_frames


class _Target:
    """The file that HDF5 writes to; keeps the first error to itself until it is asked.

    HDF5 crashes when a write fails while it closes a file. So after an error it is told that all is
    well, and the error is raised afterwards.
    """

    def __init__(self, path: Path, partial: Path) -> None:
        self._path = path
        self._file = partial.open("r+b", buffering=0)
        self._error: OSError | None = None

    def __enter__(self) -> "_Target":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def check(self) -> None:
        """Raise what went wrong."""
        if self._error is not None:
            error = self._error
            reason = error.strerror or str(error)
            size = os.fstat(self._file.fileno()).st_size
            raise OSError(
                f"{self._path}: cannot be written after {size} bytes: {reason}"
            ) from error

    def read(self, size: int = -1) -> bytes:
        """Read as a file does; HDF5 asks whether there is such a method."""
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; what lies behind the end is zero."""
        view = memoryview(buffer).cast("B")
        n_read = self._file.readinto(view) or 0
        if n_read < len(view) and self._error is not None:
            view[n_read:] = bytes(len(view) - n_read)
            n_read = len(view)
        return n_read

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def write(self, data: Any) -> int:
        """Write all of the data."""
        view = memoryview(data).cast("B")
        written = 0
        try:
            while self._error is None and written < len(view):
                written += self._file.write(view[written:]) or 0
        except OSError as error:
            self._error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        try:
            if self._error is None:
                self._file.truncate(size)
        except OSError as error:
            self._error = error
        return size or 0

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""


def _write_frames(file: h5py.File, frames: Iterable[Frame], target: _Target) -> int:
    datasets = {}
    for name, (dtype, shape) in DATASETS.items():
        row_bytes = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=int))
        datasets[name] = file.create_dataset(
            name,
            shape=(0, *shape),
            maxshape=(None, *shape),
            dtype=dtype,
            chunks=(max(1, CHUNK_BYTES // row_bytes), *shape),
            fletcher32=True,
        )
    _append(datasets[OFFSETS], np.zeros(1, dtype=np.int64))
    _append(datasets[INFO_OFFSETS], np.zeros(1, dtype=np.int64))
    n_frames = 0
    buffer: list[Frame] = []
    buffered = 0
    for frame in frames:
        buffer.append(frame)
        buffered += 512 + 64 * len(frame)
        n_frames += 1
        if buffered >= _BUFFER_BYTES:
            _flush(datasets, buffer)
            target.check()
            buffer, buffered = [], 0
    _flush(datasets, buffer)
    return n_frames


def _flush(datasets: dict[str, Any], frames: list[Frame]) -> None:
    if not frames:
        return
    absent = np.full((3, 3), np.nan)
    columns: dict[str, NDArray[Any]] = {
        keys.ATOMIC_NUMBERS: np.concatenate([f.atomic_numbers for f in frames]),
        keys.POSITIONS: np.concatenate([f.positions for f in frames]),
        keys.FORCES: np.concatenate(
            [np.full((len(f), 3), np.nan) if f.forces is None else f.forces for f in frames]
        ),
        keys.CELL: np.stack([f.cell for f in frames]),
        keys.PBC: np.stack([f.pbc for f in frames]),
        keys.ENERGY: np.array([np.nan if f.energy is None else f.energy for f in frames]),
        keys.STRESS: np.stack([absent if f.stress is None else f.stress for f in frames]),
        keys.WEIGHT: np.array([f.weight for f in frames]),
        keys.ATOM_WEIGHT: np.concatenate(
            [np.ones(len(f)) if f.atom_weights is None else f.atom_weights for f in frames]
        ),
        LABELS: np.array([[getattr(f, name) is not None for name in _FLAGS] for f in frames]),
    }
    texts = [
        json.dumps(
            {"config_type": f.config_type, "source": f.source}
            | ({"group": f.group} if f.group else {})
        ).encode("utf-8")
        for f in frames
    ]
    columns[INFO] = np.frombuffer(b"".join(texts), dtype=np.uint8)
    for offsets, flat, lengths in (
        (OFFSETS, keys.ATOMIC_NUMBERS, [len(f) for f in frames]),
        (INFO_OFFSETS, INFO, [len(text) for text in texts]),
    ):
        columns[offsets] = len(datasets[flat]) + np.cumsum(lengths, dtype=np.int64)
    for name, column in columns.items():
        _append(datasets[name], column)


def _append(dataset: Any, rows: NDArray[Any]) -> None:
    start = len(dataset)
    dataset.resize(start + len(rows), axis=0)
    dataset[start:] = rows
