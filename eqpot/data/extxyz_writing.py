"""Frames to extended XYZ, every digit kept."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from eqpot.data.frames import Frame
from eqpot.durable import written_durably
from eqpot.elements import SYMBOLS


def write_extxyz(path: str | Path, frames: Iterable[Frame]) -> int:
    """Write frames to an extended XYZ file and return their number; the file is whole or not there.

    Numbers have as many digits as give back the same float64. Labels are named ``energy``,
    ``forces``, ``stress`` (9 numbers), ``atom_weight``; further ``config_type``, ``group`` and
    ``weight`` where they are not the default.

    Parameters
    ----------
    path
        The file.
    frames
        Any frames; taken one by one.

    Raises
    ------
    ValueError
        If there is no frame, or a name cannot be written.
    OSError
        If the file cannot be written.
    """
    path = Path(path)
    n_frames = 0
    with written_durably(path) as partial, partial.open("w", encoding="utf-8") as file:
        for frame in frames:
            file.write(frame_text(frame))
            n_frames += 1
        if n_frames == 0:
            raise ValueError(f"{path}: there is no frame to write")
    return n_frames


def frame_text(frame: Frame) -> str:
    """Return the lines of a frame in extended XYZ.

    Raises
    ------
    ValueError
        If ``config_type`` or ``group`` holds a line break or both kinds of quotes.
    """
    header = []
    if frame.cell.any():
        header.append(f'Lattice="{_numbers(frame.cell.reshape(-1))}"')
    columns = [frame.positions]
    properties = "species:S:1:pos:R:3"
    if frame.forces is not None:
        properties += ":forces:R:3"
        columns.append(frame.forces)
    if frame.atom_weights is not None:
        properties += ":atom_weight:R:1"
        columns.append(frame.atom_weights[:, None])
    header.append(f"Properties={properties}")
    if frame.energy is not None:
        header.append(f"energy={frame.energy!r}")
    if frame.stress is not None:
        header.append(f'stress="{_numbers(frame.stress.reshape(-1))}"')
    for name in ("config_type", "group"):
        if getattr(frame, name):
            header.append(f"{name}={_quoted(name, getattr(frame, name), frame.source)}")
    if frame.weight != 1.0:
        header.append(f"weight={frame.weight!r}")
    axes = " ".join("T" if periodic else "F" for periodic in frame.pbc)
    header.append(f'pbc="{axes}"')
    rows = [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    lines = [
        f"{SYMBOLS[z]} {' '.join(repr(x) for part in row for x in part)}"
        for z, row in zip(frame.atomic_numbers.tolist(), rows, strict=True)
    ]
    return f"{len(frame)}\n{' '.join(header)}\n" + "\n".join(lines) + "\n"


def _numbers(values: Iterable[float]) -> str:
    return " ".join(repr(float(value)) for value in values)


def _quoted(name: str, text: str, source: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", text) and text not in ("T", "F"):
        return text
    if '"' in text or "\n" in text or "\r" in text or "\\" in text:
        raise ValueError(f"{source}: `{name}` {text[:60]!r} cannot be written to extended XYZ")
    # quoted JSON text: what looks like a number must stay a text
    return f"'_JSON {json.dumps(text, ensure_ascii=False)}'" if "'" not in text else f'"{text}"'
