"""From the path of a file or folder to frames: the door to all readers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, Unpack

from eqpot import keys
from eqpot.data.declared_units import UnitFactors, unit_factors
from eqpot.data.frames import Frame
from eqpot.data.readers.ase_database import SQLITE_MAGIC, database_frames, json_frames
from eqpot.data.readers.ase_formats import ase_frames, format_of
from eqpot.data.readers.deepmd import deepmd_frames
from eqpot.data.readers.extxyz import extxyz_frames
from eqpot.data.readers.keys import KeyArguments, LabelKeys
from eqpot.data.readers.labels import LABEL_NAMES, LabelFinder
from eqpot.data.readers.npz import NPZ_LABEL_NAMES, check_units_declared, npz_frames
from eqpot.data.readers.outcar import outcar_frames
from eqpot.data.readers.report import LabelReport
from eqpot.data.readers.stored import stored_frames
from eqpot.data.readers.vasprun import vasprun_frames
from eqpot.data.suffixes import EXTXYZ, STORES, split_suffix, unpacked_path
from eqpot.missing import missing_file

_FORMATS: Final = {
    "deepmd": deepmd_frames,
    "extxyz": extxyz_frames,
    "npz": npz_frames,
    "outcar": outcar_frames,
    "vasprun": vasprun_frames,
    "ase database": database_frames,
    "ase json database": json_frames,
}
_STORE: Final = "store"
_WITHOUT_UNITS: Final = ("extxyz", "npz")
"""Formats that do not say what units they are in."""
_OF_ASE: Final = {
    "vasp-out": "outcar",
    "vasp-xml": "vasprun",
    "db": "ase database",
    "json": "ase json database",
}


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
    units: Mapping[str, str] | None = None,
    config_type: str = "",
    require_labels: bool = True,
    **names: Unpack[KeyArguments],
) -> Reading:
    """Return all frames of a file, in eV and Å, and under which names their labels were.

    Extended XYZ (also ``.xz``, ``.gz``, ``.bz2``), folders of DeePMD, VASP's OUTCAR and
    vasprun.xml, databases of ASE, ``.npz``, the package's own HDF5 store, and anything else that
    ASE reads.

    Parameters
    ----------
    path
        The file, or a folder that holds DeePMD systems.
    units
        Units of the file where they are not eV and Å, such as
        ``{"energy": "kcal/mol", "length": "Bohr", "stress": "kbar"}``. Formats of
        electronic-structure codes have units of their own and are converted. An ``.npz`` names no
        units, so it needs ``energy`` and ``length`` here (those of MD17 and rMD17: kcal/mol, Å).
    config_type
        Kind of the structures, where the file names none.
    require_labels
        Whether a file without any label is an error.
    **names
        ``energy_key``, ``forces_key``, ``stress_key``, ``virial_key``, ``group_key`` and others:
        names in the file where they are not the usual ones; see
        :class:`eqpot.data.readers.keys.LabelKeys`.

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
        file, the frame (counted from 0) and, in text, the line (counted from 1).
    """
    report = LabelReport()
    frames = list(
        iter_frames(
            path,
            units=units,
            config_type=config_type,
            require_labels=require_labels,
            report=report,
            **names,
        )
    )
    return Reading(frames, report, Path(path))


def iter_frames(
    path: str | Path,
    *,
    units: Mapping[str, str] | None = None,
    config_type: str = "",
    require_labels: bool = True,
    report: LabelReport | None = None,
    **names: Unpack[KeyArguments],
) -> Iterator[Frame]:
    """Yield the frames of a file one by one, for files larger than memory.

    Parameters
    ----------
    path, units, config_type, require_labels, **names
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
    chosen = LabelKeys.from_arguments(names)
    found = file_format(path)
    frames = open_frames(path, found, chosen, units, config_type, report)
    for frame in frames:
        report.add(frame)
        yield frame
    check_something_was_found(path, chosen, report, require_labels)


