"""Archives of NumPy arrays: MD17, rMD17, padded and flat sets, streamed frame by frame."""

import contextlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eqpot import keys
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
from eqpot.data.readers.npy import NpyStream
from eqpot.data.readers.records import LARGEST_N_ATOMS, Record

NPZ_LABEL_NAMES: Final[dict[str, tuple[str, ...]]] = {
    keys.ENERGY: ("energies", "E", *LABEL_NAMES[keys.ENERGY]),
    keys.FORCES: ("F", *LABEL_NAMES[keys.FORCES]),
    keys.STRESS: LABEL_NAMES[keys.STRESS],
    keys.VIRIAL: LABEL_NAMES[keys.VIRIAL],
}
"""Names of labels in an npz file."""

_NUMBERS: Final = ("nuclear_charges", "z", "Z", "atomic_numbers", "numbers")
_POSITIONS: Final = ("coords", "R", "positions", "pos")
_COUNTS: Final = ("N", "n_atoms", "natoms")
_CELLS: Final = ("cell", "lattice", "box")
_PBC: Final = ("pbc",)


def check_units_declared(path: Path, units: Mapping[str, str] | None) -> None:
    """Refuse to guess the units of a file that names none.

    Raises
    ------
    ValueError
        If ``energy`` or ``length`` is not declared.
    """
    missing = [name for name in ("energy", "length") if name not in (units or {})]
    if missing:
        raise ValueError(
            f"{path}: an npz file names no units; `units` must give {' and '.join(missing)}. The "
            'files of MD17 and rMD17 need units={"energy": "kcal/mol", "length": "Angstrom"}'
        )


def npz_frames(path: Path, labels: LabelFinder) -> Iterator[Frame]:
    """Yield the frames of an archive.

    Numbers and positions are ``(n_atoms,)`` and ``(n_frames, n_atoms, 3)``, or padded with zeros
    ``(n_frames, n_largest)`` and ``(n_frames, n_largest, 3)``, or flat ``(n_total,)`` and
    ``(n_total, 3)`` with the counts ``N`` of atoms. Forces have the shape of positions.

    Raises
    ------
    ValueError
        If the archive is damaged, its shapes do not fit, or a frame is not sound.
    """
    with contextlib.ExitStack() as stack:
        try:
            archive = _Archive(path, stack)
            records = _records(archive, labels)
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        index = 0
        while True:
            try:
                record = next(records)
            except StopIteration:
                return
            except ValueError as error:
                raise ValueError(f"{path}, frame {index}: {error}") from error
            yield labels.frame(record, index)
            index += 1


class _Archive:
    """The arrays of a zip archive by name, each opened as a stream of its own."""

    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        self._zip = stack.enter_context(zipfile.ZipFile(path))
        self._stack = stack
        members = [member for member in self._zip.infolist() if member.filename.endswith(".npy")]
        self._members = {member.filename.removesuffix(".npy"): member for member in members}

    @property
    def names(self) -> set[str]:
        return set(self._members)

    def open(self, name: str) -> NpyStream:
        member = self._members[name]
        # other methods unpack more than was asked for, so a few bytes could fill the memory
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"`{member.filename}` is packed by a method that NumPy never writes")
        stream = self._stack.enter_context(self._zip.open(member))
        return NpyStream(stream, member.file_size, member.filename)

    def pick(self, known: tuple[str, ...], chosen: str | None, what: str = "") -> str | None:
        """Return the one name of an array that is there."""
        if chosen is not None:
            known = (chosen,)
        found = [name for name in known if name in self._members]
        if len(found) > 1:
            raise ValueError(
                f"holds both `{found[0]}` and `{found[1]}`; choose one with `{what}_key` or remove "
                "one"
            )
        if not found and what:
            names = " or ".join(f"`{name}`" for name in known)
            raise ValueError(f"no {what} ({names}) among {sorted(self.names)}")
        return found[0] if found else None


