"""The store: millions of frames in one HDF5 file, checked before they are believed.

Layout of version 2. The first 512 bytes are the HDF5 user block, one line of text::

    eqpot-frames <version> <bytes of the file> <SHA-256 of all that follows the block>

Then an HDF5 file with these datasets, all of them chunked, with Fletcher32 checksums and without
compression (so that no declared size can exceed the size of the file):

====================  =====================  =======  ==============================================
dataset               shape                  type     meaning
====================  =====================  =======  ==============================================
``offsets``           (n_frames + 1,)        int64    atoms of frame f: offsets[f] to offsets[f + 1]
``info_offsets``      (n_frames + 1,)        int64    the same for the bytes of ``info``
``atomic_numbers``    (n_atoms,)             uint8    Z
``positions``         (n_atoms, 3)           float64  Å
``forces``            (n_atoms, 3)           float64  eV/Å; NaN where absent
``cell``              (n_frames, 3, 3)       float64  rows are lattice vectors, Å
``pbc``               (n_frames, 3)          uint8    0 or 1
``energy``            (n_frames,)            float64  eV; NaN where absent
``stress``            (n_frames, 3, 3)       float64  eV/Å³; NaN where absent
``weight``            (n_frames,)            float64  weight in the loss
``atom_weight``       (n_atoms,)             float64  weight of an atom's force; 1 where absent
``labels``            (n_frames, 4)          uint8    whether energy, forces, stress and weights of
                                                      atoms are present
``info``              (n_bytes,)             uint8    JSON: ``config_type``, ``source``, ``group``
====================  =====================  =======  ==============================================

Attributes of the root: ``format``, ``version`` and ``provenance`` (JSON: version of eqpot, source
files with SHA-256).

Version 1 had no ``atom_weight``, and three columns of ``labels``. It is still read.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

import eqpot
from eqpot import keys
from eqpot.data.frames import LABELS, Frame

FORMAT: Final = "eqpot-frames"
VERSION: Final = 2

_BLOCK: Final = 512
_LABELS: Final = "labels"
_CHUNK_BYTES: Final = 2**14
_BUFFER_BYTES: Final = 2**23
_PER_ATOM: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    keys.ATOMIC_NUMBERS: ("|u1", ()),
    keys.POSITIONS: ("<f8", (3,)),
    keys.FORCES: ("<f8", (3,)),
    keys.ATOM_WEIGHT: ("<f8", ()),
}
_PER_FRAME: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    keys.CELL: ("<f8", (3, 3)),
    keys.PBC: ("|u1", (3,)),
    keys.ENERGY: ("<f8", ()),
    keys.STRESS: ("<f8", (3, 3)),
    keys.WEIGHT: ("<f8", ()),
    _LABELS: ("|u1", (4,)),
}
_INFO: Final = "info"
_OFFSETS: Final = "offsets"
_INFO_OFFSETS: Final = "info_offsets"
_DATASETS: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    _OFFSETS: ("<i8", ()),
    _INFO_OFFSETS: ("<i8", ()),
    _INFO: ("|u1", ()),
    **_PER_ATOM,
    **_PER_FRAME,
}


def _layout(version: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of a row of each dataset in a version of the store."""
    if version >= 2:
        return _DATASETS
    layout = {name: row for name, row in _DATASETS.items() if name != keys.ATOM_WEIGHT}
    return {**layout, _LABELS: ("|u1", (3,))}


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
            {"name": Path(source).name, "sha256": _sha256(Path(source), 0)} for source in sources
        ],
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with h5py.File(partial, "x", libver=("v110", "v110"), userblock_size=_BLOCK) as file:
            file.attrs["format"] = FORMAT
            file.attrs["version"] = VERSION
            file.attrs["provenance"] = json.dumps(provenance)
            n_frames = _write_frames(file, frames)
        if n_frames == 0:
            raise ValueError(f"{path}: there is no frame to store")
        with partial.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            line = f"{FORMAT} {VERSION} {size} {_sha256(partial, _BLOCK)}\n"
            file.write(line.encode("ascii").ljust(_BLOCK, b"\0"))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    # the rename itself is durable only with its folder
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return n_frames


