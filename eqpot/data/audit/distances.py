"""Atoms closer than any atoms are."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from eqpot.data.audit.findings import Finding, named
from eqpot.data.audit.scan import Scan, sources
from eqpot.data.frames import Frame

_TOO_CLOSE: Final = 0.6
"""Of the sum of covalent radii. H2 has 1.2, and what is hot or under pressure keeps above 0.7."""
_IMPOSSIBLE: Final = 0.25
"""Here two nuclei all but coincide: no calculation of interest has such a frame."""


def check_distances(scan: Scan, frames: Sequence[Frame]) -> list[Finding]:
    """Return what frames have atoms too close; an error where atoms sit on each other."""
    close = np.flatnonzero(scan.closest < _TOO_CLOSE)
    if not len(close):
        return []
    worst = close[np.argsort(scan.closest[close])]
    n_impossible = int((scan.closest[worst] < _IMPOSSIBLE).sum())
    severity = "error" if n_impossible else "warning"
    return [
        Finding(
            "error" if severity == "error" else "warning",
            "distances",
            "distances.too_close",
            f"{scan.name}: {len(worst)} frames have atoms closer than {_TOO_CLOSE} of the sum of "
            f"their covalent radii, the closest {scan.closest[worst[0]]:.2f} of it",
            "check the unit of positions and cell, that the rows of the cell are lattice vectors, "
            "and that no atom is listed twice",
            (scan.name,),
            len(worst),
            named(sources(frames, worst.tolist())),
        )
    ]
