"""The store of the package, read like any other file."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from eqpot.data.declared_units import UnitFactors, unit_factors
from eqpot.data.frames import Frame
from eqpot.data.readers.keys import LabelKeys
from eqpot.data.readers.report import LabelReport
from eqpot.data.store import FrameStore


def stored_frames(
    path: Path,
    chosen: LabelKeys,
    units: Mapping[str, str] | None,
    report: LabelReport,
    config_type: str = "",
) -> Iterator[Frame]:
    """Yield the frames of a store.

    Raises
    ------
    ValueError
        If keys or other units are given: a store has its own names, and is in eV and Å.
    """
    scaled = ("units",) if unit_factors(units) != UnitFactors() else ()
    for what in (*scaled, *chosen.given()):
        raise ValueError(
            f"{path}: `{what}` has no use for a store, which has names of its own and is in eV and "
            "Å; leave it out"
        )
    with FrameStore(path) as store:
        for frame in store:
            for label in report.names:
                if getattr(frame, label) is not None:
                    report.count(label, label)
            if config_type and not frame.config_type:
                yield replace(frame, config_type=config_type)
            else:
                yield frame
