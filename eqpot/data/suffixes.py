"""What the suffix of a file's name says: its format, and how it is packed."""

from pathlib import Path
from typing import Final

STORES: Final = (".h5", ".hdf5")
"""Suffixes of the package's own store."""

EXTXYZ: Final = (".extxyz", ".xyz")
"""Suffixes of extended XYZ."""

COMPRESSED: Final = (".xz", ".gz", ".bz2")
"""Suffixes of packed files."""


def split_suffix(path: Path) -> tuple[str, str]:
    """Return the suffix of the unpacked file, and that of its compression or ``""``, in lower case.

    Examples
    --------
    >>> split_suffix(Path("water.XYZ.xz")), split_suffix(Path("water.h5"))
    (('.xyz', '.xz'), ('.h5', ''))
    """
    compression = path.suffix.lower() if path.suffix.lower() in COMPRESSED else ""
    return (path.with_suffix("") if compression else path).suffix.lower(), compression


def unpacked_path(path: Path) -> Path:
    """Return a path without the suffix of a compression."""
    return path.with_suffix("") if split_suffix(path)[1] else path
