"""Layout of the store: millions of frames in one HDF5 file.

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

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eqpot import keys

FORMAT: Final = "eqpot-frames"
VERSION: Final = 2

BLOCK: Final = 512
LABELS: Final = "labels"
CHUNK_BYTES: Final = 2**14
PER_ATOM: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    keys.ATOMIC_NUMBERS: ("|u1", ()),
    keys.POSITIONS: ("<f8", (3,)),
    keys.FORCES: ("<f8", (3,)),
    keys.ATOM_WEIGHT: ("<f8", ()),
}
PER_FRAME: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    keys.CELL: ("<f8", (3, 3)),
    keys.PBC: ("|u1", (3,)),
    keys.ENERGY: ("<f8", ()),
    keys.STRESS: ("<f8", (3, 3)),
    keys.WEIGHT: ("<f8", ()),
    LABELS: ("|u1", (4,)),
}
INFO: Final = "info"
OFFSETS: Final = "offsets"
INFO_OFFSETS: Final = "info_offsets"
DATASETS: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    OFFSETS: ("<i8", ()),
    INFO_OFFSETS: ("<i8", ()),
    INFO: ("|u1", ()),
    **PER_ATOM,
    **PER_FRAME,
}


def layout(version: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of a row of each dataset in a version of the store."""
    if version >= 2:
        return DATASETS
    layout = {name: row for name, row in DATASETS.items() if name != keys.ATOM_WEIGHT}
    return {**layout, LABELS: ("|u1", (3,))}


@dataclass(frozen=True)
class FirstLine:
    """What the first line of a store says.

    Attributes
    ----------
    version
        Of the layout.
    n_bytes
        Of the file.
    sha256
        Of all that follows the first block.
    """

    version: int
    n_bytes: int
    sha256: str

    def block(self) -> bytes:
        """Return the first block of the file."""
        line = f"{FORMAT} {self.version} {self.n_bytes} {self.sha256}\n"
        return line.encode("ascii").ljust(BLOCK, b"\0")


def parse_first_line(path: Path, block: bytes) -> FirstLine:
    """Return what the first block of a file says.

    Raises
    ------
    ValueError
        If it is not the first block of a store, is damaged, or of a later version.
    """
    words = block.rstrip(b"\0").split(b" ")
    if words[0] != FORMAT.encode() or len(block) < BLOCK:
        raise ValueError(
            f"{path}: is not a frame store (its first bytes must be {FORMAT!r}, are "
            f"{block[:12]!r}); make one from any data file with `eqpot data convert`"
        )
    try:
        line = FirstLine(int(words[1]), int(words[2]), words[3].decode("ascii").strip())
    except (IndexError, ValueError) as error:
        raise ValueError(f"{path}: the first line is damaged: {block[:120]!r}") from error
    if line.version > VERSION:
        raise ValueError(
            f"{path}: written as version {line.version} of the store, this eqpot reads up to "
            f"{VERSION}; update eqpot"
        )
    if line.version < 1 or block != line.block():
        raise ValueError(f"{path}: the first line is damaged: {block[:120]!r}")
    return line