def _records(archive: _Archive, labels: LabelFinder) -> Iterator[Record]:
    """Check all shapes, then return the stream of records."""
    chosen = labels.chosen
    numbers_name = archive.pick(_NUMBERS, chosen.atomic_numbers, "atomic_numbers")
    positions_name = archive.pick(_POSITIONS, chosen.positions, "positions")
    assert numbers_name is not None and positions_name is not None
    numbers, positions = archive.open(numbers_name), archive.open(positions_name)
    if numbers.dtype.kind not in "iu":
        raise ValueError(f"`{numbers_name}` must hold integers, holds {numbers.dtype}")
    counts_name = archive.pick(_COUNTS, None)
    counts = None if counts_name is None else archive.open(counts_name).all().reshape(-1)
    if counts is not None and (counts.dtype.kind not in "iu" or (counts < 1).any()):
        raise ValueError(f"`{counts_name}` must hold integers above 0, one a frame")
    if len(positions.shape) == 2 and counts is None:
        counts = np.array(positions.shape[:1])  # one frame
    flat = len(positions.shape) == 2
    n_frames = len(counts) if flat and counts is not None else positions.shape[0]
    fits = _shapes_fit(numbers.shape, positions.shape, counts, flat)
    if not fits:
        expected = f"(n_frames, {numbers.shape[-1] if numbers.shape else 0}, 3)"
        counted = "" if counts is None else f" and {len(counts)} counts of {counts.sum()} atoms"
        raise ValueError(
            f"`{positions_name}` must have shape {expected} to fit `{numbers_name}` of shape "
            f"{numbers.shape}{counted}, got {positions.shape}"
        )
    used = {numbers_name, positions_name, counts_name}
    cells = _optional(archive, _CELLS, chosen.cell, used)
    axes = _optional(archive, _PBC, None, used)
    per_atom = {*NPZ_LABEL_NAMES[keys.FORCES], chosen.forces, *ATOM_WEIGHT_NAMES}
    wanted = {name for names in NPZ_LABEL_NAMES.values() for name in names} | per_atom
    wanted |= {*WEIGHT_NAMES, *LABEL_WEIGHTS, CONFIG_TYPE, chosen.group, GROUP}
    wanted |= {chosen.energy, chosen.stress, chosen.virial}
    values = {name: archive.open(name) for name in sorted((archive.names & wanted) - used)}
    alike = _spelled_alike(archive, values, used)
    per_atom |= {name for name in alike if alike[name].shape == positions.shape}
    values |= alike
    for name, array in values.items():
        _check_column(name, array, positions, n_frames, name in per_atom, labels)
    labels.report.unlabelled_keys.update(archive.names - set(values) - used)
    return _stream(numbers, positions, counts, flat, n_frames, cells, axes, values, per_atom)


def _spelled_alike(
    archive: _Archive, values: Mapping[str, NpyStream], used: set[str | None]
) -> dict[str, NpyStream]:
    """Return arrays whose names differ from those of labels in capitals alone, of the same shape.

    They are compared with the label, never read as one.
    """
    labels = {name for names in NPZ_LABEL_NAMES.values() for name in names}
    shapes = {(name.lower(), values[name].shape) for name in labels & values.keys()}
    alike = {}
    for name in sorted(archive.names - values.keys() - used):
        if name.lower() in {known for known, _ in shapes}:
            array = archive.open(name)
            if (name.lower(), array.shape) in shapes:
                alike[name] = array
    return alike


def _optional(
    archive: _Archive, known: tuple[str, ...], chosen: str | None, used: set[str | None]
) -> NpyStream | None:
    name = archive.pick(known, chosen)
    used.add(name)
    return None if name is None else archive.open(name)


def _shapes_fit(
    numbers: tuple[int, ...],
    positions: tuple[int, ...],
    counts: NDArray[Any] | None,
    flat: bool,
) -> bool:
    if flat:
        assert counts is not None
        return numbers == positions[:1] and positions[1] == 3 and int(counts.sum()) == positions[0]
    if len(positions) != 3 or positions[2] != 3 or positions[1] > LARGEST_N_ATOMS:
        return False
    if counts is not None and (
        len(counts) != positions[0] or (len(counts) > 0 and int(counts.max()) > positions[1])
    ):
        return False
    return numbers in (positions[1:2], positions[:2])