def file_format(path: Path) -> str:
    """Return the name of a file's format; those that only ASE reads have its names.

    Raises
    ------
    FileNotFoundError
        If there is no such file; names close to it are given.
    ValueError
        If the file is empty, its format is not known, or is not read.
    """
    if not path.exists():
        raise missing_file(path)
    if path.is_dir():
        return "deepmd"
    if not path.is_file():
        raise ValueError(f"{path}: must be a file or a folder, is a device")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    suffix, compression = split_suffix(path)
    if suffix in (*STORES, ".npz") and compression:
        raise ValueError(f"{path}: decompress the file first")
    if suffix in STORES:
        return _STORE
    if suffix == ".npz":
        return "npz"
    if suffix in EXTXYZ:
        return "extxyz"
    plain_name = unpacked_path(path).name
    if "OUTCAR" in plain_name:
        return "outcar"
    if suffix == ".xml" and "vasprun" in plain_name:
        return "vasprun"
    if suffix == ".db" and not compression:
        with path.open("rb") as file:
            if file.read(len(SQLITE_MAGIC)) != SQLITE_MAGIC:
                raise ValueError(f"{path}: is no SQLite database, though its name ends in .db")
    name = format_of(path)
    return _OF_ASE.get(name, name)


def label_finder(
    path: Path,
    found: str,
    chosen: LabelKeys,
    units: Mapping[str, str] | None,
    config_type: str,
    report: LabelReport,
) -> LabelFinder:
    """Return what turns records of a file into frames.

    Raises
    ------
    ValueError
        If units are not known, must be declared and are not, or are declared for a format that
        has its own.
    """
    factors = unit_factors(units)
    if found == "npz":
        check_units_declared(path, units)
    elif found not in _WITHOUT_UNITS and factors != UnitFactors():
        raise ValueError(
            f"{path}: files of format `{found}` have units of their own and are converted to eV "
            f"and Å; `units` {dict(units or {})} would scale them once more. Leave `units` out for "
            "this file; where several are converted, convert one by one"
        )
    names = NPZ_LABEL_NAMES if found == "npz" else LABEL_NAMES
    return LabelFinder(path, chosen, factors, report, config_type, names)


def open_frames(
    path: Path,
    found: str,
    chosen: LabelKeys,
    units: Mapping[str, str] | None,
    config_type: str,
    report: LabelReport,
) -> Iterator[Frame]:
    """Return the stream of the frames of a file whose format is known.

    Raises
    ------
    ValueError
        If keys are given for a store, or units for a format that has its own.
    """
    if found == _STORE:
        return stored_frames(path, chosen, units, report, config_type)
    labels = label_finder(path, found, chosen, units, config_type, report)
    reader = _FORMATS.get(found)
    return ase_frames(path, found, labels) if reader is None else reader(path, labels)


def check_something_was_found(
    path: Path, chosen: LabelKeys, report: LabelReport, require_labels: bool
) -> None:
    """Check that a file that was read to its end held frames, the keys asked for, and labels.

    Raises
    ------
    ValueError
        If not.
    """
    if report.counts.n_frames == 0:
        remarks = "".join(f" ({remark})" for remark in report.remarks)
        raise ValueError(f"{path}: there is no frame in the file{remarks}")
    known = ", ".join(f"`{name}`" for name in sorted(report.unlabelled_keys)) or "none"
    for label in (keys.ENERGY, keys.FORCES, keys.STRESS, keys.VIRIAL):
        name = chosen.label(label)
        found = report.names[keys.STRESS if label == keys.VIRIAL else label]
        # frames without a volume have the stress that was asked for, though it was left out
        dropped = label in (keys.STRESS, keys.VIRIAL) and report.n_stress_dropped > 0
        if name is not None and name not in found and not dropped:
            _refuse_key(path, label, name, known)
    if chosen.group is not None and report.n_grouped == 0:
        _refuse_key(path, "group", chosen.group, known)
    if require_labels and not any(report.names.values()):
        raise ValueError(
            f"{path}: no energy, forces or stress in any of {report.counts.n_frames} frames; keys "
            f"found: {known}. Name the label's key with `energy_key`, `forces_key`, `stress_key` "
            "or `virial_key`"
        )


def _refuse_key(path: Path, what: str, name: str, known: str) -> NoReturn:
    raise ValueError(
        f"{path}: no frame has `{name}`, given as `{what}_key`; other keys found: {known}"
    )
