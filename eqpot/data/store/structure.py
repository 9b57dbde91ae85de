"""Check of all that HDF5 declares in a store against the layout, before anything is allocated."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from eqpot import keys
from eqpot.data.store.columns import CHECKSUM_BYTES, Column, has_checksum
from eqpot.data.store.layout import (
    BLOCK,
    CHUNK_BYTES,
    FORMAT,
    INFO_OFFSETS,
    OFFSETS,
    PER_ATOM,
    PER_FRAME,
    layout,
)

_LARGEST_PROVENANCE = 2**24


def read_structure(
    path: Path, version: int, verified: bool
) -> tuple[dict[str, Column], dict[str, Any]]:
    """Return the columns of a store and its provenance; HDF5 is closed again.

    Parameters
    ----------
    path
        The file, whose first line is sound.
    version
        Of the layout.
    verified
        Whether the SHA-256 of the file has been compared.

    Raises
    ------
    ValueError
        If anything is built otherwise than the layout says: links to elsewhere, virtual or
        external datasets, other filters, types, shapes or sizes.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            lengths = _check(path, file, version)
            chunks = {name: _chunks(path, name, file[name]) for name in layout(version)}
            provenance = _provenance(path, file)
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path}: is damaged ({error})") from error
    n_frames, n_atoms = lengths[keys.ENERGY], lengths[keys.ATOMIC_NUMBERS]
    per_atom = [name for name in PER_ATOM if name in lengths]
    expected = dict.fromkeys(per_atom, n_atoms) | dict.fromkeys(PER_FRAME, n_frames)
    expected |= {OFFSETS: n_frames + 1, INFO_OFFSETS: n_frames + 1}
    for name, length in expected.items():
        if lengths[name] != length:
            raise ValueError(f"{path}: `{name}` must have {length} rows, has {lengths[name]}")
    base = _base(path, chunks)
    columns = {}
    for name, (dtype, shape) in layout(version).items():
        rows_in_chunk, places, _ = chunks[name]
        columns[name] = Column(
            name, dtype, shape, lengths[name], rows_in_chunk, places + base, verified
        )
    return columns, provenance


def _check(path: Path, file: h5py.File, version: int) -> dict[str, int]:
    found = int(file.attrs.get("version", 0))
    if str(file.attrs.get("format")) != FORMAT or found != version:
        raise ValueError(
            f"{path}: must have format {FORMAT!r} version {version}, has "
            f"{file.attrs.get('format')!r} version {file.attrs.get('version')}"
        )
    expected = layout(version)
    if len(file) > 2 * len(expected):
        raise ValueError(f"{path}: holds {len(file)} datasets, must hold {len(expected)}")
    names = set(file.keys())
    if names != set(expected):
        raise ValueError(
            f"{path}: must hold the datasets {sorted(expected)}; missing "
            f"{sorted(set(expected) - names)}, too many {sorted(names - set(expected))}"
        )
    lengths = {}
    for name, (dtype, shape) in expected.items():
        # the link first: looking at the object would already follow it to another file
        link = file.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise ValueError(
                f"{path}: `{name}` is a {type(link).__name__}, which is never followed"
            )
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError(f"{path}: `{name}` must be a dataset")
        _check_dataset(path, name, dataset, dtype, shape)
        lengths[name] = len(dataset)
    return lengths


def _check_dataset(
    path: Path, name: str, dataset: h5py.Dataset, dtype: str, shape: tuple[int, ...]
) -> None:
    where = f"{path}: `{name}`"
    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5py.h5d.CHUNKED:
        kind = "virtual" if properties.get_layout() == h5py.h5d.VIRTUAL else "not chunked"
        raise ValueError(f"{where} is {kind}; only chunks within the file are read")
    if properties.get_external_count() > 0:
        raise ValueError(f"{where} keeps its data in another file, which is never read")
    filters = [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]
    if filters != [h5py.h5z.FILTER_FLETCHER32]:
        raise ValueError(f"{where} must have the filter Fletcher32 alone, has {filters}")
    if dataset.dtype.hasobject or dataset.dtype != np.dtype(dtype):
        raise ValueError(f"{where} must be of type {np.dtype(dtype)}, is {dataset.dtype}")
    if dataset.ndim != 1 + len(shape) or dataset.shape[1:] != shape:
        raise ValueError(f"{where} must have shape (n, *{shape}), has {dataset.shape}")
    if dataset.chunks[1:] != shape:
        raise ValueError(f"{where} must have chunks of whole rows, has {dataset.chunks}")
    declared = int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    chunk = int(np.prod(dataset.chunks, dtype=object)) * dataset.dtype.itemsize
    size = path.stat().st_size
    if declared > min(stored, size) or chunk > 2 * CHUNK_BYTES:
        raise ValueError(
            f"{where} declares {declared} bytes in chunks of {chunk}, but the file of {size} "
            f"bytes stores {stored} bytes of it"
        )


def _chunks(path: Path, name: str, dataset: h5py.Dataset) -> tuple[int, NDArray[np.int64], int]:
    """Return rows in a chunk, addresses of the chunks and their bytes.

    The declared size has been compared with that of the file before.
    """
    per = dataset.chunks[0]
    n_chunks = -(-len(dataset) // per)
    n_bytes = int(np.prod(dataset.chunks, dtype=int)) * dataset.dtype.itemsize
    places: NDArray[np.int64] = np.full(n_chunks, -1, dtype=np.int64)
    faults: list[str] = []

    def note(chunk: Any) -> None:
        number, rest = divmod(int(chunk.chunk_offset[0]), per)
        if rest or number >= n_chunks:
            faults.append(f"a chunk at row {chunk.chunk_offset[0]}")
        elif chunk.filter_mask != 0 or chunk.size != n_bytes + CHECKSUM_BYTES:
            faults.append(f"chunk {number} has no checksum")
        elif chunk.byte_offset is not None:
            places[number] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    if faults or (places < 0).any():
        fault = faults[0] if faults else f"chunk {int(np.argmin(places))} is missing"
        raise ValueError(f"{path}: `{name}` is damaged ({fault})")
    return per, places, n_bytes


def _base(path: Path, chunks: dict[str, tuple[int, NDArray[np.int64], int]]) -> int:
    """Return what leads from HDF5's addresses to bytes of the file.

    Some versions of HDF5 count from the start of the file, others from the end of the user block;
    the checksum of any sound chunk tells which.
    """
    with path.open("rb") as file:
        for _, places, n_bytes in chunks.values():
            for base in (0, BLOCK):
                if len(places) == 0:
                    continue
                file.seek(int(places[0]) + base)
                data = file.read(n_bytes + CHECKSUM_BYTES)
                if len(data) == n_bytes + CHECKSUM_BYTES and has_checksum(data):
                    return base
    raise ValueError(f"{path}: is damaged: no chunk has its checksum")


def _provenance(path: Path, file: h5py.File) -> dict[str, Any]:
    try:
        text = str(file.attrs["provenance"])
        if len(text) > _LARGEST_PROVENANCE:
            raise ValueError(f"is longer than {_LARGEST_PROVENANCE} characters")
        provenance = json.loads(text)
    except (KeyError, ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path}: `provenance` cannot be read ({error})") from error
    if not isinstance(provenance, dict):
        raise ValueError(f"{path}: `provenance` must be a dictionary")
    return provenance