def _check_column(
    name: str,
    array: NpyStream,
    positions: NpyStream,
    n_frames: int,
    per_atom: bool,
    labels: LabelFinder,
) -> None:
    if per_atom:
        vectors = name not in ATOM_WEIGHT_NAMES
        expected = positions.shape if vectors else positions.shape[:-1]
        if array.shape != expected:
            raise ValueError(f"`{name}` must have shape {expected}, got {array.shape}")
        return
    energies = (*NPZ_LABEL_NAMES[keys.ENERGY], labels.chosen.energy)
    energies = (*energies, *WEIGHT_NAMES, *LABEL_WEIGHTS)
    if array.shape[:1] != (n_frames,) or (
        name in energies and array.shape not in ((n_frames,), (n_frames, 1))
    ):
        raise ValueError(
            f"`{name}` must have {n_frames} numbers, one a frame, got shape {array.shape}"
        )


def _stream(
    numbers: NpyStream,
    positions: NpyStream,
    counts: NDArray[Any] | None,
    flat: bool,
    n_frames: int,
    cells: NpyStream | None,
    axes: NpyStream | None,
    values: dict[str, NpyStream],
    per_atom: set[str | None],
) -> Iterator[Record]:
    shared = numbers.all() if not flat and len(numbers.shape) == 1 else None
    cell_of = _per_frame(cells, n_frames, ((), (1,), (3,), (9,), (3, 3)))
    pbc_of = _per_frame(axes, n_frames, ((), (1,), (3,)))
    for index in range(n_frames):
        n_atoms = None if counts is None else int(counts[index])

        def rows(stream: NpyStream, n_atoms: int | None = n_atoms) -> NDArray[Any]:
            if flat:
                assert n_atoms is not None
                return stream.take(n_atoms)
            return stream.row()[:n_atoms]

        if shared is not None:
            z = shared[:n_atoms]
        elif flat:
            z = rows(numbers)
        else:
            z, n_atoms = _without_padding(numbers.row(), n_atoms)
        cell = np.zeros((3, 3)) if cell_of is None else _cell(next(cell_of))
        if pbc_of is not None:
            pbc = np.broadcast_to(np.asarray(next(pbc_of)).astype(np.bool_).reshape(-1), (3,))
        else:
            pbc = np.full(3, bool(cell.any()))
        found = {
            name: rows(stream, n_atoms) if name in per_atom else stream.row()
            for name, stream in values.items()
        }
        yield Record(z, rows(positions, n_atoms), cell, pbc, found)


def _per_frame(
    stream: NpyStream | None, n_frames: int, shapes: tuple[tuple[int, ...], ...]
) -> Iterator[NDArray[Any]] | None:
    """Return what belongs to each frame: a row of one of the shapes, or one array for all."""
    if stream is None:
        return None
    shape = stream.shape
    is_row = shape[:1] == (n_frames,) and shape[1:] in shapes
    if is_row and shape not in shapes:
        return (stream.row() for _ in range(n_frames))
    if shape not in shapes and not (shape[:1] == (1,) and shape[1:] in shapes):
        raise ValueError(
            f"`{stream.name}` has shape {shape}, which fits no {n_frames} frames; it must be "
            f"{' or '.join(map(str, shapes))} for all, or such a row for each frame"
        )
    shared = stream.all()
    # three equal sides of a box, or axes, are the same either way
    if is_row and not (shape in ((1,), (3,)) and (shared == shared[0]).all()):
        raise ValueError(
            f"`{stream.name}` of shape {shape} may be that of all frames or a row for each of the "
            f"{n_frames}; give it for each frame, of shape {(n_frames, *shape)}"
        )
    return (shared for _ in range(n_frames))


def _cell(values: NDArray[Any]) -> NDArray[Any]:
    if values.size == 9:
        return values.reshape(3, 3)
    if values.size in (1, 3):
        return np.diag(np.broadcast_to(values.reshape(-1), (3,)))
    raise ValueError(f"a cell must have 9 numbers, or the 3 of a box, got shape {values.shape}")


def _without_padding(numbers: NDArray[Any], n_atoms: int | None) -> tuple[NDArray[Any], int]:
    """Return the atoms of a padded row, and how many they are."""
    present = np.flatnonzero(numbers)
    last = int(present[-1]) + 1 if len(present) else 0
    if n_atoms is None:
        n_atoms = last
    if last > n_atoms:
        raise ValueError(f"atom {last - 1} is there, though the frame should have {n_atoms} atoms")
    return numbers[:n_atoms], n_atoms
