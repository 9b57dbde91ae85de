"""Readers: files of many formats to frames, with the names under which labels were found.

A number is a label only under a name that says so. Where a frame holds two such names with
different values, the reader stops and asks; it never chooses between two energies.
"""

import bz2
import gzip
import io
import lzma
import math
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, Final, NoReturn

import ase.db
import ase.io.extxyz
import ase.io.formats
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from eqpot import keys
from eqpot.data.declared_units import UnitFactors, unit_factors
from eqpot.data.frames import Frame, LabelCounts, names_isolated_atom
from eqpot.data.store import FrameStore

LABEL_NAMES: Final[dict[str, tuple[str, ...]]] = {
    keys.ENERGY: (
        "energy",
        "REF_energy",
        "ref_energy",
        "dft_energy",
        "DFT_energy",
        "total_energy",
        "free_energy",
    ),
    keys.FORCES: (
        "forces",
        "force",
        "REF_forces",
        "ref_forces",
        "REF_force",
        "dft_forces",
        "dft_force",
        "DFT_forces",
        "DFT_force",
    ),
    keys.STRESS: ("stress", "REF_stress", "ref_stress", "dft_stress", "DFT_stress"),
    keys.VIRIAL: (
        "virial",
        "virials",
        "REF_virial",
        "REF_virials",
        "ref_virial",
        "dft_virial",
        "DFT_virial",
    ),
}
"""Names under which labels are looked for, in order of preference."""

_COMPRESSIONS: Final[dict[str, Callable[..., IO[Any]]]] = {
    ".xz": lzma.open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
}
_EXTXYZ: Final = (".xyz", ".extxyz")
_STORES: Final = (".h5", ".hdf5")
# pickled or foreign formats whose reading could run code
_REFUSED_FORMATS: Final = ("bundletrajectory", "gpw", "py", "python")
_SIX_NUMBERS: Final = re.compile(r"""\b(?P<name>stress|virial)\s*=\s*(["'])(?P<numbers>[^"']*)\2""")
_LONGEST_LINE: Final = 2**24
_LARGEST_NPZ: Final = 2 * 2**30
_LARGEST_DECOMPRESSED: Final = 8 * 2**30
_WEIGHT_NAMES: Final = ("weight", "config_weight")
_ATOM_WEIGHT_NAMES: Final = ("atom_weight", "atom_weights", "force_weight")
_SAME: Final = 1e-8
"""Two values of one label that differ relatively by less than this are the same number."""


