"""DeePMD systems: folders of npy files, one set after the other.

A system is a folder with ``type.raw`` (index into the type map of each atom), ``type_map.raw``
(symbols), folders ``set.*`` and, where it is not periodic, an empty file ``nopbc``. A set has
``coord.npy`` and any of ``box``, ``energy``, ``force``, ``virial``, ``atom_pref``, a row a frame.
Systems of mixed type add ``real_atom_types.npy``, in which -1 is no atom. DeePMD's virial is
-V · stress, as is that of eqpot.

References
----------
"DeePMD-kit" manual, chapters "Data" and "Formats of a system".
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eqpot.data.frames import Frame
from eqpot.data.readers.labels import (
    ATOM_WEIGHT_NAMES,
    CONFIG_TYPE,
    GROUP,
    LABEL_NAMES,
    LABEL_WEIGHTS,
    WEIGHT_NAMES,
    LabelFinder,
)
from eqpot.data.readers.npy import NpyFile
from eqpot.data.readers.records import LARGEST_N_ATOMS, Record
from eqpot.elements import SYMBOLS

_LARGEST_TEXT: Final = 2**26
_TYPES: Final = "type.raw"
_TYPE_MAP: Final = "type_map.raw"
_MIXED: Final = "real_atom_types"
_ATOM_WEIGHT: Final = "atom_pref"


def deepmd_frames(path: Path, labels: LabelFinder) -> Iterator[Frame]:
    """Yield the frames of all systems at or below a folder, ordered by the names of folders.

    Raises
    ------
    ValueError
        If there is no system, a file is missing, damaged or of the wrong shape, or a frame is not
        sound; names the folder of the set and the frame in it.
    """
    systems = find_systems(path)
    if not systems:
        raise ValueError(
            f"{path}: is a folder without DeePMD systems (no `{_TYPES}` in it or below); name a "
            "file, or the folder of a system"
        )
    for system in systems:
        numbers = _atomic_numbers(system)
        sets = sorted(entry for entry in system.glob("set.*") if entry.is_dir())
        if not sets:
            raise ValueError(f"{system}: has `{_TYPES}`, but no folder `set.*`")
        stray = sorted(entry.name for entry in system.glob("*.npy"))
        if stray:
            labels.report.remarks.append(
                f"{system}: {', '.join(f'`{name}`' for name in stray)} beside the folders `set.*` "
                "is not read; arrays belong into a set"
            )
        for folder in sets:
            with contextlib.ExitStack() as stack:
                try:
                    records = _records(system, folder, numbers, labels, stack)
                except OSError as error:
                    raise ValueError(f"{folder}: {error}") from error
                for index, record in enumerate(records):
                    yield labels.frame(record, index, folder)


def find_systems(path: Path) -> list[Path]:
    """Return the folders of DeePMD systems at or below a folder; links are not followed."""
    return sorted(Path(folder) for folder, _, files in os.walk(path) if _TYPES in files)


def _atomic_numbers(system: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return Z of each type, and the type of each atom."""
    symbols = _text(system / _TYPE_MAP).split() if (system / _TYPE_MAP).exists() else None
    if symbols is None:
        raise ValueError(
            f"{system}: has no `{_TYPE_MAP}`, so nothing says which elements its types are; write "
            "one with the symbols in the order of the types"
        )
    for symbol in symbols:
        if symbol not in SYMBOLS[1:]:
            raise ValueError(f"{system / _TYPE_MAP}: `{symbol[:20]}` is no chemical symbol")
    try:
        types = np.array([int(word) for word in _text(system / _TYPES).split()], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{system / _TYPES}: must hold integers ({error})") from error
    if len(types) == 0 or len(types) > LARGEST_N_ATOMS:
        raise ValueError(f"{system / _TYPES}: must hold 1 to {LARGEST_N_ATOMS} types")
    z = np.array([SYMBOLS.index(symbol) for symbol in symbols], dtype=np.int64)
    return z, types


def _text(path: Path) -> str:
    if path.stat().st_size > _LARGEST_TEXT:
        raise ValueError(f"{path}: is larger than {_LARGEST_TEXT} bytes")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text ({error})") from error


def _records(
    system: Path,
    folder: Path,
    numbers: tuple[NDArray[np.int64], NDArray[np.int64]],
    labels: LabelFinder,
    stack: contextlib.ExitStack,
) -> Iterator[Record]:
    """Check all shapes of a set, then return the stream of its records."""
    elements, types = numbers
    n_atoms = len(types)
    there = {entry.stem for entry in folder.glob("*.npy")}
    if "coord" not in there:
        raise ValueError(f"{folder}: has no `coord.npy`")

    def opened(name: str, *row: int) -> NpyFile:
        return stack.enter_context(NpyFile(folder / f"{name}.npy", (n_frames, *row)))

    first = NpyFile(folder / "coord.npy", (None, 3 * n_atoms))
    positions = stack.enter_context(first)
    n_frames = positions.shape[0]
    periodic = not (system / "nopbc").exists()
    if periodic and "box" not in there:
        raise ValueError(
            f"{folder}: has no `box.npy`; a system that is not periodic has a file `nopbc` beside "
            f"`{_TYPES}`"
        )
    boxes = opened("box", 9) if periodic else None
    mixed = opened(_MIXED, n_atoms) if _MIXED in there else None
    chosen = labels.chosen
    forces = {*LABEL_NAMES["forces"], chosen.forces}
    known: set[str | None] = {name for names in LABEL_NAMES.values() for name in names}
    known |= {chosen.energy, chosen.stress, chosen.virial, chosen.group, *forces}
    known |= {GROUP, CONFIG_TYPE, _ATOM_WEIGHT, *WEIGHT_NAMES, *LABEL_WEIGHTS, *ATOM_WEIGHT_NAMES}
    columns: dict[str, NpyFile] = {}
    for name in sorted(there & known):
        row: tuple[int, ...] | None = None
        if name in forces:
            row = (3 * n_atoms,)
        elif name in (_ATOM_WEIGHT, *ATOM_WEIGHT_NAMES):
            row = (n_atoms,)
        elif name in (*LABEL_NAMES["stress"], *LABEL_NAMES["virial"], chosen.stress, chosen.virial):
            row = (9,)
        if row is not None:
            columns[name] = opened(name, *row)
            continue
        column = stack.enter_context(NpyFile(folder / f"{name}.npy"))
        if column.shape not in ((n_frames,), (n_frames, 1)):
            raise ValueError(
                f"`{folder / name}.npy` must have shape ({n_frames},), has {column.shape}"
            )
        columns[name] = column
    labels.report.unlabelled_keys.update(there - known - {"coord", "box", _MIXED})
    return _stream(positions, boxes, mixed, columns, (elements, types), forces)


def _stream(
    positions: NpyFile,
    boxes: NpyFile | None,
    mixed: NpyFile | None,
    columns: dict[str, NpyFile],
    numbers: tuple[NDArray[np.int64], NDArray[np.int64]],
    forces: set[str | None],
) -> Iterator[Record]:
    elements, types = numbers
    for index in range(positions.shape[0]):
        frame_types: NDArray[Any] = types if mixed is None else mixed.row()
        # in mixed systems -1 fills up to the number of columns
        atoms = np.flatnonzero(frame_types >= 0) if mixed is not None else np.arange(len(types))
        wrong = (frame_types < (0 if mixed is None else -1)) | (frame_types >= len(elements))
        if frame_types.dtype.kind not in "iu" or wrong.any():
            raise ValueError(
                f"{Path(positions.name).parent}, frame {index}: types must be integers from 0 to "
                f"{len(elements) - 1}, the types of `{_TYPE_MAP}`"
            )
        values: dict[str, Any] = {}
        for name, column in columns.items():
            row = column.row()
            if name in forces:
                values[name] = row.reshape(-1, 3)[atoms]
            elif name == _ATOM_WEIGHT:
                values[ATOM_WEIGHT_NAMES[0]] = row[atoms]
            elif name in ATOM_WEIGHT_NAMES:
                values[name] = row[atoms]
            else:
                values[name] = row
        yield Record(
            elements[frame_types[atoms]],
            positions.row().reshape(-1, 3)[atoms],
            np.zeros((3, 3)) if boxes is None else boxes.row().reshape(3, 3),
            np.full(3, boxes is not None),
            values,
        )
