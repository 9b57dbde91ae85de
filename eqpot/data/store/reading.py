"""Reading a store: frames when asked for, in any order and any number of processes."""

import json
import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eqpot import keys
from eqpot.data.checksums import sha256_of
from eqpot.data.frames import Frame
from eqpot.data.store.columns import Column
from eqpot.data.store.layout import (
    BLOCK,
    INFO,
    INFO_OFFSETS,
    LABELS,
    OFFSETS,
    PER_ATOM,
    PER_FRAME,
    parse_first_line,
)
from eqpot.data.store.structure import read_structure
from eqpot.missing import missing_file

_ATOMS_AT_ONCE: Final = 10_000
_FRAMES_AT_ONCE: Final = 1000
_INFO_AT_ONCE: Final = 2**20


class FrameStore(Sequence[Frame]):
    """The frames of a store, read from the disk when asked for.

    The object may be used after a fork and may be pickled, so it can be handed to the workers of a
    data loader. They read the file that was opened and verified here: neither do they verify it
    again, nor do they take another one that has replaced it.

    Parameters
    ----------
    path
        The file.
    verify
        Whether to read the whole file once and compare its SHA-256, so that no damaged byte goes
        unseen. Without it, the length is compared, and the checksum of each chunk when it is first
        read.

    Attributes
    ----------
    path
        The file.
    sha256
        Of the content, as the file says.
    provenance
        Version of eqpot, and source files with their SHA-256.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a store, of a later version, truncated, damaged, or built otherwise
        than :func:`write_store` builds it (links to elsewhere, wrong types, shapes or sizes).

    Examples
    --------
    >>> with FrameStore("silicon.h5") as store:  # doctest: +SKIP
    ...     print(len(store), store[0].energy)
    """

    def __init__(self, path: str | Path, *, verify: bool = True) -> None:
        self.path = Path(path)
        self._descriptor = -1
        if not self.path.is_file():
            raise missing_file(self.path)
        with self.path.open("rb") as file:
            self._block = file.read(BLOCK)
            size = os.fstat(file.fileno()).st_size
        line = parse_first_line(self.path, self._block)
        self.sha256 = line.sha256
        if size != line.n_bytes:
            raise ValueError(
                f"{self.path}: should have {line.n_bytes} bytes, has {size}; the file is "
                f"{'truncated' if size < line.n_bytes else 'damaged'}"
            )
        if verify and sha256_of(self.path, BLOCK) != line.sha256:
            raise ValueError(
                f"{self.path}: is damaged, its SHA-256 is not the one it was written with"
            )
        columns, self.provenance = read_structure(self.path, line.version, verify)
        self._columns: dict[str, Column] = columns
        self._offsets = self._read_offsets(OFFSETS, keys.ATOMIC_NUMBERS)
        self._info_offsets = self._read_offsets(INFO_OFFSETS, INFO)
        self._per_atom = [name for name in PER_ATOM if name in columns]

    def __enter__(self) -> "FrameStore":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        # an open file belongs to its process
        return {k: v for k, v in self.__dict__.items() if k != "_finalizer"} | {"_descriptor": -1}

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        if self._descriptor >= 0:
            self._finalizer()
            self._descriptor = -1

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> Frame:  # type: ignore[override]
        """Return one frame; negative indices count from the end."""
        number = int(index)
        if number < 0:
            number += len(self)
        if not 0 <= number < len(self):
            raise IndexError(f"{self.path}: there is no frame {index}, the store has {len(self)}")
        return self._read(number, number + 1)[0]

    def __iter__(self) -> Iterator[Frame]:
        start = 0
        while start < len(self):
            # as many frames at a time as hold some 10 000 atoms
            limit = self._offsets[start] + _ATOMS_AT_ONCE
            stop = int(np.searchsorted(self._offsets, limit, side="right")) - 1
            stop = min(max(stop, start + 1), start + _FRAMES_AT_ONCE, len(self))
            yield from self._read(start, stop)
            start = stop

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """Number of atoms of each frame, shape (n_frames,)."""
        return np.diff(self._offsets)

    def config_types(self) -> set[str]:
        """Return the kinds of structures, without reading the structures."""
        found = set()
        start = 0
        while start < len(self):
            limit = self._info_offsets[start] + _INFO_AT_ONCE
            stop = int(np.searchsorted(self._info_offsets, limit, side="right")) - 1
            stop = max(stop, start + 1)
            texts = self._rows(INFO, *self._info_offsets[[start, stop]].tolist()).tobytes()
            cuts = (self._info_offsets[start : stop + 1] - self._info_offsets[start]).tolist()
            for k in range(stop - start):
                found.add(str(self._about(texts[cuts[k] : cuts[k + 1]], start + k)["config_type"]))
            start = stop
        return found

    def _read(self, start: int, stop: int) -> list[Frame]:
        atoms = self._offsets[start : stop + 1].tolist()
        texts = self._info_offsets[start : stop + 1].tolist()
        columns: dict[str, NDArray[Any]] = {}
        try:
            for name in PER_FRAME:
                columns[name] = self._rows(name, start, stop)
            for name in self._per_atom:
                columns[name] = self._rows(name, atoms[0], atoms[-1])
            text = self._rows(INFO, texts[0], texts[-1]).tobytes()
        except ValueError as error:
            raise ValueError(
                f"{self.path}: frames {start} to {stop - 1} are damaged: {error}"
            ) from error
        frames = []
        for k in range(stop - start):
            about = self._about(text[texts[k] - texts[0] : texts[k + 1] - texts[0]], start + k)
            rows = slice(atoms[k] - atoms[0], atoms[k + 1] - atoms[0])
            has_energy, has_forces, has_stress, *more = columns[LABELS][k].tolist()
            has_atom_weights = any(more)  # none in version 1
            try:
                frames.append(
                    Frame(
                        atomic_numbers=columns[keys.ATOMIC_NUMBERS][rows],
                        positions=columns[keys.POSITIONS][rows],
                        cell=columns[keys.CELL][k],
                        pbc=columns[keys.PBC][k],
                        energy=float(columns[keys.ENERGY][k]) if has_energy else None,
                        forces=columns[keys.FORCES][rows] if has_forces else None,
                        stress=columns[keys.STRESS][k] if has_stress else None,
                        config_type=str(about["config_type"]),
                        group=str(about.get("group", "")),
                        weight=float(columns[keys.WEIGHT][k]),
                        atom_weights=columns[keys.ATOM_WEIGHT][rows] if has_atom_weights else None,
                        source=str(about["source"]),
                    )
                )
            except ValueError as error:
                raise ValueError(f"{self.path}, stored frame {start + k}: {error}") from error
        return frames

    def _about(self, text: bytes, number: int) -> dict[str, Any]:
        try:
            about = json.loads(text)
            if not isinstance(about, dict) or not {"config_type", "source"} <= about.keys():
                raise ValueError("`config_type` or `source` is missing")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path}, stored frame {number}: {error}") from error
        return about

    def _rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        return self._columns[name].rows(self._open(), start, stop)

    def _open(self) -> int:
        if self._descriptor < 0:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            # closed with the object, as HDF5 and Python's files are
            self._finalizer = weakref.finalize(self, os.close, descriptor)
            self._descriptor = descriptor
            if os.pread(descriptor, BLOCK, 0) != self._block:
                self.close()
                raise ValueError(f"{self.path}: was replaced since it was opened; open it again")
        return self._descriptor

    def _read_offsets(self, name: str, flat: str) -> NDArray[np.int64]:
        total = self._columns[flat].n_rows
        n_rows = self._columns[name].n_rows
        if n_rows < 2:
            raise ValueError(f"{self.path}: `{name}` must have at least 2 rows, has {n_rows}")
        try:
            offsets: NDArray[np.int64] = self._rows(name, 0, n_rows).astype(np.int64)
        except ValueError as error:
            raise ValueError(f"{self.path}: is damaged: {error}") from error
        if offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) <= 0).any():
            raise ValueError(f"{self.path}: `{name}` must rise from 0 to {total}")
        return offsets