@dataclass
class LabelReport:
    """What a reader found: label counts, and how often each name supplied a label.

    Attributes
    ----------
    counts
        Frames and labels.
    names
        By label, number of frames by the name that supplied it.
    n_isolated_atoms
        Frames of one atom that give the E0 of their element.
    n_stress_dropped
        Frames whose stress or virial was left out, as they are not periodic along three axes:
        without a volume a stress has no meaning.
    unlabelled_keys
        Other names seen in the file, for messages.
    """

    counts: LabelCounts = field(default_factory=LabelCounts)
    names: dict[str, dict[str, int]] = field(
        default_factory=lambda: {keys.ENERGY: {}, keys.FORCES: {}, keys.STRESS: {}}
    )
    n_isolated_atoms: int = 0
    n_stress_dropped: int = 0
    unlabelled_keys: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        lines = [str(self.counts)]
        for label, found in self.names.items():
            for name, count in found.items():
                lines.append(f"  {label} from `{name}` in {count} of {self.counts.n_frames} frames")
        if self.n_isolated_atoms:
            lines.append(f"  isolated atoms: {self.n_isolated_atoms}")
        if self.n_stress_dropped:
            lines.append(
                f"  stress left out in {self.n_stress_dropped} frames: not periodic in 3 directions"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Reading:
    """Frames of a file and the report of their labels; ``str()`` gives the report."""

    frames: list[Frame]
    report: LabelReport
    path: Path

    def __str__(self) -> str:
        return f"{self.path}: {self.report}"


def read_frames(
    path: str | Path,
    *,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    virial_key: str | None = None,
    units: Mapping[str, str] | None = None,
    require_labels: bool = True,
) -> Reading:
    """Return all frames of a file, in eV and Å, and under which names their labels were.

    Extended XYZ (also ``.xz``, ``.gz``, ``.bz2``), anything else that ASE reads, ``.npz`` in the
    layouts of MD17 and rMD17, and the package's own HDF5 store.

    Parameters
    ----------
    path
        The file.
    energy_key, forces_key, stress_key, virial_key
        Name of a label in the file; without it the usual names of ``LABEL_NAMES`` are tried. A
        virial gives the stress -virial/V.
    units
        Units of the file where they are not eV and Å, such as
        ``{"energy": "kcal/mol", "length": "Bohr", "stress": "kbar"}``. ASE converts the formats
        of electronic-structure codes itself. An ``.npz`` names no units, so it needs
        ``energy`` and ``length`` here (those of MD17 and rMD17: kcal/mol and Å).
    require_labels
        Whether a file without any label is an error.

    Returns
    -------
    Reading
        Frames and report.

    Raises
    ------
    FileNotFoundError
        If there is no such file; names close to it are given.
    ValueError
        If the file cannot be read, is empty or truncated, holds no label, holds two different
        values for a label, or a frame is not sound (see :class:`Frame`). The message names the
        file, the frame (counted from 0) and, in extended XYZ, the line (counted from 1).
    """
    report = LabelReport()
    frames = list(
        iter_frames(
            path,
            energy_key=energy_key,
            forces_key=forces_key,
            stress_key=stress_key,
            virial_key=virial_key,
            units=units,
            require_labels=require_labels,
            report=report,
        )
    )
    return Reading(frames, report, Path(path))


def iter_frames(
    path: str | Path,
    *,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    virial_key: str | None = None,
    units: Mapping[str, str] | None = None,
    require_labels: bool = True,
    report: LabelReport | None = None,
) -> Iterator[Frame]:
    """Yield the frames of a file one by one, for files larger than memory.

    Parameters
    ----------
    path, energy_key, forces_key, stress_key, virial_key, units, require_labels
        As in :func:`read_frames`.
    report
        Filled while frames are read.

    Yields
    ------
    Frame
        In the order of the file.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`read_frames`.
    """
    path = Path(path)
    report = LabelReport() if report is None else report
    if not path.exists():
        _refuse_missing(path)
    if not path.is_file():
        raise ValueError(f"{path}: must be a file, is a folder or device")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    chosen = {
        keys.ENERGY: energy_key,
        keys.FORCES: forces_key,
        keys.STRESS: stress_key,
        keys.VIRIAL: virial_key,
    }
    if stress_key is not None and virial_key is not None:
        raise ValueError("give `stress_key` or `virial_key`, not both")
    compression = path.suffix.lower() if path.suffix.lower() in _COMPRESSIONS else ""
    suffix = (path.with_suffix("") if compression else path).suffix.lower()
    if suffix in (*_STORES, ".npz") and compression:
        raise ValueError(f"{path}: decompress the file first")
    if suffix in _STORES:
        frames = _from_store(path, chosen, units, report)
    elif suffix == ".npz":
        frames = _from_npz(path, chosen, units, report)
    else:
        labels = _LabelFinder(path, chosen, unit_factors(units), report)
        if suffix in _EXTXYZ:
            frames = _from_extxyz(path, compression, labels)
        else:
            frames = _from_ase(path, compression, labels)
    for frame in frames:
        report.counts.add(frame)
        report.n_isolated_atoms += frame.is_isolated_atom
        yield frame
    _check_something_was_found(path, chosen, report, require_labels)


def _refuse_missing(path: Path) -> NoReturn:
    message = f"{path}: no such file"
    if not path.parent.is_dir():
        message += f"; there is no folder {path.parent} either"
    else:
        there = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
        near = get_close_matches(path.name, there, n=3)
        if near:
            message += f"; did you mean {', '.join(sorted(near))}?"
    raise FileNotFoundError(message)


def _check_something_was_found(
    path: Path, chosen: Mapping[str, str | None], report: LabelReport, require_labels: bool
) -> None:
    if report.counts.n_frames == 0:
        raise ValueError(f"{path}: there is no frame in the file")
    known = ", ".join(f"`{name}`" for name in sorted(report.unlabelled_keys)) or "none"
    for label, name in chosen.items():
        found = report.names[keys.STRESS if label == keys.VIRIAL else label]
        if name is not None and name not in found and not report.n_stress_dropped:
            raise ValueError(
                f"{path}: no frame has `{name}`, given as `{label}_key`; other keys found: {known}"
            )
    if require_labels and not any(report.names.values()):
        raise ValueError(
            f"{path}: no energy, forces or stress in any of {report.counts.n_frames} frames; keys "
            f"found: {known}. Name the label's key with `energy_key`, `forces_key`, `stress_key` "
            "or `virial_key`"
        )


class _LabelFinder:
    """Turns an ASE structure into a frame: finds its labels and converts units."""

    def __init__(
        self,
        path: Path,
        chosen: Mapping[str, str | None],
        factors: UnitFactors,
        report: LabelReport,
    ) -> None:
        self.path = path
        self.chosen = chosen
        self.factors = factors
        self.report = report

    def frame(self, atoms: Atoms, index: int) -> Frame:
        source = f"{self.path}, frame {index}"
        try:
            return self._frame(atoms, source)
        except ValueError as error:
            # Frame already begins its messages with the source
            message = str(error)
            if not message.startswith(source):
                message = f"{source}: {message}"
            raise ValueError(message) from error

    def _frame(self, atoms: Atoms, source: str) -> Frame:
        values = _all_values(atoms)
        factors = self.factors
        energy = self._find(keys.ENERGY, values)
        forces = self._find(keys.FORCES, values)
        stress, stress_name = self._stress(values, atoms)
        config_type = str(values.get("config_type", ""))
        if names_isolated_atom(config_type) and len(atoms) != 1:
            raise ValueError(
                f"`config_type` is {config_type}, but the frame has {len(atoms)} atoms"
            )
        weights = [values[name] for name in _WEIGHT_NAMES if name in values]
        atom_weights = [(name, values[name]) for name in _ATOM_WEIGHT_NAMES if name in values]
        frame = Frame(
            atomic_numbers=atoms.numbers,
            positions=atoms.positions * factors.length,
            cell=atoms.cell[:] * factors.length,
            pbc=atoms.pbc,
            energy=None if energy is None else _number(*energy) * factors.energy,
            forces=None if forces is None else _numbers(*forces) * factors.forces,
            stress=stress,
            config_type=config_type,
            weight=1.0 if not weights else _number("weight", weights[0]),
            atom_weights=None if not atom_weights else _numbers(*atom_weights[0]),
            source=source,
        )
        # counted only now: a frame that is refused has supplied nothing
        found = {keys.ENERGY: energy, keys.FORCES: forces}
        for label, pair in found.items():
            if pair is not None:
                _count(self.report.names[label], pair[0])
        if stress_name is not None:
            _count(self.report.names[keys.STRESS], stress_name)
        used = {pair[0] for pair in found.values() if pair is not None} | {stress_name}
        ours = {"numbers", "positions", "config_type", *_WEIGHT_NAMES, *_ATOM_WEIGHT_NAMES}
        self.report.unlabelled_keys.update(values.keys() - used - ours)
        return frame

    def _find(self, label: str, values: Mapping[str, Any]) -> tuple[str, Any] | None:
        """Return name and value of a label, or None where the frame has none."""
        chosen = self.chosen[label]
        if chosen is not None:
            return (chosen, values[chosen]) if chosen in values else None
        found = [(name, values[name]) for name in LABEL_NAMES[label] if name in values]
        if not found:
            return None
        for name, value in found[1:]:
            if not _same(found[0][1], value):
                hint = ""
                if "free_energy" in (name, found[0][0]):
                    hint = " (forces are the derivative of `free_energy`)"
                raise ValueError(
                    f"`{found[0][0]}` and `{name}` differ{_difference(found[0][1], value)}; choose "
                    f"one with `{label}_key`{hint}"
                )
        return found[0]

    def _stress(
        self, values: Mapping[str, Any], atoms: Atoms
    ) -> tuple[NDArray[np.float64] | None, str | None]:
        stress = None if self.chosen[keys.VIRIAL] else self._find(keys.STRESS, values)
        virial = None if self.chosen[keys.STRESS] else self._find(keys.VIRIAL, values)
        if stress is None and virial is None:
            return None, None
        if not atoms.pbc.all():
            self.report.n_stress_dropped += 1
            return None, None
        found = []
        if stress is not None:
            found.append((stress[0], _matrix(*stress) * self.factors.stress))
        if virial is not None:
            volume = abs(np.linalg.det(atoms.cell[:] * self.factors.length))
            if volume > 0.0:
                found.append((virial[0], -_matrix(*virial) * self.factors.virial / volume))
        if len(found) == 2:
            largest = max(np.abs(found[0][1]).max(), np.abs(found[1][1]).max())
            # files round both, so they agree less closely than two copies of one number
            if not np.abs(found[0][1] - found[1][1]).max() <= 1e-4 * largest + 1e-9:
                raise ValueError(
                    f"`{found[0][0]}` and `{found[1][0]}` differ: the stress should be -virial/V; "
                    "choose one with `stress_key` or `virial_key`"
                )
        if not found:
            return None, None
        return found[0][1], found[0][0]


def _count(found: dict[str, int], name: str) -> None:
    found[name] = found.get(name, 0) + 1


def _all_values(atoms: Atoms) -> dict[str, Any]:
    """Return everything ASE knows of a structure by name: info, arrays, calculator results."""
    values: dict[str, Any] = {**atoms.info}
    # rows of an ASE database bring their keys one level down
    extra = values.pop("key_value_pairs", None)
    data = values.pop("data", None)
    results = atoms.calc.results if atoms.calc is not None else {}
    for group in (extra, data, atoms.arrays, results):
        for name, value in dict(group or {}).items():
            if value is None:
                continue
            if name in values and not _same(values[name], value):
                raise ValueError(f"the frame holds two different values of `{name}`")
            values[name] = value
    return values


def _same(one: Any, other: Any) -> bool:
    try:
        a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    except (TypeError, ValueError):
        return bool(np.array_equal(one, other))
    if a.size != b.size:
        return False
    return bool(np.allclose(a.reshape(-1), b.reshape(-1), rtol=_SAME, atol=0.0, equal_nan=True))


def _difference(one: Any, other: Any) -> str:
    a, b = np.asarray(one), np.asarray(other)
    return f" ({a.item()} and {b.item()})" if a.size == b.size == 1 else ""


def _numbers(name: str, value: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be numbers, got {value!r}") from None


def _number(name: str, value: Any) -> float:
    array = _numbers(name, value)
    if array.size != 1:
        raise ValueError(f"`{name}` must be one number, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite, got {array.item()}")
    return float(array.item())


def _matrix(name: str, value: Any) -> NDArray[np.float64]:
    """Return a 3×3 tensor from 3×3 or 9 numbers, or from 6 in ASE's order xx yy zz yz xz xy."""
    array = _numbers(name, value)
    if array.size == 9:
        return array.reshape(3, 3)
    if array.shape == (6,):
        xx, yy, zz, yz, xz, xy = array
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    raise ValueError(
        f"`{name}` must have shape (3, 3), (9,) or (6,) (xx yy zz yz xz xy), got {array.shape}"
    )


# --- extended XYZ


def _from_extxyz(path: Path, compression: str, labels: _LabelFinder) -> Iterator[Frame]:
    opener = _COMPRESSIONS.get(compression, open)
    # ASE seeks through the whole file first, which takes for ever in a compressed one
    with opener(path, "rt", encoding="utf-8") as stream:
        for index, (line, chunk) in enumerate(_extxyz_chunks(path, stream)):
            where = f"{path}, frame {index} (line {line})"
            try:
                atoms = next(
                    ase.io.extxyz.read_xyz(
                        io.StringIO(_SIX_NUMBERS.sub(_nine_numbers, chunk, count=2)), slice(0, 1)
                    )
                )
            except KeyError as error:
                raise ValueError(f"{where}: there is no element {error}") from error
            except Exception as error:
                raise ValueError(f"{where}: {error}") from error
            header = chunk.split("\n", 2)[1]
            if not atoms.cell.any() and not re.search(r"\bpbc\s*=", header):
                # a zero Lattice is how some programs write "no cell"
                atoms.pbc = False
            yield labels.frame(atoms, index)


def _nine_numbers(match: re.Match[str]) -> str:
    """Return a tensor of six numbers written as nine; ASE reads these two names only so."""
    numbers = match["numbers"].split()
    if len(numbers) != 6:
        return match[0]
    order = (0, 5, 4, 5, 1, 3, 4, 3, 2)
    return f'{match["name"]}="{" ".join(numbers[k] for k in order)}"'


def _extxyz_chunks(path: Path, stream: IO[str]) -> Iterator[tuple[int, str]]:
    """Yield the first line's number and the text of each frame, its count of atoms checked."""
    lines = _numbered_lines(path, stream)
    index = 0
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{path}, frame {index} (line {number})"
        try:
            n_atoms = int(line)
        except ValueError:
            raise ValueError(
                f"{where}: expected the number of atoms, got {line.strip()[:60]!r}"
            ) from None
        if n_atoms < 1:
            raise ValueError(f"{where}: a frame must have at least 1 atom, got {n_atoms}")
        chunk = [line]
        for _, entry in lines:
            if len(chunk) > 1 and not entry.strip():
                # a blank line stands at the end of a frame, never within
                break
            chunk.append(entry)
            if len(chunk) == n_atoms + 2:
                break
        if len(chunk) < n_atoms + 2:
            raise ValueError(
                f"{where}: the frame should have {n_atoms} atoms, found {max(len(chunk) - 2, 0)}; "
                "is the file truncated?"
            )
        columns = {len(entry.split()) for entry in chunk[2:]}
        if len(columns) > 1:
            first = len(chunk[2].split())
            odd = next(k for k, entry in enumerate(chunk[2:]) if len(entry.split()) != first)
            raise ValueError(
                f"{where}: atom {odd} (line {number + 2 + odd}) has "
                f"{len(chunk[2 + odd].split())} columns, atom 0 has {first}"
            )
        yield number, "".join(chunk)
        index += 1


def _numbered_lines(path: Path, stream: IO[str]) -> Iterator[tuple[int, str]]:
    number = 0
    while True:
        number += 1
        try:
            line = stream.readline(_LONGEST_LINE)
        except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError) as error:
            raise ValueError(f"{path}, line {number}: cannot be read ({error})") from error
        if not line:
            return
        if len(line) == _LONGEST_LINE:
            raise ValueError(f"{path}, line {number}: longer than {_LONGEST_LINE} characters")
        yield number, line


# --- anything else that ASE reads


def _from_ase(path: Path, compression: str, labels: _LabelFinder) -> Iterator[Frame]:
    if not compression:
        yield from _from_ase_file(path, labels)
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.with_suffix("").name
        with _COMPRESSIONS[compression](path, "rb") as packed, plain.open("wb") as unpacked:
            try:
                shutil.copyfileobj(_Limited(path, packed), unpacked, 2**20)
            except (OSError, EOFError, lzma.LZMAError) as error:
                raise ValueError(f"{path}: cannot be decompressed ({error})") from error
        yield from _from_ase_file(plain, labels)


class _Limited:
    """Reads a stream up to a limit: a few bytes of a compressed file can stand for terabytes."""

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


def _from_ase_file(path: Path, labels: _LabelFinder) -> Iterator[Frame]:
    try:
        file_format = ase.io.formats.filetype(str(path))
    except ase.io.formats.UnknownFileTypeError as error:
        raise ValueError(f"{labels.path}: the format of the file is not known to ASE") from error
    if file_format not in ase.io.formats.ioformats:
        raise ValueError(f"{labels.path}: the format of the file is not known to ASE")
    if file_format in _REFUSED_FORMATS:
        raise ValueError(f"{labels.path}: files of format `{file_format}` are not read")
    if file_format in ("db", "json"):
        structures = _database_rows(path)
    else:
        structures = ase.io.formats.iread(
            str(path), ":", format=file_format, do_not_split_by_at_sign=True
        )
    index = 0
    while True:
        try:
            atoms = next(structures)
        except StopIteration:
            return
        except Exception as error:
            raise ValueError(
                f"{labels.path}, frame {index}: cannot be read as `{file_format}` "
                f"({type(error).__name__}: {error})"
            ) from error
        yield labels.frame(atoms, index)
        index += 1


def _database_rows(path: Path) -> Iterator[Atoms]:
    with ase.db.connect(str(path), serial=True) as database:
        for row in database.select():
            yield row.toatoms(add_additional_information=True)


# --- npz in the layouts of MD17 and rMD17


def _from_npz(
    path: Path,
    chosen: Mapping[str, str | None],
    units: Mapping[str, str] | None,
    report: LabelReport,
) -> Iterator[Frame]:
    declared = dict(units or {})
    missing = [name for name in ("energy", "length") if name not in declared]
    if missing:
        raise ValueError(
            f"{path}: an npz file names no units; `units` must give {' and '.join(missing)}. The "
            'files of MD17 and rMD17 need units={"energy": "kcal/mol", "length": "Angstrom"}'
        )
    factors = unit_factors(declared)
    _check_npz(path)
    with np.load(path, allow_pickle=False) as archive:
        names = set(archive.files)
        report.unlabelled_keys.update(names)
        pick = {
            "atomic_numbers": _npz_name(path, names, ("nuclear_charges", "z"), None),
            "positions": _npz_name(path, names, ("coords", "R"), None),
            keys.ENERGY: _npz_name(path, names, ("energies", "E"), chosen[keys.ENERGY]),
            keys.FORCES: _npz_name(path, names, ("forces", "F"), chosen[keys.FORCES]),
        }
        for needed in ("atomic_numbers", "positions"):
            if pick[needed] is None:
                raise ValueError(
                    f"{path}: no {needed} (`nuclear_charges` or `z`, `coords` or `R`) among "
                    f"{sorted(names)}"
                )
        arrays = {label: archive[name] for label, name in pick.items() if name is not None}
    report.unlabelled_keys.difference_update(name for name in pick.values() if name is not None)
    numbers, positions = arrays["atomic_numbers"], arrays["positions"]
    if numbers.ndim != 1 or positions.ndim != 3 or positions.shape[1:] != (len(numbers), 3):
        raise ValueError(
            f"{path}: `{pick['positions']}` must have shape (n_frames, {numbers.size}, 3) to fit "
            f"`{pick['atomic_numbers']}` of shape {numbers.shape}, got {positions.shape}"
        )
    n_frames = len(positions)
    energies, forces = arrays.get(keys.ENERGY), arrays.get(keys.FORCES)
    if energies is not None and energies.size != n_frames:
        raise ValueError(
            f"{path}: `{pick[keys.ENERGY]}` must have {n_frames} numbers, one a frame, got shape "
            f"{energies.shape}"
        )
    if forces is not None and forces.shape != positions.shape:
        raise ValueError(
            f"{path}: `{pick[keys.FORCES]}` must have shape {positions.shape}, got {forces.shape}"
        )
    for index in range(n_frames):
        source = f"{path}, frame {index}"
        yield Frame(
            atomic_numbers=numbers,
            positions=positions[index].astype(np.float64) * factors.length,
            energy=None
            if energies is None
            else float(energies.reshape(-1)[index]) * factors.energy,
            forces=None if forces is None else forces[index].astype(np.float64) * factors.forces,
            source=source,
        )
        for label in (keys.ENERGY, keys.FORCES):
            name = pick[label]
            if name is not None:
                _count(report.names[label], name)


def _npz_name(path: Path, names: set[str], known: tuple[str, ...], key: str | None) -> str | None:
    if key is not None:
        return key if key in names else None
    found = [name for name in known if name in names]
    if len(found) > 1:
        raise ValueError(f"{path}: holds both `{found[0]}` and `{found[1]}`; remove one")
    return found[0] if found else None


def _check_npz(path: Path) -> None:
    """Check that declared shapes fit the sizes of the archive, before any array is made."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > _LARGEST_NPZ:
                raise ValueError(
                    f"{path}: holds {size} bytes unpacked, at most {_LARGEST_NPZ} are read; "
                    "split the file"
                )
            for member in members:
                with archive.open(member) as stream:
                    version = np.lib.format.read_magic(stream)
                    read_header = {
                        (1, 0): np.lib.format.read_array_header_1_0,
                        (2, 0): np.lib.format.read_array_header_2_0,
                    }.get(version)
                    if read_header is None:
                        raise ValueError(f"`{member.filename}` has npy version {version}")
                    shape, _, dtype = read_header(stream)
                    if dtype.hasobject:
                        raise ValueError(
                            f"`{member.filename}` holds pickled objects, which are not read"
                        )
                    declared = math.prod(shape) * dtype.itemsize + stream.tell()
                    if declared != member.file_size:
                        raise ValueError(
                            f"`{member.filename}` declares shape {shape} of {dtype}, {declared} "
                            f"bytes, but has {member.file_size}"
                        )
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        message = str(error)
        if not message.startswith(str(path)):
            message = f"{path}: {message}"
        raise ValueError(message) from error


# --- the store of the package


def _from_store(
    path: Path,
    chosen: Mapping[str, str | None],
    units: Mapping[str, str] | None,
    report: LabelReport,
) -> Iterator[Frame]:
    for what, given in (("units", units), *((f"{name}_key", key) for name, key in chosen.items())):
        if given:
            raise ValueError(f"{path}: `{what}` has no use for a store, which is in eV and Å")
    with FrameStore(path) as store:
        for frame in store:
            for label, names in report.names.items():
                if getattr(frame, label) is not None:
                    _count(names, label)
            yield frame
