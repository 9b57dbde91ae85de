"""Outward doors: a potential as a TorchScript program, verified before it is written.

TorchScript files are programs. They are written here for engines; nothing in the package loads one
unless its SHA-256 is given or it is trusted by name.
"""

import io
import json
import warnings
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from eqpot.durable import check_place, write_durably
from eqpot.exported import (
    ExportKind,
    open_source,
    read_member,
    read_metadata,
    read_trusted,
)
from eqpot.files import dtype_of
from eqpot.potential import Potential
from eqpot.program import ExplicitPotential, Program, verify

METADATA: Final = "eqpot.json"
"""Name of the extra file that carries the metadata, as JSON."""

_KIND: Final = ExportKind(
    "eqpot-torchscript",
    "TorchScript file",
    lambda archive: read_member(archive, f"/extra/{METADATA}"),
)


def export_torchscript(
    potential: Potential | str | Path, path: str | Path, dtype: str | torch.dtype = torch.float32
) -> dict[str, Any]:
    """Write a potential as a TorchScript program, after it was compared with the original.

    The program is loaded back and called on random graphs of changing size, three times each,
    before the file gets its name.

    Parameters
    ----------
    potential
        A native file, or a potential in memory.
    path
        The file, by habit ``name.pt``.
    dtype
        In which the model runs; inputs and results are float64.

    Returns
    -------
    dict
        The metadata written: elements, radius, layers, units, versions and the hash that the native
        file carries in its header; and, not in the file, the largest difference seen.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    ExportError
        If the program differs from the potential or cannot be compared with it; nothing is written.
    ValueError
        If the native file is refused (see :func:`eqpot.files.load_potential`).
    """
    check_place(Path(path))
    potential, metadata = open_source(potential, dtype_of(dtype), _KIND)
    eager = ExplicitPotential(potential).eval()
    data = _script(eager, {METADATA: json.dumps(metadata, ensure_ascii=True)})
    metadata["largest_difference"] = verify(_load(data), potential)
    write_durably(path, data)
    return metadata


def load_torchscript(
    path: str | Path,
    *,
    sha256: str | None = None,
    trust: bool = False,
    device: str | torch.device = "cpu",
) -> tuple[Program, dict[str, Any]]:
    """Return an exported program and its metadata.

    **Loading such a file runs code from it.**

    Parameters
    ----------
    path
        A file of :func:`export_torchscript`.
    sha256
        SHA-256 of the file, from a source you trust.
    trust
        Load without a SHA-256, because you know where the file is from.
    device
        Where it runs.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If neither ``sha256`` nor ``trust`` is given, the SHA-256 differs, or the file is no export.
    """
    path = Path(path)
    data = read_trusted(path, sha256, trust, _KIND)
    metadata = read_metadata(path, _KIND, data)
    try:
        return _load(data, torch.device(device)), metadata
    except RuntimeError as error:
        raise ValueError(f"{path}: is no TorchScript file that torch can load") from error


def read_torchscript_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata of an exported program. None of its code is loaded.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If the file is no export.
    """
    return read_metadata(Path(path), _KIND)


def _script(module: nn.Module, extra_files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # TorchScript is the door to the engines of today; users need not read of its successor.
        warnings.filterwarnings("ignore", message=r"`?torch\.jit")
        program: Any = torch.jit.script(module)
        torch.jit.save(program, buffer, _extra_files=extra_files)
    return buffer.getvalue()


def _load(data: bytes, device: torch.device | None = None) -> Program:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`?torch\.jit")
        program: Program = torch.jit.load(io.BytesIO(data), device)
    return program