def _write_frames(file: h5py.File, frames: Iterable[Frame]) -> int:
    datasets = {}
    for name, (dtype, shape) in _DATASETS.items():
        row_bytes = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=int))
        datasets[name] = file.create_dataset(
            name,
            shape=(0, *shape),
            maxshape=(None, *shape),
            dtype=dtype,
            chunks=(max(1, _CHUNK_BYTES // row_bytes), *shape),
            fletcher32=True,
        )
    _append(datasets[_OFFSETS], np.zeros(1, dtype=np.int64))
    _append(datasets[_INFO_OFFSETS], np.zeros(1, dtype=np.int64))
    n_frames = 0
    buffer: list[Frame] = []
    buffered = 0
    for frame in frames:
        buffer.append(frame)
        buffered += 512 + 64 * len(frame)
        n_frames += 1
        if buffered >= _BUFFER_BYTES:
            _flush(datasets, buffer)
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
        _LABELS: np.array(
            [[getattr(f, name) is not None for name in (*LABELS, "atom_weights")] for f in frames]
        ),
    }
    texts = [
        json.dumps(
            {"config_type": f.config_type, "source": f.source}
            | ({"group": f.group} if f.group else {})
        ).encode("utf-8")
        for f in frames
    ]
    columns[_INFO] = np.frombuffer(b"".join(texts), dtype=np.uint8)
    for offsets, flat, lengths in (
        (_OFFSETS, keys.ATOMIC_NUMBERS, [len(f) for f in frames]),
        (_INFO_OFFSETS, _INFO, [len(text) for text in texts]),
    ):
        columns[offsets] = len(datasets[flat]) + np.cumsum(lengths, dtype=np.int64)
    for name, column in columns.items():
        _append(datasets[name], column)


def _append(dataset: Any, rows: NDArray[Any]) -> None:
    start = len(dataset)
    dataset.resize(start + len(rows), axis=0)
    dataset[start:] = rows


class FrameStore(Sequence[Frame]):
    """The frames of a store, read from the disk when asked for.

    The file is opened on first use, and again in each process that uses the object, so it can be
    handed to the workers of a data loader.

    Parameters
    ----------
    path
        The file.
    verify
        Whether to read the whole file once and compare its SHA-256, so that no damaged byte goes
        unseen. Without it, the length is compared, and the checksum of each chunk when read.

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
        self._file: h5py.File | None = None
        self._process = -1
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file")
        self._version = self._check_block(verify)
        self._layout = _layout(self._version)
        file = self._open()
        self._offsets = self._read_offsets(file, _OFFSETS, keys.ATOMIC_NUMBERS)
        self._info_offsets = self._read_offsets(file, _INFO_OFFSETS, _INFO)
        try:
            self.provenance: dict[str, Any] = json.loads(str(file.attrs["provenance"]))
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{self.path}: `provenance` cannot be read ({error})") from error

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
        return {**self.__dict__, "_file": None, "_process": -1}

    def close(self) -> None:
        """Close the file; it is opened again when a frame is asked for."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None

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
            limit = self._offsets[start] + 10_000
            stop = int(np.searchsorted(self._offsets, limit, side="right")) - 1
            stop = min(max(stop, start + 1), start + 1000, len(self))
            yield from self._read(start, stop)
            start = stop

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """Number of atoms of each frame, shape (n_frames,)."""
        return np.diff(self._offsets)

    def _read(self, start: int, stop: int) -> list[Frame]:
        file = self._open()
        first, last = int(self._offsets[start]), int(self._offsets[stop])
        info_first, info_last = int(self._info_offsets[start]), int(self._info_offsets[stop])
        columns: dict[str, NDArray[Any]] = {}
        for name in self._layout:
            if name in (_OFFSETS, _INFO_OFFSETS):
                continue
            rows = slice(start, stop)
            if name in _PER_ATOM:
                rows = slice(first, last)
            elif name == _INFO:
                rows = slice(info_first, info_last)
            try:
                columns[name] = file[name][rows]
            except (OSError, RuntimeError) as error:
                raise ValueError(
                    f"{self.path}: `{name}` of frames {start} to {stop - 1} is damaged ({error})"
                ) from error
        frames = []
        text = columns[_INFO].tobytes()
        for k in range(stop - start):
            atoms = slice(
                int(self._offsets[start + k]) - first, int(self._offsets[start + k + 1]) - first
            )
            info = slice(
                int(self._info_offsets[start + k]) - info_first,
                int(self._info_offsets[start + k + 1]) - info_first,
            )
            has_energy, has_forces, has_stress, *more = columns[_LABELS][k].astype(bool).tolist()
            has_atom_weights = any(more)  # none in version 1
            try:
                about = json.loads(text[info])
                frames.append(
                    Frame(
                        atomic_numbers=columns[keys.ATOMIC_NUMBERS][atoms],
                        positions=columns[keys.POSITIONS][atoms],
                        cell=columns[keys.CELL][k],
                        pbc=columns[keys.PBC][k],
                        energy=float(columns[keys.ENERGY][k]) if has_energy else None,
                        forces=columns[keys.FORCES][atoms] if has_forces else None,
                        stress=columns[keys.STRESS][k] if has_stress else None,
                        config_type=str(about["config_type"]),
                        group=str(about.get("group", "")),
                        weight=float(columns[keys.WEIGHT][k]),
                        atom_weights=columns[keys.ATOM_WEIGHT][atoms] if has_atom_weights else None,
                        source=str(about["source"]),
                    )
                )
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{self.path}, stored frame {start + k}: {error}") from error
        return frames

    def _check_block(self, verify: bool) -> int:
        """Return the version; check length and (asked) SHA-256 before HDF5 sees the file."""
        with self.path.open("rb") as file:
            block = file.read(_BLOCK)
            size = os.fstat(file.fileno()).st_size
        words = block.rstrip(b"\0").split(b" ")
        if words[0] != FORMAT.encode() or len(block) < _BLOCK:
            raise ValueError(
                f"{self.path}: is not a frame store (its first bytes must be {FORMAT!r}, are "
                f"{block[:12]!r}); make one from any data file with `write_store`"
            )
        try:
            version, written, digest = int(words[1]), int(words[2]), words[3].decode().strip()
        except (IndexError, ValueError) as error:
            raise ValueError(f"{self.path}: the first line is damaged: {block[:120]!r}") from error
        if version > VERSION:
            raise ValueError(
                f"{self.path}: written as version {version} of the store, this eqpot reads up to "
                f"{VERSION}; update eqpot"
            )
        line = f"{FORMAT} {version} {written} {digest}\n".encode()
        if block != line.ljust(_BLOCK, b"\0") or version < 1:
            raise ValueError(f"{self.path}: the first line is damaged: {block[:120]!r}")
        if size != written:
            raise ValueError(
                f"{self.path}: should have {written} bytes, has {size}; the file is "
                f"{'truncated' if size < written else 'damaged'}"
            )
        if verify and _sha256(self.path, _BLOCK) != digest:
            raise ValueError(
                f"{self.path}: is damaged, its SHA-256 is not the one it was written with"
            )
        return version

    def _open(self) -> h5py.File:
        if self._file is not None and self._process == os.getpid():
            return self._file
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be opened as HDF5 ({error})") from error
        try:
            self._check_structure(file)
        except (OSError, RuntimeError, KeyError) as error:
            file.close()
            raise ValueError(f"{self.path}: is damaged ({error})") from error
        except BaseException:
            file.close()
            raise
        self._file = file
        self._process = os.getpid()
        return file

    def _check_structure(self, file: h5py.File) -> None:
        """Check all that HDF5 declares against the layout, before anything is allocated."""
        version = int(file.attrs.get("version", 0))
        if str(file.attrs.get("format")) != FORMAT or version != self._version:
            raise ValueError(
                f"{self.path}: must have format {FORMAT!r} version {self._version}, has "
                f"{file.attrs.get('format')!r} version {file.attrs.get('version')}"
            )
        names = set(file.keys())
        layout = set(self._layout)
        if names != layout:
            raise ValueError(
                f"{self.path}: must hold the datasets {sorted(layout)}; missing "
                f"{sorted(layout - names)}, too many {sorted(names - layout)}"
            )
        lengths = {}
        for name, (dtype, shape) in self._layout.items():
            # the link first: looking at the object would already follow it to another file
            link = file.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ValueError(
                    f"{self.path}: `{name}` is a {type(link).__name__}, which is never followed"
                )
            dataset = file[name]
            if not isinstance(dataset, h5py.Dataset):
                raise ValueError(f"{self.path}: `{name}` must be a dataset")
            self._check_dataset(name, dataset, dtype, shape)
            lengths[name] = len(dataset)
        n_frames, n_atoms = lengths[keys.ENERGY], lengths[keys.ATOMIC_NUMBERS]
        per_atom = [name for name in _PER_ATOM if name in lengths]
        expected = dict.fromkeys(per_atom, n_atoms) | dict.fromkeys(_PER_FRAME, n_frames)
        expected |= {_OFFSETS: n_frames + 1, _INFO_OFFSETS: n_frames + 1}
        for name, length in expected.items():
            if lengths[name] != length:
                raise ValueError(
                    f"{self.path}: `{name}` must have {length} rows, has {lengths[name]}"
                )

    def _check_dataset(
        self, name: str, dataset: h5py.Dataset, dtype: str, shape: tuple[int, ...]
    ) -> None:
        where = f"{self.path}: `{name}`"
        properties = dataset.id.get_create_plist()
        if properties.get_layout() != h5py.h5d.CHUNKED:
            kind = "virtual" if properties.get_layout() == h5py.h5d.VIRTUAL else "not chunked"
            raise ValueError(f"{where} is {kind}; only chunks within the file are read")
        if properties.get_external_count() > 0:
            raise ValueError(f"{where} keeps its data in another file, which is never read")
        filters = [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]
        if filters != [h5py.h5z.FILTER_FLETCHER32]:
            raise ValueError(f"{where} must have the filter Fletcher32 alone, has {filters}")
        if dataset.dtype != np.dtype(dtype) or dataset.dtype.hasobject:
            raise ValueError(f"{where} must be of type {np.dtype(dtype)}, is {dataset.dtype}")
        if dataset.ndim != 1 + len(shape) or dataset.shape[1:] != shape:
            raise ValueError(f"{where} must have shape (n, *{shape}), has {dataset.shape}")
        declared = int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize
        stored = dataset.id.get_storage_size()
        chunk = int(np.prod(dataset.chunks, dtype=object)) * dataset.dtype.itemsize
        size = self.path.stat().st_size
        if declared > min(stored, size) or chunk > 2 * _CHUNK_BYTES:
            raise ValueError(
                f"{where} declares {declared} bytes in chunks of {chunk}, but the file of {size} "
                f"bytes stores {stored} bytes of it"
            )

    def _read_offsets(self, file: h5py.File, name: str, flat: str) -> NDArray[np.int64]:
        try:
            offsets: NDArray[np.int64] = file[name][:]
            total = len(file[flat])
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{self.path}: `{name}` is damaged ({error})") from error
        if offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) <= 0).any():
            raise ValueError(f"{self.path}: `{name}` must rise from 0 to {total}")
        return offsets


def _sha256(path: Path, start: int) -> str:
    """Return the SHA-256 of a file from byte ``start`` on."""
    with path.open("rb") as file:
        file.seek(start)
        return hashlib.file_digest(file, "sha256").hexdigest()
